"""Which variant is the best, and which ones the sample cannot tell from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from sgdmix_albu.audit.signs import Flag
from sgdmix_albu.audit.variant import Variant
from sgdmix_albu.audit.verdict import Level
from sgdmix_albu.types import BEST_MASK, BEST_SALIENCY

_SMALL = 0.01  # a difference that decides nothing, however sure it is: a hundredth of the object, a sign in 100 images


@dataclass(frozen=True)
class Ranked:
    """The best variant.

    Attributes:
        best: Its place.
        tied: The places of all that are as good, the best one's among them; one alone where there is no tie.
    """

    best: int
    tied: tuple[int, ...]


def scores(variants: Sequence[Variant], flags: Sequence[dict[str, list[Flag]]], measured: int) -> list[Tensor]:
    """For each variant a number for each measured source, (n,) float64, higher for better.

    With true masks it is coverage - spill (Youden's J); without, one less for each sign that all variants were asked.
    """
    if "coverage" in variants[0].measures:
        gains = [one.measures["coverage"][:measured] - one.measures["spill"][:measured] for one in variants]
        return [gain.double().nan_to_num(0.0) for gain in gains]
    asked = set.intersection(*(set(flagged) for flagged in flags))
    found = []
    for flagged in flags:
        score = torch.zeros(measured, dtype=torch.float64)
        for name in asked:
            score[[flag.row for flag in flagged[name]]] -= 1
        found.append(score)
    return found


def rank(levels: Sequence[Level], scores: Sequence[Tensor], names: Sequence[tuple[str, str]]) -> Ranked:
    """The best level wins, then the best mean score; where the sample cannot tell some apart, the default does.

    Two variants are tied where the mean difference of their scores, image by image, is at most 0.01, or its 95%
    interval holds 0.

    Args:
        levels: Each variant's.
        scores: From :func:`scores`.
        names: Backend and preset of each. Among equals it is the default backend, then the default preset, then the
            alphabet: the order of the arguments decides nothing.

    Example:
        >>> same = torch.tensor([0.9, 0.8])
        >>> rank(["trusted"] * 2, [same, same], [("rembg", "otsu"), ("salient_object", "guided")])
        Ranked(best=1, tied=(0, 1))
    """
    order = get_args(Level)
    top = min(levels, key=order.index)
    rivals = [place for place, level in enumerate(levels) if level == top]
    leader = max(rivals, key=lambda place: float(scores[place].mean()))
    tied = tuple(place for place in rivals if _alike(scores[leader] - scores[place]))

    def last(place: int) -> tuple[bool, bool, tuple[str, str]]:
        saliency, mask = names[place]
        return saliency != BEST_SALIENCY, mask != BEST_MASK, names[place]

    return Ranked(min(tied, key=last), tied)


def _alike(differences: Tensor) -> bool:
    """Whether their mean is small, or its interval (by the central limit theorem) holds 0."""
    mean, count = float(differences.mean()), len(differences)
    error = float(differences.std()) / count**0.5 if count > 1 else float("inf")
    return abs(mean) <= max(_SMALL, 1.96 * error)
