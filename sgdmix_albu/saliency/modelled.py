"""What every backend that looks through a classifier shares: the model's care and feeding."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from sgdmix_albu.arguments import check_count, check_functions
from sgdmix_albu.classifiers.untouched import untouched
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.saliency.base import SaliencyBackend
from sgdmix_albu.saliency.layers import check_layer, find_layer, gridded
from sgdmix_albu.tensors import FLOATS, INTEGERS, check_tensor

Target = Literal["label", "predicted"] | int


class ModelBackend(SaliencyBackend):
    """Saliency of a classifier's decision.

    The images go into the model as they are, float (uint8 scaled to [0, 1]), in the model's dtype and on its
    device, so they must be standardised as the model was trained, by the user or by ``preprocess``. The model
    runs in evaluation mode and is left as it was (see :func:`untouched`). Autocast is respected. Wrappers
    (DataParallel, DistributedDataParallel, ``torch.compile``) are taken off, so nothing is synchronised.

    The model is not registered as a submodule of anything: it stays out of every ``state_dict()``.

    Args:
        model: A classifier, (B, C, H, W) images to (B, K) logits, or an object with such ``logits``.
        target: Which class's score is explained: each image's label, the class the model predicts, or this one.
        preprocess: Applied to the float images before the model, for instance ``v2.Normalize(mean, std)``
            where the pipeline has images in [0, 1]. It must not crop.
        microbatch: The most images worked on at once, to bound memory; None for all.
    """

    wants_rgb = False
    follows_autocast = True

    def __init__(
        self,
        model: nn.Module,
        *,
        target: Target = "label",
        preprocess: Callable[[Tensor], Tensor] | None = None,
        microbatch: int | None = None,
    ) -> None:
        super().__init__(microbatch=microbatch)
        if not isinstance(target, str) or target not in ("label", "predicted"):
            check_count("target", target, "must be 'label', 'predicted' or a class index", least=0)
        check_functions(preprocess=preprocess)
        self.model = unwrapped(model)
        self.target = target
        self.preprocess = preprocess

    @property
    def uses_labels(self) -> bool:
        """Whether each image's own class is explained."""
        return self.uses_target and self.target == "label"

    @property
    def uses_target(self) -> bool:
        """Whether the method explains a class at all."""
        return True

    @abstractmethod
    def _attribute(self, inputs: Tensor, target: Tensor | None) -> Tensor:
        """Raw maps (b, h, w) of the model's inputs; ``target`` (b,) is None when the predicted class is meant.

        Called with the model in evaluation mode, frozen and watched over.
        """

    def _raw(self, images: Tensor, labels: Tensor | None) -> Tensor:
        device, dtype = self._home(images)
        with untouched(self.model):
            # Tensors of inference mode cannot take part in a graph; a copy can.
            inputs = images.clone() if images.is_inference() else images
            inputs = inputs.to(device)
            if self.preprocess is not None:
                inputs = self.preprocess(inputs)
                expected = f"preprocess to give float images ({len(images)}, C, H, W)"
                check_tensor(inputs, expected, (len(images), None, None, None), FLOATS)
            target = self._class_indices(labels, images) if self.uses_target and self.target != "predicted" else None
            handle = self.model.register_forward_hook(_Logits(target))
            try:
                return self._attribute(inputs.to(dtype), None if target is None else target.to(device))
            except RuntimeError as error:
                self._check_takes(inputs.to(dtype), error)
                raise
            finally:
                handle.remove()

    def _check_takes(self, inputs: Tensor, error: RuntimeError) -> None:
        """Say so where it is the model that failed: its own words are about matrices, not about images."""
        try:
            with torch.no_grad():
                self.model(inputs[:1])
        except torch.OutOfMemoryError:
            return
        except RuntimeError as refused:
            raise InvalidInputError(
                f"{type(self.model).__name__} does not take images {tuple(inputs.shape)}; expected a classifier of "
                f"images (B, C, H, W). It says: {refused}"
            ) from error

    def _home(self, images: Tensor) -> tuple[torch.device, torch.dtype]:
        parameter = next((p for p in self.model.parameters() if p.is_floating_point()), None)
        if parameter is None:
            return images.device, images.dtype
        if parameter.device.type != "cpu" and get_worker_info() is not None:
            raise InvalidInputError(
                "the saliency model is on a GPU and this is a DataLoader worker, which cannot use it: mix after the "
                "loader, or use num_workers=0, or saliency='spectral_residual'"
            )
        return parameter.device, parameter.dtype

    def _class_indices(self, labels: Tensor | None, images: Tensor) -> Tensor:
        if self.target != "label":
            return torch.full(images.shape[:1], int(self.target))
        if labels is None:
            raise InvalidInputError(
                f"{self!r} explains each image's label and got no labels; pass labels, or target='predicted'"
            )
        check_tensor(labels, "(B,) integer labels", (-1,), INTEGERS)
        return labels.to(torch.int64)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.model).__name__})"


class LayerBackend(ModelBackend):
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


class _Logits:
    """Forward hook on the classifier: takes the logits out of whatever it returns, and checks them."""

    def __init__(self, target: Tensor | None) -> None:
        ends = target.aminmax() if target is not None and target.numel() else None
        self.wanted = (int(ends.min), int(ends.max)) if ends else None

    def __call__(self, model: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor:
        logits = getattr(output, "logits", output)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            came = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(output).__name__
            raise InvalidInputError(f"expected {type(model).__name__} to give (B, K) logits, got {came}")
        if self.wanted is not None and not 0 <= self.wanted[0] <= self.wanted[1] < logits.shape[1]:
            wrong = self.wanted[0] if self.wanted[0] < 0 else self.wanted[1]
            raise InvalidInputError(
                f"class {wrong} was requested, but {type(model).__name__} has classes 0 to {logits.shape[1] - 1}"
            )
        return logits


def unwrapped(model: Any) -> nn.Module:
    """The model inside DataParallel, DistributedDataParallel or ``torch.compile``.

    Raises:
        InvalidInputError: Not a module, or one that cannot be looked into: scripted or sharded (FSDP).
    """
    if not isinstance(model, nn.Module):
        raise InvalidInputError(f"expected model to be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, nn.parallel.DataParallel | nn.parallel.DistributedDataParallel):
        return unwrapped(model.module)
    if isinstance(inside := getattr(model, "_orig_mod", None), nn.Module):
        return unwrapped(inside)
    if isinstance(model, torch.jit.ScriptModule):
        raise InvalidInputError("a scripted model cannot be used for saliency; pass the model it was made from")
    if _is_sharded(model):
        raise InvalidInputError("an FSDP model is sharded between uses; pass an unsharded copy, or use a saliency bank")
    return model


def _is_sharded(model: nn.Module) -> bool:
    fsdp = sys.modules.get("torch.distributed.fsdp")  # not loaded: then nothing is sharded
    kinds = tuple(getattr(fsdp, name, nn.Identity) for name in ("FullyShardedDataParallel", "FSDPModule"))
    return fsdp is not None and any(isinstance(module, kinds) for module in model.modules())
