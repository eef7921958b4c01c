"""How saliency is looked at: a backend by name, through a classifier where it needs one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import Tensor

from sgdmix_albu.classifiers import Judge, Normalize, open_judge
from sgdmix_albu.errors import SGDMixError
from sgdmix_albu.saliency import get_backend

__all__ = ["Look", "LookSettings", "open_look"]

Look: TypeAlias = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LookSettings:
    """Which backend, and what it looks through.

    Attributes:
        saliency: The backend's name.
        model: Weights of the classifier, or None.
        arch: Its name in torchvision or timm, unless the file gives it.
        class_names: Text file with the names of its outputs, one a line.
        normalize: What it expects of pixels in [0, 1]: "imagenet" or "none".
    """

    saliency: str
    model: str | os.PathLike[str] | None = None
    arch: str | None = None
    class_names: str | os.PathLike[str] | None = None
    normalize: Normalize = "imagenet"


def open_look(settings: LookSettings, classes: Sequence[str]) -> tuple[Look, dict[str, Any]]:
    """Stage 1 as a function of (B, 3, H, W) uint8 images and (B,) labels, and what to note of it.

    Raises:
        UnknownNameError: No such backend or architecture.
        DataError: The weights cannot be used.
    """
    if settings.model is None:
        return get_backend(settings.saliency).coarse, {}
    judge = open_judge(
        settings.model, classes, arch=settings.arch, class_names=settings.class_names, normalize=settings.normalize
    )
    look, explained = _look_through(judge, settings.saliency)
    noted = {"model": judge.name, "model_sha256": judge.sha256}
    return look, {**noted, "normalize": settings.normalize, "explained": explained}


def _look_through(judge: Judge, saliency: str) -> tuple[Look, Literal["label", "predicted"]]:
    """Saliency through a classifier, and which class it explains: the label's where the classifier knows it."""
    explained: Literal["label", "predicted"] = "predicted" if judge.outputs is None else "label"
    backend = get_backend(saliency, model=judge.model, target=explained)

    def look(images: Tensor, labels: Tensor) -> Tensor:
        try:
            return backend.coarse(judge.pixels(images), judge.outputs_of(labels))
        except SGDMixError:
            raise
        # The model's own complaint, of any kind: a transformer that takes one size only, memory that runs out.
        except Exception as error:
            height, width = images.shape[-2:]
            said = str(error) or type(error).__name__
            raise SGDMixError(
                f"{judge.name} failed on {len(images)} images of {height} x {width}: {said}; "
                "--size brings all images to the size that a model needs"
            ) from error

    return look, explained
