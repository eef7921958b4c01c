"""Shares of a sample, and how well so many images tell them: 95% intervals of Wilson's."""

from __future__ import annotations

from torch import Tensor


def interval(hits: int, count: int) -> tuple[float, float]:
    """95% interval of a share (Wilson, 1927), which stays in [0, 1] and is not empty at 0 of n.

    Example:
        >>> [round(end, 3) for end in interval(0, 50)], interval(0, 0)
        ([0.0, 0.071], (0.0, 1.0))
    """
    if not count:
        return 0.0, 1.0
    from scipy.stats import binomtest  # a second of its own, which nobody needs before a report is made

    found = binomtest(hits, count).proportion_ci(confidence_level=0.95, method="wilson")
    return float(found.low), float(found.high)


def spoken(hits: int, count: int) -> str:
    """A share with its interval, for a sentence.

    Example:
        >>> spoken(40, 200)
        '20% (95% interval 15% to 26%)'
    """
    low, high = interval(hits, count)
    return f"{hits / count:.0%} (95% interval {low:.0%} to {high:.0%})"


def counted(values: Tensor, chosen: Tensor) -> tuple[int, int]:
    """How many are ``chosen`` among the values that are not NaN, and how many those are.

    Example:
        >>> import torch
        >>> coverage = torch.tensor([0.5, 0.9, torch.nan])
        >>> counted(coverage, coverage < 0.75)
        (1, 2)
    """
    known = ~values.isnan()
    return int((chosen & known).sum()), int(known.sum())
