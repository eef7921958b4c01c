"""Which property of the masks goes with accuracy: a straight-line fit over the rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.figures import listed, minus
from benchmarks.accuracy.results import Column, Table

PREDICTORS = ("coverage", "spill", "leak")
_DRAWS = 2000
_TOGETHER = 0.8  # two predictors whose correlation is above it share what either explains

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Fit:
    """Ordinary least squares of the rows' mean accuracy on their masks' properties, all in standard deviations.

    Attributes:
        rows: How many there were.
        coefficients: Of each predictor: the coefficient and both ends of its 95% interval, by resampling the rows.
        explained: R^2.
        ranks: Spearman's correlation of each predictor with accuracy.
        together: The two predictors that go most together, and their correlation.
    """

    rows: int
    coefficients: dict[str, tuple[float, float, float]]
    explained: float
    ranks: dict[str, float]
    together: tuple[str, str, float] | None


def fit(predictors: Mapping[str, Array], accuracy: Array) -> Fit | None:
    """Fit one table.

    Args:
        predictors: (rows,) each, means over the seeds.
        accuracy: (rows,), the same.

    Returns:
        The fit, without predictors that are the same in all rows; None with too few rows for one: fewer than two more
        than there are predictors left.
    """
    names = [name for name, values in predictors.items() if np.ptp(values) > 1e-9]
    rows = len(accuracy)
    if not names or rows < len(names) + 2 or np.ptp(accuracy) == 0:
        return None
    means = np.stack([predictors[name] for name in names])
    found, explained = _least_squares(means, accuracy)
    generator = np.random.default_rng(0)
    drawn = [
        _least_squares(means[:, taken], accuracy[taken], means.std(1), accuracy.std())[0]
        for taken in generator.integers(rows, size=(_DRAWS, rows))
        if len(set(taken.tolist())) > len(names) + 1
    ]
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    pairs = [
        (a, b, float(np.corrcoef(means[i], means[j])[0, 1])) for (i, a), (j, b) in combinations(enumerate(names), 2)
    ]
    return Fit(
        rows=rows,
        coefficients={name: (float(found[i]), float(low[i]), float(high[i])) for i, name in enumerate(names)},
        explained=explained,
        ranks={name: float(np.corrcoef(_ranks(means[i]), _ranks(accuracy))[0, 1]) for i, name in enumerate(names)},
        together=max(pairs, key=lambda pair: abs(pair[2]), default=None),
    )


def _least_squares(
    predictors: Array, values: Array, wide: Array | None = None, tall: Any = None
) -> tuple[Array, float]:
    """Coefficients in standard deviations, of these rows or ``wide`` and ``tall``, and R^2. Centred: no constant."""
    x = (predictors - predictors.mean(1, keepdims=True)).T / (predictors.std(1) if wide is None else wide)
    y = (values - values.mean()) / (values.std() if tall is None else tall)
    found = np.linalg.lstsq(x, y, rcond=None)[0]
    return found, float(1 - np.square(y - x @ found).sum() / max(np.square(y).sum(), 1e-12))


def _ranks(values: Array) -> Array:
    """1 for the lowest; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = counts.cumsum() - (counts - 1) / 2
    return ranks[place]


def fit_task(table: Table, task: str) -> Fit | None:
    """Fit the rows of one task that have masks, each by its means over the seeds that it has."""
    found = [
        [[*table.values(Column(task, name), row.name).values()] for name in ("accuracy", *PREDICTORS)]
        for row in table.grid.rows
    ]
    rows = [values for values in found if all(values)]
    if not rows:
        return None
    accuracy, *predictors = np.array([[np.mean(values) for values in row] for row in rows]).T
    return fit(dict(zip(PREDICTORS, predictors, strict=True)), accuracy)


def sentence(found: Fit, task: str) -> str:
    """What the fit says, in words."""
    said = {
        name: f"{name} ({_signed(value)}, {_signed(low)} to {_signed(high)})"
        for name, (value, low, high) in found.coefficients.items()
    }
    rises = [said[name] for name, (_, low, _) in found.coefficients.items() if low > 0]
    falls = [said[name] for name, (*_, high) in found.coefficients.items() if high < 0]
    rest = [said[name] for name, (_, low, high) in found.coefficients.items() if low <= 0 <= high]
    parts = [f"{what} {listed(names)}" for what, names in (("rises with", rises), ("falls with", falls)) if names]
    how = " and ".join(parts) or "depends on none of them significantly"
    text = f"Over the {found.rows} rows with masks on {task}, accuracy {how}"
    if rest:
        text += f"; {listed(rest)} {'is' if len(rest) == 1 else 'are'} not significant"
    ranks = ", ".join(f"{name} {_signed(value)}" for name, value in found.ranks.items())
    text += (
        " (coefficients of a straight-line fit, in standard deviations, with 95% intervals by resampling the rows; "
        f"R² {found.explained:.2f}; rank correlations: {ranks})."
    )
    if found.together and abs(found.together[2]) > _TOGETHER:
        first, second, correlation = found.together
        text += (
            f" {first.capitalize()} and {second} are correlated (r {_signed(correlation)}): the fit cannot separate "
            "them well."
        )
    return text


def _signed(value: float) -> str:
    return minus(f"{value:+.2f}")
