"""From names on the command line to saliency of uint8 images; a classifier gets its pixels and its classes right."""

from __future__ import annotations

import functools
import inspect
import os
import time
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.models import open_classifier, standardized
from sgdmix_albu.saliency import SaliencyBackend, get_backend
from sgdmix_albu.saliency.catalogue import BACKENDS
from sgdmix_albu.saliency.modelled import ModelBackend

__all__ = ["AuditBackend", "Eyes", "open_eyes"]

# Images handed to a backend at once, so that a large model's activations stay within a few hundred MB.
_CHUNK = 16


@dataclass(frozen=True)
class Eyes:
    """A classifier that backends may look through.

    Attributes:
        model: The classifier.
        outputs: For each class of the data the classifier's output, or None: then the predicted class is explained.
        normalize: "imagenet" or "none".
    """

    model: nn.Module
    outputs: list[int] | None
    normalize: Literal["imagenet", "none"]

    def pixels(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) uint8 as the classifier expects them."""
        return images if self.normalize == "none" else standardized(images)


def open_eyes(
    model: str | os.PathLike[str] | nn.Module,
    classes: list[str],
    *,
    arch: str | None = None,
    class_names: str | os.PathLike[str] | None = None,
    normalize: Literal["imagenet", "none"] = "imagenet",
) -> Eyes:
    """Load a classifier and find which output stands for which class of the data.

    Args:
        model: A weights file; see :func:`sgdmix_albu.models.open_classifier`. Or a module, whose outputs are the
            data's classes in their order.
        classes: The data's classes, sorted; empty where it has none.
        arch: Architecture of the weights file, unless it names it itself.
        class_names: File with the names of the outputs, one a line, unless the weights file holds them.
        normalize: "imagenet" or "none".

    Raises:
        InvalidInputError: ``normalize`` is unknown, or the weights file does not fit ``class_names``.
        DataError: A file cannot be read.
    """
    if normalize not in ("imagenet", "none"):
        raise InvalidInputError(f"normalize must be 'imagenet' or 'none', got {normalize!r}")
    if isinstance(model, nn.Module):
        return Eyes(model, list(range(len(classes))) or None, normalize)
    classifier = open_classifier(model, arch, class_names=class_names)
    return Eyes(classifier.model, classifier.outputs_for(classes) if classes else None, normalize)


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
        if not isinstance(spec, str) or eyes is None or not _looks_through_a_model(spec):
            return cls(get_backend(spec), None)
        explained = {} if eyes.outputs is not None else {"target": "predicted"}
        return cls(get_backend(spec, model=eyes.model, **explained), eyes)

    def maps(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, float]:
        """Coarse maps (N, h, w) of uint8 images (N, 3, H, W), and the milliseconds that one took."""
        pixels = images
        if self.eyes is not None:
            pixels = self.eyes.pixels(images)
            labels = None if self.eyes.outputs is None or labels is None else torch.tensor(self.eyes.outputs)[labels]
        self.backend.coarse(pixels[:1], None if labels is None else labels[:1])  # what is prepared once is not timed
        start = time.perf_counter()
        maps = [
            self.backend.coarse(
                pixels[first : first + _CHUNK], None if labels is None else labels[first : first + _CHUNK]
            )
            for first in range(0, len(images), _CHUNK)
        ]
        return torch.cat(maps), 1000 * (time.perf_counter() - start) / len(images)


def _looks_through_a_model(name: str) -> bool:
    if name not in BACKENDS.names():
        return False  # get_backend knows what to say
    target: Any = BACKENDS.load(name)
    maker = target.func if isinstance(target, functools.partial) else target
    if isinstance(maker, type) and issubclass(maker, ModelBackend):
        return True
    return callable(target) and "model" in inspect.signature(target).parameters
