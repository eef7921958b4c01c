"""From names on the command line to saliency of uint8 images; a classifier gets its pixels and its classes right."""

from __future__ import annotations

import inspect
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.models import open_classifier
from sgdmix_albu.saliency import SaliencyBackend, get_backend
from sgdmix_albu.saliency.catalogue import BACKENDS

__all__ = ["AuditBackend", "Eyes", "open_eyes"]

# Images handed to a backend at once, so that a large model's activations stay within a few hundred MB.
_CHUNK = 16

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Eyes:
    """A classifier that backends may look through.

    Attributes:
        model: The classifier, in evaluation mode.
        outputs: For each class of the data the classifier's output, or None: then the predicted class is explained.
        normalize: "imagenet" or "none".
    """

    model: nn.Module
    outputs: tuple[int, ...] | None
    normalize: str


@dataclass(frozen=True)
class AuditBackend:
    """A backend that takes the audit's uint8 images.

    Attributes:
        backend: The saliency backend.
        eyes: The classifier that the backend was made with, or None.
    """

    backend: SaliencyBackend
    eyes: Eyes | None

    @classmethod
    def make(cls, spec: str | SaliencyBackend, eyes: Eyes | None) -> AuditBackend:
        """A backend by name, with the classifier where it takes one, or an object as it is."""
        if isinstance(spec, str) and eyes is not None and _takes_model(spec):
            return cls(get_backend(spec, model=eyes.model), eyes)
        return cls(get_backend(spec), None)

    def maps(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, float]:
        """Coarse maps (N, h, w) of uint8 images (N, 3, H, W), and the milliseconds that one took."""
        if self.eyes is not None:
            outputs = self.eyes.outputs
            labels = None if labels is None or outputs is None else torch.tensor(outputs)[labels]
        start = time.perf_counter()
        maps = [
            self.backend.coarse(
                self._pixels(images[first : first + _CHUNK]),
                None if labels is None else labels[first : first + _CHUNK],
            )
            for first in range(0, len(images), _CHUNK)
        ]
        return torch.cat(maps), 1000 * (time.perf_counter() - start) / len(images)

    def _pixels(self, images: Tensor) -> Tensor:
        if self.eyes is None or self.eyes.normalize == "none":
            return images
        mean = torch.tensor(_IMAGENET_MEAN)[:, None, None]
        std = torch.tensor(_IMAGENET_STD)[:, None, None]
        return (images / 255 - mean) / std


def open_eyes(
    model: str | os.PathLike[str] | nn.Module,
    classes: list[str],
    *,
    arch: str | None = None,
    class_names: str | os.PathLike[str] | None = None,
    normalize: str = "imagenet",
) -> Eyes:
    """Load a classifier and find which output stands for which class of the data.

    Args:
        model: A weights file, or a module.
        classes: The data's classes, sorted; empty where it has none.
        arch: Architecture of the weights file, unless it names it itself.
        class_names: File with the names of the outputs, one a line. None: as the weights file says; where that
            says nothing and the number of outputs fits, the data's classes in their order.
        normalize: "imagenet" or "none".

    Raises:
        InvalidInputError: ``normalize`` is unknown, or a class of the data is not in ``class_names``.
        DataError: A file cannot be read.
    """
    if normalize not in ("imagenet", "none"):
        raise InvalidInputError(f"normalize must be 'imagenet' or 'none', got {normalize!r}")
    if isinstance(model, nn.Module):
        network, known, outputs = model, None, len(classes)
    else:
        opened = open_classifier(model, arch)
        network, known, outputs = opened.model, opened.class_names, opened.num_classes
    if class_names is not None:
        known = _read_names(Path(class_names))
        missing = [name for name in classes if name not in known]
        if missing:
            raise InvalidInputError(
                f"{class_names} lists {len(known)} classes, but not {missing[0]!r}, which the data has"
            )
    if known is None and outputs == len(classes):
        known = tuple(classes)
    if not classes or known is None or not set(classes) <= set(known):
        return Eyes(network.eval(), None, normalize)
    return Eyes(network.eval(), tuple(known.index(name) for name in classes), normalize)


def _takes_model(name: str) -> bool:
    target: Any = BACKENDS.load(name)
    return callable(target) and "model" in inspect.signature(target).parameters


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the class names {path}: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())
