"""Accuracies: of all images, of classes, of classes by how often they were seen, of groups."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from sgdmix_albu.recipes.parts import Part

__all__ = ["Measures", "by_frequency", "measure"]

Measures = dict[str, float]


def measure(predictions: NDArray[np.int64], part: Part) -> Measures:
    """What is said of every part.

    Args:
        predictions: (N,) predicted label of each image.
        part: The images.

    Returns:
        "accuracy", of all images; "class mean", the mean of the classes' accuracies; where the part has groups, each
        group's accuracy by its name, and "worst group".
    """
    right = predictions == np.asarray(part.targets)
    found = {"accuracy": float(right.mean()), "class mean": fmean(_shares(right, part.targets).values())}
    if part.groups is not None:
        groups = _shares(right, part.groups)
        found |= {part.group_names[group]: share for group, share in groups.items()}
        found["worst group"] = min(groups.values())
    return found


def by_frequency(predictions: NDArray[np.int64], part: Part, seen: Sequence[int], *, many: int, few: int) -> Measures:
    """Mean accuracy of the classes that were seen often, now and then, and rarely (Liu et al., CVPR 2019).

    Args:
        predictions: (N,) predicted label of each image.
        part: The images.
        seen: Labels of the training images.
        many: Classes with more training images are "many".
        few: Classes with fewer are "few"; the others are "medium".

    Returns:
        The means, without those of no class.
    """
    shares = _shares(predictions == np.asarray(part.targets), part.targets)
    counts = np.bincount(np.asarray(seen), minlength=len(part.classes))
    kinds: dict[str, list[float]] = {"many": [], "medium": [], "few": []}
    for label, share in shares.items():
        kinds["many" if counts[label] > many else "few" if counts[label] < few else "medium"].append(share)
    return {kind: fmean(values) for kind, values in kinds.items() if values}


def _shares(right: NDArray[np.bool_], kinds: Sequence[int]) -> dict[int, float]:
    """Share of right predictions among the images of each kind."""
    each = np.asarray(kinds)
    return {int(kind): float(right[each == kind].mean()) for kind in np.unique(each)}
