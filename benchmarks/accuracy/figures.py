"""What the figures of a run are called on the page, in which unit they are shown, and which end is the good one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.accuracy.intervals import Estimate


def minus(number: str) -> str:
    """A number as it is printed: with a true minus, and zero without a sign."""
    return number.replace("-", "\N{MINUS SIGN}") if float(number) else number.lstrip("+-")


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        title: Shown.
        scale: Shown values are this times the stored ones: 100 for shares, which are shown as percentages.
        digits: Behind the point.
        better: 1 if more is better, -1 if less is; 0 for what is not judged, such as a property of the masks.
    """

    title: str
    scale: float = 100
    digits: int = 1
    better: int = 1

    def value(self, found: Estimate) -> str:
        """Mean and interval.

        >>> Figure("accuracy %").value(Estimate(0.687, 0.012, 5))
        '68.7 ± 1.2'
        """
        return minus(f"{found.mean * self.scale:.{self.digits}f}") + self._half(found)

    def difference(self, found: Estimate) -> str:
        """The same with a sign.

        >>> Figure("accuracy %").difference(Estimate(-0.02, 0.012, 5))
        '−2.0 ± 1.2'
        """
        return minus(f"{found.mean * self.scale:+.{self.digits}f}") + self._half(found)

    def _half(self, found: Estimate) -> str:
        return "" if found.half is None else f" ± {found.half * self.scale:.{self.digits}f}"


_FIGURES = {
    "accuracy": Figure("accuracy %"),
    "many": Figure("many %"),
    "medium": Figure("medium %"),
    "few": Figure("few %"),
    "worst_group": Figure("worst group %"),
    "at_home": Figure("at home %"),
    "elsewhere": Figure("elsewhere %"),
    "original": Figure("originals %"),
    "drop": Figure("drop", better=-1),
    "mixed_rand": Figure("mixed-rand %"),
    "mixed_same": Figure("mixed-same %"),
    "gap": Figure("gap", better=-1),
    "mixed": Figure("mixed %", better=0),
    "mask_iou": Figure("mask IoU", 1, 2, 0),
    "coverage": Figure("coverage", 1, 2, 0),
    "spill": Figure("spill", 1, 2, 0),
    "leak": Figure("leak", 1, 2, 0),
    "background_robustness": Figure("background robustness", 1, 2),
    "foreground_focus": Figure("foreground focus", 1, 2),
    "centre_bias": Figure("centre bias", 1, 2, -1),
    "size_bias": Figure("size bias", 1, 2, -1),
}


def figure(name: str) -> Figure:
    """What is known of a figure; one that is not described here is shown as it is, and not judged."""
    return _FIGURES.get(name, Figure(name.replace("_", " "), 1, 3, 0))
