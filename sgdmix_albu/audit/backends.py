"""From names on the command line to saliency of uint8 images; a classifier gets its pixels and its classes right."""

from __future__ import annotations

import functools
import inspect
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgdmix_albu.classifiers import Judge
from sgdmix_albu.saliency import SaliencyBackend, get_backend
from sgdmix_albu.saliency.catalogue import BACKENDS
from sgdmix_albu.saliency.modelled import ModelBackend

__all__ = ["AuditBackend"]

# Images handed to a backend at once, so that a large model's activations stay within a few hundred MB.
_CHUNK = 16


@dataclass(frozen=True)
class AuditBackend:
    """A backend that takes the audit's uint8 images.

    Attributes:
        backend: The saliency backend.
        judge: The classifier that the backend looks through, or None.
    """

    backend: SaliencyBackend
    judge: Judge | None

    @classmethod
    def make(cls, spec: str | SaliencyBackend, judge: Judge | None) -> AuditBackend:
        """A backend by name, with the classifier where it takes one, or an object as it is."""
        if not isinstance(spec, str) or judge is None or not _looks_through_a_model(spec):
            return cls(get_backend(spec), None)
        explained = {} if judge.outputs is not None else {"target": "predicted"}
        return cls(get_backend(spec, model=judge.model, **explained), judge)

    def maps(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, float]:
        """Coarse maps (N, h, w) of uint8 images (N, 3, H, W), and the milliseconds that one took."""
        pixels = images
        if self.judge is not None:
            pixels = self.judge.pixels(images)
            labels = None if labels is None else self.judge.outputs_of(labels)
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
