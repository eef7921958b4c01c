"""Which translation strength an image is given: a number, one of a set, or as much as a teacher allows."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sgdmix_albu.classifiers import Judge
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.colour import to_float

ADAPTIVE = "adaptive"


def check_strength(strength: object) -> None:
    """Refuse what is no strength, before any work.

    Raises:
        InvalidInputError: Not a number in (0, 1], a set of them, a tensor of them or "adaptive".
    """
    if isinstance(strength, str):
        if strength != ADAPTIVE:
            raise InvalidInputError(f"strength must be a number in (0, 1], a set or 'adaptive', got {strength!r}")
        return
    values = strength.tolist() if isinstance(strength, Tensor) else strength
    listed = list(values) if isinstance(values, Sequence | set | frozenset) else [values]
    if not listed or not all(
        isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1 for value in listed
    ):
        raise InvalidInputError(f"strength must lie in (0, 1], got {strength!r}")


def strengths_for(strength: float | Sequence[float] | Tensor, seeds: Sequence[int]) -> list[float]:
    """One strength for each image.

    Args:
        strength: A number for all; a tuple or list to draw from, by each image's seed; or a tensor (B,), one each.
        seeds: B seeds.

    Raises:
        InvalidInputError: Outside (0, 1], or not one for each image.

    Example:
        >>> strengths_for(0.7, [1, 2]), set(strengths_for((0.3, 0.9), range(20))) == {0.3, 0.9}
        ([0.7, 0.7], True)
    """
    check_strength(strength)
    if isinstance(strength, Tensor):
        if strength.shape != (len(seeds),):
            raise InvalidInputError(f"expected {len(seeds)} strengths, got a tensor {tuple(strength.shape)}")
        return [round(float(value), 6) for value in strength]  # 0.7 of single precision is not quite 0.7
    if isinstance(strength, int | float):
        return [float(strength)] * len(seeds)
    choices = sorted(strength)
    return [float(random.Random(seed).choice(choices)) for seed in seeds]


def vouched(teacher: object, images: Tensor, labels: Sequence[int], tau: float) -> list[bool]:
    """Whether a teacher names each image's class, with confidence ``tau`` or more.

    Args:
        teacher: A classifier, (B, 3, H, W) float in [0, 1] to logits (B, K): a module, on any device and left as it
            was, a :class:`sgdmix_albu.classifiers.Judge`, or a function.
        images: uint8, or float in [0, 1].
        labels: B class indices.
        tau: Confidence in [0, 1].

    Raises:
        InvalidInputError: The teacher's output has not the shape of logits, or too few classes.
    """
    if not callable(teacher):
        raise InvalidInputError("strength='adaptive' needs a teacher: get_refiner(..., teacher=classifier)")
    if isinstance(teacher, nn.Module):
        teacher = Judge(teacher, None, "none", "the teacher")
    with torch.no_grad():
        logits = teacher(to_float(images))
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InvalidInputError(f"the teacher must return logits ({len(images)}, K), got {came}")
    if max(labels) >= logits.shape[1]:
        raise InvalidInputError(f"the teacher knows {logits.shape[1]} classes, an image has label {max(labels)}")
    confidence, named = logits.softmax(1).max(1)
    return [
        bool(name == label and sure >= tau)
        for name, sure, label in zip(named.tolist(), confidence.tolist(), labels, strict=True)
    ]
