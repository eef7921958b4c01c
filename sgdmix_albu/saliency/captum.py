"""Captum's attributions as saliency backends: the only file of this package that imports captum."""

from __future__ import annotations

import functools
import inspect
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import captum.attr as ca
import numpy as np
import torch
from torch import Tensor, nn

from sgdmix_albu.devices import current
from sgdmix_albu.errors import InvalidInputError, SGDMixError
from sgdmix_albu.saliency.attributions import METHODS, Method
from sgdmix_albu.saliency.modelled import LayerBackend, Target
from sgdmix_albu.saliency.options import check_options
from sgdmix_albu.saliency.tokens import find_layout, to_grid

_PASS = 64  # images that a method which multiplies its batch puts through the model at once
_CELLS = 8  # features along each side where a method works on pieces of the image
_SEED = 0


class GradCam(LayerBackend):
    """Grad-CAM: where the last feature map supports the class (Selvaraju et al., ICCV 2017, equations 1 and 2).

    The map is ``relu(sum_k a_k A_k)`` with ``a_k`` the mean over positions of the class score's gradient with
    respect to channel k, computed by Captum's ``LayerGradCam`` at the layer's resolution. The model is frozen
    during the computation, so no graph is kept for earlier layers, and the cost is little above a forward pass.

    Args:
        model: A classifier; see :class:`ModelBackend` for what it is given and how it is treated.
        layer: The layer: a module, its dotted name, or None for the last feature map with positions, in any torchvision
            or timm CNN, ViT, DeiT or Swin; see :func:`find_layer`.
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


# Arguments of attribute() that are not the user's: this package fills them, or they change what is returned.
_OURS = frozenset(
    {"self", "inputs", "target", "additional_forward_args", "return_convergence_delta", "kwargs", "grad_kwargs"}
    | {"attribute_to_layer_input", "show_progress", "draw_baseline_from_distrib"}
)


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


_DEFAULTS: Mapping[str, Callable[[Tensor], dict[str, Any]]] = {
    "": lambda inputs: {},
    "steps": lambda inputs: {"internal_batch_size": max(_PASS, inputs.shape[0])},
    "windows": _windows,
    "cells": functools.partial(_cells, side=_CELLS),
    "large_cells": lambda inputs: {"n_samples": 10, **_cells(inputs, _CELLS // 2)},
    "noise": _noise,
    "zeros": lambda inputs: {"baselines": torch.zeros_like(inputs)},
}


class _Explainer(LayerBackend):
    """What Captum's attributions share, whoever made them."""

    options: dict[str, Any]

    @property
    @abstractmethod
    def kind(self) -> type[Any]:
        """Captum's class."""

    @property
    @abstractmethod
    def method(self) -> Method:
        """How its attributions become a map."""

    @abstractmethod
    def _score(self, inputs: Tensor) -> Tensor:
        """(B, K) logits."""

    @property
    def uses_target(self) -> bool:
        """Whether the method explains a class at all."""
        return self.kind is ca.NoiseTunnel or "target" in inspect.signature(self.kind.attribute).parameters

    @abstractmethod
    def _attribution(self, inputs: Tensor) -> AbstractContextManager[Any]:
        """Captum's object, for inputs of this size."""

    def _attribute(self, inputs: Tensor, target: Tensor | None) -> Tensor:
        if target is None and self.uses_target:
            with torch.no_grad():
                target = self._score(inputs).argmax(1)
        with self._attribution(inputs) as attribution:
            if not self.method.random:
                return self._maps(attribution, inputs, target)
            maps = []
            for i in range(inputs.shape[0]):
                _seed(inputs.device)
                one = slice(i, i + 1)
                maps.append(self._maps(attribution, inputs[one], None if target is None else target[one]))
            return torch.cat(maps)

    def _maps(self, attribution: Any, inputs: Tensor, target: Tensor | None) -> Tensor:
        moved = {k: v.to(inputs.device) if isinstance(v, Tensor) else v for k, v in self.options.items()}
        arguments = {**_DEFAULTS[self.method.defaults](inputs), **moved}
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
        grid = to_grid(attributed.detach(), layout)
        if self.method.reduce == "positive":
            return grid.sum(1).clamp_min(0)
        return grid.abs().amax(1) if self.method.reduce == "abs_max" else grid.abs().sum(1)

    def _check_options(self, name: str, own: list[str], more: Mapping[str, Any]) -> None:
        """Refuse options that neither the backend nor Captum's ``attribute()`` has, or that lack."""
        arguments = inspect.signature(self.kind.attribute).parameters.values()
        named = {p.name for p in arguments if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD}
        filled = _DEFAULTS[self.method.defaults](torch.zeros(1, 3, _CELLS, _CELLS))
        passed_on = [p.name for p in arguments if p.name not in _OURS]
        check_options(name, [*own, *passed_on], named - {"self", "inputs"} - set(filled), {**self.options, **more})


class CaptumBackend(_Explainer):
    """One of Captum's attributions, by its name in snake case, as in :mod:`sgdmix_albu.saliency.attributions`.

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
        own = ["model", *(["layer"] if self.method.at_layer else []), "target", "preprocess", "microbatch"]
        self._check_options(repr(name), own, {} if layer is None else {"layer": layer})

    @property
    def kind(self) -> type[Any]:
        """Captum's class."""
        return getattr(ca, self.method.kind)  # type: ignore[no-any-return]

    @property
    def method(self) -> Method:
        """How its attributions become a map."""
        return METHODS[self.name]

    def _score(self, inputs: Tensor) -> Tensor:
        return self.model(inputs)  # type: ignore[no-any-return]

    @contextmanager
    def _attribution(self, inputs: Tensor) -> Iterator[Any]:
        if self.method.at_layer:
            with self._grid(inputs) as grid:
                yield self.kind(self.model, grid)
        else:
            yield ca.NoiseTunnel(ca.Saliency(self.model)) if self.kind is ca.NoiseTunnel else self.kind(self.model)

    def __repr__(self) -> str:
        return f"CaptumBackend({self.name!r}, {type(self.model).__name__})"


class AttributionBackend(_Explainer):
    """A ready ``captum.attr`` object as a backend, used as it is.

    Args:
        attribution: Made by the user with the model (and layer). Its model is left unchanged;
            if it was made with a plain function, there is no model to protect.
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
        self._check_options(repr(self), ["target", "preprocess", "microbatch"], {})

    @property
    def kind(self) -> type[Any]:
        """Captum's class."""
        return type(self.attribution)

    @property
    def method(self) -> Method:
        """How its attributions become a map; of an unknown one it is not known whether it draws random numbers."""
        known = (row for row in METHODS.values() if getattr(ca, row.kind) is self.kind)
        return next(known, Method(self.kind.__name__, "abs_sum", random=True))

    def _score(self, inputs: Tensor) -> Tensor:
        return self.function(inputs)

    def _attribution(self, inputs: Tensor) -> AbstractContextManager[Any]:
        return nullcontext(self.attribution)

    def __repr__(self) -> str:
        return f"AttributionBackend({type(self.attribution).__name__})"


# Each method as an attribute, for the registry's "module:Object".
globals().update({name: functools.partial(CaptumBackend, name) for name in METHODS})


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
    module: Any = getattr(torch, device.type, None)
    if device.type != "cpu" and hasattr(module, "manual_seed"):
        with current(device):
            module.manual_seed(_SEED)


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
