"""Captum's attributions as saliency backends: the only file of this package that imports captum."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import captum.attr as ca
import numpy as np
import torch
from torch import Tensor, nn

from sgdmix_albu.errors import InvalidInputError, SGDMixError
from sgdmix_albu.saliency.layers import check_layer, find_layer, gridded
from sgdmix_albu.saliency.modelled import ModelBackend, Target
from sgdmix_albu.saliency.options import check_options
from sgdmix_albu.saliency.tokens import find_layout, to_grid

__all__ = ["METHODS", "AttributionBackend", "CaptumBackend", "GradCam", "Method"]

_PASS = 64  # images that a method which multiplies its batch puts through the model at once
_CELLS = 8  # features along each side where a method works on pieces of the image
_SEED = 0


class _LayerBackend(ModelBackend):
    """A backend that looks at one layer; which one is found once for each image size."""

    def __init__(self, model: nn.Module, *, layer: nn.Module | str | None = None, **common: Any) -> None:
        super().__init__(model, **common)
        check_layer(layer)
        self.layer = layer
        self._found: dict[tuple[int, int], str] = {}

    def settings(self) -> dict[str, Any]:
        """Without the layers found so far, which follow from the rest."""
        return {name: value for name, value in super().settings().items() if name != "_found"}

    @contextmanager
    def _grid(self, inputs: Tensor) -> Iterator[nn.Module]:
        height, width = inputs.shape[-2:]
        if (height, width) not in self._found:
            self._found[height, width] = find_layer(self.model, self.layer, inputs)
        name = self._found[height, width]
        try:
            with gridded(self.model.get_submodule(name), (height, width)) as grid:
                yield grid
        except RuntimeError as error:
            if not any(sign in str(error) for sign in ("does not require grad", "not have been used in the graph")):
                raise
            raise InvalidInputError(
                f"the score of {type(self.model).__name__} does not depend on the layer {name!r}; pass another layer="
            ) from error


class GradCam(_LayerBackend):
    """Grad-CAM: where the last feature map speaks for the class (Selvaraju et al., ICCV 2017, equations 1 and 2).

    The map is ``relu(sum_k a_k A_k)`` with ``a_k`` the mean over positions of the class score's gradient with
    respect to channel k, computed by Captum's ``LayerGradCam`` at the layer's resolution. The model is frozen
    meanwhile, so no graph is kept for the layers before, and the price is little above a forward pass.

    Args:
        model: A classifier; see :class:`ModelBackend` for what it is given and how it is treated.
        layer: Where to look: a module, its dotted name, or None for the last feature map that tells where
            things are, in any torchvision or timm CNN, ViT, DeiT or Swin; see :func:`find_layer`.
        target: "label" (each image's), "predicted", or a class index.
        preprocess: Applied to the float images before the model.
        microbatch: The most images worked on at once; None for all.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> GradCam(model, target="predicted").coarse(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 6, 6])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        layer: nn.Module | str | None = None,
        target: Target = "label",
        preprocess: Callable[[Tensor], Tensor] | None = None,
        microbatch: int | None = None,
    ) -> None:
        super().__init__(model, layer=layer, target=target, preprocess=preprocess, microbatch=microbatch)

    def _attribute(self, inputs: Tensor, target: Tensor | None) -> Tensor:
        def score(images: Tensor) -> Tensor:
            logits: Tensor = self.model(images)
            return logits.max(1).values if target is None else logits.gather(1, target[:, None])[:, 0]

        with self._grid(inputs) as grid:
            maps: Tensor = ca.LayerGradCam(score, grid).attribute(inputs, relu_attributions=True)
        return maps[:, 0]


