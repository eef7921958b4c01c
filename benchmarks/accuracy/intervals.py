"""Means with intervals, over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

_UPPER = 0.975  # both tails together leave 5%


@dataclass(frozen=True)
class Estimate:
    """A mean and how well it is known.

    Attributes:
        mean: Over the seeds.
        half: Half the width of the 95% interval, by Student's t; None with one seed, which has none.
        count: Number of seeds.
    """

    mean: float
    half: float | None
    count: int

    @property
    def apart(self) -> bool:
        """Whether the interval does not hold zero."""
        return self.half is not None and abs(self.mean) > self.half


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean and interval: mean ± t(0.975, n - 1) s / sqrt(n). None for no values.

    >>> estimate([1.0, 2.0, 3.0])
    Estimate(mean=2.0, half=2.484..., count=3)
    """
    if not len(values):
        return None
    count, mean = len(values), float(np.mean(values))
    if count == 1:
        return Estimate(mean, None, count)
    half = stdtrit(count - 1, _UPPER) * np.std(values, ddof=1) / count**0.5
    return Estimate(mean, float(half), count)


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> Estimate | None:
    """The differences to a baseline, seed by seed, over the seeds that both have.

    >>> paired({0: 3.0, 1: 5.0, 2: 9.0}, {0: 2.0, 1: 4.0}).mean
    1.0
    """
    return estimate([values[seed] - baseline[seed] for seed in sorted(values.keys() & baseline.keys())])
