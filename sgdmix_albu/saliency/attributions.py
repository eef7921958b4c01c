"""Which of Captum's attributions are backends, and how each becomes a map. Data only: listing them imports nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Method:
    """How one of Captum's attributions becomes a saliency map.

    Attributes:
        kind: Captum's class, by its name in ``captum.attr``.
        reduce: Over channels: "abs_max" (Simonyan et al. 2014), "abs_sum", or "positive", the positive part of
            the sum, which is what speaks for the class.
        at_layer: Whether it looks at a layer.
        random: Whether it draws random numbers. Then images go one by one, each with the same seed, so that an
            image's map does not depend on its batch.
        defaults: Name of what fills options for which Captum has no default or one that suits no image.
    """

    kind: str
    reduce: Literal["abs_max", "abs_sum", "positive"]
    at_layer: bool = False
    random: bool = False
    defaults: Literal["", "steps", "windows", "cells", "large_cells", "noise", "zeros"] = ""


METHODS = {
    "saliency": Method("Saliency", "abs_max"),
    "guided_backprop": Method("GuidedBackprop", "abs_max"),
    "deconvolution": Method("Deconvolution", "abs_max"),
    "noise_tunnel": Method("NoiseTunnel", "abs_max", random=True, defaults="noise"),
    "input_x_gradient": Method("InputXGradient", "abs_sum"),
    "integrated_gradients": Method("IntegratedGradients", "abs_sum", defaults="steps"),
    "deep_lift": Method("DeepLift", "abs_sum"),
    "deep_lift_shap": Method("DeepLiftShap", "abs_sum"),
    "gradient_shap": Method("GradientShap", "abs_sum", random=True, defaults="zeros"),
    "guided_gradcam": Method("GuidedGradCam", "abs_max", at_layer=True),
    "layer_activation": Method("LayerActivation", "abs_sum", at_layer=True),
    "layer_gradient_x_activation": Method("LayerGradientXActivation", "positive", at_layer=True),
    "layer_integrated_gradients": Method("LayerIntegratedGradients", "positive", at_layer=True, defaults="steps"),
    "layer_conductance": Method("LayerConductance", "positive", at_layer=True, defaults="steps"),
    "occlusion": Method("Occlusion", "positive", defaults="windows"),
    "feature_ablation": Method("FeatureAblation", "positive", defaults="cells"),
    "shapley_value_sampling": Method("ShapleyValueSampling", "positive", random=True, defaults="large_cells"),
}