@dataclass(frozen=True)
class Method:
    """How one of Captum's attributions becomes a saliency map.

    Attributes:
        kind: Captum's class.
        reduce: Over channels: "abs_max" (Simonyan et al. 2014), "abs_sum", or "positive", the positive part of
            the sum, which is what speaks for the class.
        at_layer: Whether it looks at a layer.
        random: Whether it draws random numbers. Then images go one by one, each with the same seed, so that an
            image's map does not depend on its batch.
        defaults: Options for the given model inputs, where Captum has no default or one that suits no image.
    """

    kind: type[Any]
    reduce: Literal["abs_max", "abs_sum", "positive"]
    at_layer: bool = False
    random: bool = False
    defaults: Callable[[Tensor], dict[str, Any]] = lambda inputs: {}

    @property
    def needed(self) -> set[str]:
        """Options without any default."""
        signature = inspect.signature(self.kind.attribute).parameters.values()
        named = {p.name for p in signature if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD}
        return named - {"self", "inputs"} - set(self.defaults(torch.zeros(1, 3, _CELLS, _CELLS)))

    @property
    def options(self) -> list[str]:
        """Options that are passed on to Captum's ``attribute()``."""
        return [name for name in inspect.signature(self.kind.attribute).parameters if name not in _OURS]


# Arguments of attribute() that are not the user's: this package fills them, or they change what is returned.
_OURS = frozenset(
    {"self", "inputs", "target", "additional_forward_args", "return_convergence_delta", "kwargs", "grad_kwargs"}
    | {"attribute_to_layer_input", "show_progress", "draw_baseline_from_distrib"}
)


def _steps(inputs: Tensor) -> dict[str, Any]:
    return {"internal_batch_size": max(_PASS, inputs.shape[0])}


