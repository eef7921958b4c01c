"""Each source's nearest target among its candidates, exactly, without comparing all maps in full."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from sgdmix_albu.bank.descriptors import Descriptors
from sgdmix_albu.bank.parts import GRID
from sgdmix_albu.bank.reference import doubted
from sgdmix_albu.mixing.fill import grown
from sgdmix_albu.settings import Settings

Array: TypeAlias = NDArray[Any]

_PIXELS = GRID * GRID  # of a map
_AT_ONCE = 512  # maps of which something is computed at once, before the comparing begins
_TOGETHER = 32  # sources whose coarse maps, with their candidates', stay in a core's cache


class Choice(NamedTuple):
    """A source's target, and how far it is; or why there is none. And how many nearer ones were refused."""

    target: int | None
    distance: float | None
    unmixed: str | None
    refused: int


class Found(NamedTuple):
    """For B sources: row of the target or -1, the squared distance, nearer candidates that were refused."""

    target: Array
    squared: Array
    refused: Array


class Finder:
    """Finds targets among images that are described.

    Args:
        known: The images, each a source and a possible candidate.
        settings: How to mix.
    """

    def __init__(self, known: Descriptors, settings: Settings) -> None:
        self.known, self.target_class = known, settings.target_class
        self.room = settings.max_coverage * _PIXELS
        self.labels = np.array([item.label for item in known.items])
        self.usable = ~known.flat & ~known.empty & ~doubted(known.agreement, settings.min_agreement)
        self.coarse = known.coarse()
        self.norms = _norms(self.coarse)
        self.crowding = None if settings.fill == "source" else _crowding(known.grid_masks)

    def nearest(self, sources: Array, drawn: Array, applied: Array, earlier: Array) -> Found:
        """The nearest candidate of each source that leaves room; of equally near ones the first.

        Candidates are visited in the order of a lower bound on their distance, until it passes the best distance
        that was found.
        """
        lower = self._lower_bounds(sources, drawn)
        lower[~self._eligible(sources, drawn, applied, earlier)] = np.inf
        order = np.argsort(lower, axis=1, kind="stable")
        count = len(sources)
        best = Found(np.full(count, -1), np.full(count, np.inf), np.zeros(count, np.int64))
        refused_at = np.full(drawn.shape, np.inf)
        active = np.arange(count)
        for visit in range(drawn.shape[1]):
            column = order[active, visit]
            bound = lower[active, column]
            going = np.isfinite(bound) & (bound <= np.sqrt(best.squared[active]))
            active, column = active[going], column[going]
            if not len(active):
                break
            row, own = drawn[active, column], sources[active]
            squared = _squared(self.known.maps[own], self.known.maps[row])
            crowded = self._crowded(own, row)
            refused_at[active[crowded], visit] = squared[crowded]
            held, held_row = best.squared[active], best.target[active]
            better = ~crowded & ((squared < held) | ((squared == held) & (row < held_row)))
            best.squared[active[better]], best.target[active[better]] = squared[better], row[better]
        best.refused[:] = (np.isfinite(refused_at) & (refused_at <= best.squared[:, None])).sum(1)
        return best

    def choice(self, source: int, found: Found, place: int, applied: bool) -> Choice:
        """What was found for a source, in one place of the block."""
        target, refused = int(found.target[place]), int(found.refused[place])
        if target >= 0:  # the distance is a root mean square in [0, 1]
            return Choice(target, float(np.sqrt(found.squared[place] / _PIXELS) / 255), None, refused)
        return Choice(None, None, self._reason(source, refused) if applied else "not_drawn", refused)

    def _reason(self, source: int, refused: int) -> str:
        """Why a source that was to be mixed was not."""
        if self.known.flat[source]:
            return "flat_saliency"
        if self.known.empty[source]:
            return "empty_mask"
        if not self.usable[source]:
            return "doubtful"
        return "over_coverage" if refused else "no_target"

    def _crowded(self, own: Array, row: Array) -> Array:
        """(B,) bool: whether a union mask fills the image; or a mask of its own, or the hole that is painted."""
        if self.crowding is None:
            return _union_area(self.known.grid_masks[own], self.known.grid_masks[row]) > self.room
        areas, holes = self.crowding
        # A hole must leave something to paint from, whatever may be covered.
        crowded: Array = (areas[own] > self.room) | (holes[row] > min(self.room, _PIXELS - 1))
        return crowded

    def _eligible(self, sources: Array, drawn: Array, applied: Array, earlier: Array) -> Array:
        eligible: Array = self.usable[drawn] & (applied & self.usable[sources])[:, None]
        if self.target_class != "any":
            same = self.labels[drawn] == self.labels[sources][:, None]
            eligible &= same if self.target_class == "same" else ~same
        for repeat in range(earlier.shape[1]):
            eligible &= drawn != earlier[:, repeat, None]
        return eligible

    def _lower_bounds(self, sources: Array, drawn: Array) -> Array:
        """Root of a lower bound on the squared distance.

        Averages over cells are never further apart than what they are averages of (Jensen). Each is rounded to a
        grey level, which takes up to one level, root mean square, off the difference of two.
        """
        squares = np.empty(drawn.shape, np.float32)
        for start in range(0, len(sources), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            # |a - b|^2 = |a|^2 + |b|^2 - 2 a.b: sums of whole numbers below 2^24, which single precision holds.
            own, others = self.coarse[sources[part]].astype(np.float32), self.coarse[drawn[part]].astype(np.float32)
            products = np.matmul(others, own[:, :, None])[:, :, 0].astype(np.int64)
            squares[part] = self.norms[sources[part], None] + self.norms[drawn[part]] - 2 * products
        cells = self.coarse.shape[1]
        bounds: Array = (np.sqrt(squares) - 1.001 * np.sqrt(cells)) * np.sqrt(_PIXELS // cells)
        return bounds


def _norms(coarse: Array) -> Array:
    """(N,) summed squares of (N, d) uint8, without all of them as larger numbers in memory."""
    norms = np.empty(len(coarse), np.int64)
    for start in range(0, len(coarse), _AT_ONCE):
        block = coarse[start : start + _AT_ONCE].astype(np.int32)
        norms[start : start + _AT_ONCE] = np.einsum("nd,nd->n", block, block)
    return norms


def _squared(maps: Array, others: Array) -> Array:
    """(B,) summed squared differences of two (B, 64, 64) uint8 arrays."""
    difference = (maps.astype(np.int32) - others).reshape(len(maps), -1)
    squares: Array = np.einsum("bd,bd->b", difference, difference)
    return squares


def _union_area(masks: Array, others: Array) -> Array:
    """(B,) pixels in the unions of two (B, 512) arrays of eight pixels a byte."""
    area: Array = np.bitwise_count(masks | others).sum(1, dtype=np.int64)
    return area


def _crowding(grid_masks: Array) -> tuple[Array, Array]:
    """(N,) pixels in each mask of eight pixels a byte, and in the hole that is painted in its place."""
    holes = np.empty(len(grid_masks), np.int64)
    for start in range(0, len(grid_masks), _AT_ONCE):
        bits = np.unpackbits(grid_masks[start : start + _AT_ONCE], axis=1).reshape(-1, GRID, GRID)
        holes[start : start + _AT_ONCE] = grown(torch.from_numpy(bits).bool()).flatten(1).sum(1).numpy()
    return np.bitwise_count(grid_masks).sum(1, dtype=np.int64), holes
