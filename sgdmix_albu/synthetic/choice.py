"""Which synthetic image replaces a real one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from sgdmix_albu.arguments import check_choice, check_number
from sgdmix_albu.synthetic.pool import SyntheticPool

Mode: TypeAlias = Literal["source", "class", "pool", "balanced"]


class Choice:
    """The synthetic image that a number drawn evenly from [0, 1) points to.

    Args:
        pool: The synthetic images.
        mode: As for :class:`sgdmix_albu.SyntheticMix`.
        counts: Real images of each class, for "balanced".
    """

    def __init__(self, pool: SyntheticPool, mode: Mode, counts: Mapping[str, int] | None = None) -> None:
        self.pool, self.mode = pool, mode
        self._edges = None if counts is None else _edges(pool, counts)

    @property
    def own_label(self) -> bool:
        """Whether the synthetic image's own label goes with it, not the real one's."""
        return self.mode in ("pool", "balanced")

    def place(self, which: float, *, source: str, label: str | None) -> int | None:
        """Place of the image in the pool; None where there is none to choose from.

        Args:
            which: In [0, 1).
            source: The real image's key.
            label: Its class; not needed where ``own_label``.
        """
        if self._edges is not None:
            return int(np.searchsorted(self._edges, which, side="right"))
        places: Sequence[int] = range(len(self.pool))
        if self.mode == "source":
            places = self.pool.by_source.get(source, ())
        elif self.mode == "class":
            places = self.pool.by_class.get(str(label), ())
        return places[int(which * len(places))] if places else None


def check_share_and_mode(p: float, mode: str) -> None:
    """Refuse what is no probability and no mode.

    Raises:
        InvalidInputError: As it says.
    """
    check_number("p", p, "must be a probability in [0, 1]", low=0, high=1)
    check_choice("mode", mode, get_args(Mode))


def _edges(pool: SyntheticPool, counts: Mapping[str, int]) -> NDArray[np.float64]:
    """Where the share of each image ends: classes weigh 1 / (n + 1), the images of one class alike."""
    weights = [1 / (counts.get(label, 0) + 1) / len(pool.by_class[label]) for label in pool.labels]
    ends = np.cumsum(weights)
    return np.asarray(ends / ends[-1])