def _windows(inputs: Tensor) -> dict[str, Any]:
    """Windows of a quarter of each side, half overlapping."""
    channels, height, width = inputs.shape[1:]
    window = (channels, max(1, height // 4), max(1, width // 4))
    strides = (channels, max(1, window[1] // 2), max(1, window[2] // 2))
    return {"sliding_window_shapes": window, "strides": strides, **_evaluations(inputs)}


def _cells(inputs: Tensor, side: int) -> dict[str, Any]:
    """The image cut into side x side pieces, each one feature."""
    rows, columns = (
        torch.arange(length, device=inputs.device) * min(side, length) // length for length in inputs.shape[-2:]
    )
    mask = rows[:, None] * min(side, inputs.shape[-1]) + columns
    return {"feature_mask": mask.repeat(1, inputs.shape[1], 1, 1), **_evaluations(inputs)}


def _evaluations(inputs: Tensor) -> dict[str, Any]:
    return {"perturbations_per_eval": max(1, _PASS // inputs.shape[0])}


def _noise(inputs: Tensor) -> dict[str, Any]:
    """Noise of 15% of the image's range, the middle of what Smilkov et al. 2017 recommend."""
    return {"nt_samples": 16, "stdevs": 0.15 * float(inputs.max() - inputs.min())}


METHODS = {
    "saliency": Method(ca.Saliency, "abs_max"),
    "guided_backprop": Method(ca.GuidedBackprop, "abs_max"),
    "deconvolution": Method(ca.Deconvolution, "abs_max"),
    "noise_tunnel": Method(ca.NoiseTunnel, "abs_max", random=True, defaults=_noise),
    "input_x_gradient": Method(ca.InputXGradient, "abs_sum"),
    "integrated_gradients": Method(ca.IntegratedGradients, "abs_sum", defaults=_steps),
    "deep_lift": Method(ca.DeepLift, "abs_sum"),
    "deep_lift_shap": Method(ca.DeepLiftShap, "abs_sum"),
    "gradient_shap": Method(
        ca.GradientShap, "abs_sum", random=True, defaults=lambda inputs: {"baselines": torch.zeros_like(inputs)}
    ),
    "guided_gradcam": Method(ca.GuidedGradCam, "abs_max", at_layer=True),
    "layer_activation": Method(ca.LayerActivation, "abs_sum", at_layer=True),
    "layer_gradient_x_activation": Method(ca.LayerGradientXActivation, "positive", at_layer=True),
    "layer_integrated_gradients": Method(ca.LayerIntegratedGradients, "positive", at_layer=True, defaults=_steps),
    "layer_conductance": Method(ca.LayerConductance, "positive", at_layer=True, defaults=_steps),
    "occlusion": Method(ca.Occlusion, "positive", defaults=_windows),
    "feature_ablation": Method(ca.FeatureAblation, "positive", defaults=functools.partial(_cells, side=_CELLS)),
    "shapley_value_sampling": Method(
        ca.ShapleyValueSampling,
        "positive",
        random=True,
        defaults=lambda inputs: {"n_samples": 10, **_cells(inputs, _CELLS // 2)},
    ),
}


class CaptumBackend(_LayerBackend):
    """One of Captum's attributions, by its name in snake case: a row of :data:`METHODS`.

    Absent are: methods that need something else than images (LLM attributions, neuron selectors),
    ``FeaturePermutation`` (mixes the images of a batch), ``ShapleyValues`` (2^features passes), ``Lime`` and
    ``KernelShap`` (need scikit-learn), ``LRP`` (its rules cover few architectures), ``InternalInfluence``
    (constant over the last map of any network that averages it), and layer twins of methods that are here. A
    ready object of any that gives maps can still be handed to :func:`get_backend`.

    Args:
        name: The row's name.
        model: A classifier; see :class:`ModelBackend` for what it is given and how it is treated.
        layer: For methods that look at a layer; as in :class:`GradCam`.
        target: "label" (each image's), "predicted", or a class index.
        preprocess: Applied to the float images before the model.
        microbatch: The most images worked on at once; None for all.
        **options: Passed on to Captum's ``attribute()``: ``n_steps=``, ``baselines=`` and so on. The default
            baseline is zero: the mean colour of standardised images.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> backend = CaptumBackend("integrated_gradients", model, target=1, n_steps=8)
        >>> backend(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 8, 8])
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        *,
        layer: nn.Module | str | None = None,
        target: Target = "label",
        preprocess: Callable[[Tensor], Tensor] | None = None,
        microbatch: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, layer=layer, target=target, preprocess=preprocess, microbatch=microbatch)
        self.name, self.options = name, options
        method = METHODS[name]
        own = ["model", *(["layer"] if method.at_layer else []), "target", "preprocess", "microbatch"]
        given = {**options, **({} if layer is None else {"layer": layer})}
        check_options(repr(name), [*own, *method.options], method.needed, given)

    @property
    def uses_target(self) -> bool:
        """Whether the method explains a class at all."""
        return _takes_target(METHODS[self.name].kind)

    def _attribute(self, inputs: Tensor, target: Tensor | None) -> Tensor:
        method = METHODS[self.name]
        if not method.at_layer:
            return self._explain(method, _made(method, self.model), inputs, target)
        with self._grid(inputs) as grid:
            return self._explain(method, method.kind(self.model, grid), inputs, target)

    def _explain(self, method: Method, attribution: Any, inputs: Tensor, target: Tensor | None) -> Tensor:
        if target is None and self.uses_target:
            target = _predicted(self.model, inputs)
        return _explain(attribution, method, self.options, inputs, target)

    def __repr__(self) -> str:
        return f"CaptumBackend({self.name!r}, {type(self.model).__name__})"


class AttributionBackend(ModelBackend):
    """A ready ``captum.attr`` object as a backend, taken as it is.

    Args:
        attribution: Made by the user with the model (and layer). Its model is left as it was, as everywhere;
            where it was given a mere function, there is no model that could be looked after.
        target: "label" (each image's), "predicted", or a class index; without meaning for methods that take none.
        preprocess: Applied to the float images before the model.
        microbatch: The most images worked on at once; None for all.
        **options: Passed on to ``attribute()``.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
        >>> AttributionBackend(ca.Saliency(model), target=2)(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 8, 8])
    """

    def __init__(
        self,
        attribution: Any,
        *,
        target: Target = "label",
        preprocess: Callable[[Tensor], Tensor] | None = None,
        microbatch: int | None = None,
        **options: Any,
    ) -> None:
        self.function = _function_of(attribution)
        model = self.function if isinstance(self.function, nn.Module) else nn.Identity()
        super().__init__(model, target=target, preprocess=preprocess, microbatch=microbatch)
        if self.model is not model:
            raise InvalidInputError(
                f"the attribution holds a wrapped model ({type(model).__name__}); make it with the model inside"
            )
        self.attribution, self.options = attribution, options
        known = next((row for row in METHODS.values() if row.kind is type(attribution)), None)
        # Of an unknown method it is not known whether it draws random numbers.
        self.method = known or Method(type(attribution), "abs_sum", random=True)
        own = ["target", "preprocess", "microbatch"]
        check_options(repr(self), [*own, *self.method.options], self.method.needed, options)

    @property
    def uses_target(self) -> bool:
        """Whether the method explains a class at all."""
        return _takes_target(type(self.attribution))

    def _attribute(self, inputs: Tensor, target: Tensor | None) -> Tensor:
        if target is None and self.uses_target:
            target = _predicted(self.function, inputs)
        return _explain(self.attribution, self.method, self.options, inputs, target)

    def __repr__(self) -> str:
        return f"AttributionBackend({type(self.attribution).__name__})"


def __getattr__(name: str) -> Any:
    """Each row of :data:`METHODS` as an attribute, for the registry's ``"module:Object"``."""
    if name not in METHODS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return functools.partial(CaptumBackend, name)


def _made(method: Method, model: nn.Module) -> Any:
    return ca.NoiseTunnel(ca.Saliency(model)) if method.kind is ca.NoiseTunnel else method.kind(model)


def _explain(
    attribution: Any, method: Method, options: dict[str, Any], inputs: Tensor, target: Tensor | None
) -> Tensor:
    if not method.random:
        return _maps(attribution, method, options, inputs, target)
    maps = []
    for i in range(inputs.shape[0]):
        _seed(inputs.device)
        one = slice(i, i + 1)
        maps.append(_maps(attribution, method, options, inputs[one], None if target is None else target[one]))
    return torch.cat(maps)


def _maps(attribution: Any, method: Method, options: dict[str, Any], inputs: Tensor, target: Tensor | None) -> Tensor:
    moved = {k: v.to(inputs.device) if isinstance(v, Tensor) else v for k, v in options.items()}
    arguments = {**method.defaults(inputs), **moved}
    if target is not None:
        arguments["target"] = target
    # A leaf of our own: Captum asks it for gradients, and warns when it has to.
    leaf = inputs.detach().clone().requires_grad_()
    with _quiet():
        attributed = attribution.attribute(leaf, **arguments)
    if isinstance(attributed, tuple | list) and len(attributed) == 1:
        attributed = attributed[0]
    kind = type(attribution).__name__
    if not isinstance(attributed, Tensor):
        raise SGDMixError(f"{kind} gave a {type(attributed).__name__}, expected one tensor of attributions")
    layout = find_layout(tuple(attributed.shape), (inputs.shape[-2], inputs.shape[-1]))
    if layout is None:
        raise SGDMixError(f"{kind} gave attributions of shape {tuple(attributed.shape)}, which is no map")
    return _reduced(to_grid(attributed.detach(), layout), method.reduce)


def _reduced(grid: Tensor, how: str) -> Tensor:
    if how == "positive":
        return grid.sum(1).clamp_min(0)
    return grid.abs().amax(1) if how == "abs_max" else grid.abs().sum(1)


def _predicted(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return function(inputs).argmax(1)


def _takes_target(kind: type[Any]) -> bool:
    return kind is ca.NoiseTunnel or "target" in inspect.signature(kind.attribute).parameters


def _function_of(attribution: Any) -> Callable[[Tensor], Tensor]:
    """The model, or the function, that a Captum object was made with."""
    if isinstance(attribution, ca.NoiseTunnel):
        return _function_of(attribution.attribution_method)
    function = getattr(attribution, "forward_func", None) or getattr(attribution, "model", None)
    if not callable(function):
        raise InvalidInputError(f"expected a captum attribution made with a model, got {attribution!r}")
    owner = getattr(function, "__self__", None)  # of model.forward, the model
    return owner if isinstance(owner, nn.Module) else function


def _seed(device: torch.device) -> None:
    """Seed the generators that Captum draws from; :func:`untouched` puts their states back."""
    np.random.seed(_SEED)  # noqa: NPY002  Captum draws from the global one
    torch.default_generator.manual_seed(_SEED)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(_SEED)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Captum says each time about hooks, and put its limit in the user's terms."""
    with warnings.catch_warnings():
        # Removing the hooks is what untouched() sees to.
        warnings.filterwarnings("ignore", "Setting (forward, )?backward hooks", UserWarning)
        try:
            yield
        except RuntimeError as error:
            if "used more than once" not in str(error):
                raise
            raise InvalidInputError(
                "DeepLift needs a model that uses each activation module once only, and this one shares some, as "
                f"torchvision's ResNets share their ReLU; choose another method. Captum says: {error}"
            ) from error
