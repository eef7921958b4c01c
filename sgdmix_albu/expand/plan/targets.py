"""Which target for which source. Everything random is decided here, from one seed."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from sgdmix_albu.bank.descriptors import GRID, Descriptors
from sgdmix_albu.bank.reference import doubted
from sgdmix_albu.mixing.fill import grown
from sgdmix_albu.settings import MixSettings
from sgdmix_albu.types import BEST_FILL, Fill, TargetClass

__all__ = ["UNMIXED", "Row", "draw_candidate_rows", "output_names", "plan_rows", "uniform"]

Array: TypeAlias = NDArray[Any]

# Why an image may stay unmixed.
UNMIXED = ("not_drawn", "flat_saliency", "empty_mask", "doubtful", "no_target", "over_coverage")

# Sources that are compared at once, each with its own candidates: with 50 of them, 13 MB of coarse maps.
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Row:
    """One output image.

    Attributes:
        name: Its file below the output folder, with forward slashes.
        source: Row of the source among the descriptors.
        target: Row of the target, or None where the image stays unmixed.
        distance: Root-mean-square difference of the two maps; None where unmixed.
        unmixed: Why the image stays unmixed, one of ``UNMIXED``, or None where it is mixed.
        refused: Nearer candidates refused because the union, or the hole that is painted, would have covered too much.
        repeat: Which of the source's outputs this is, from 0.
    """

    name: str
    source: int
    target: int | None
    distance: float | None
    unmixed: str | None
    refused: int
    repeat: int = 0


def plan_rows(
    descriptors: Descriptors,
    *,
    suffix: str,
    p: float = 1.0,
    candidates: int = 50,
    target_class: TargetClass = "any",
    fill: Fill = BEST_FILL,
    max_coverage: float = 0.95,
    min_agreement: float = 0,
    repeats: int = 1,
    seed: int = 0,
) -> Iterator[Row]:
    """Choose each image's target among candidates drawn from the whole set.

    Time grows with N times ``candidates``, memory with N. The nearest target is exact, on the 64 x 64 grid, where
    coverage is judged too. A source never gets the same target twice.

    Args:
        descriptors: The N images, each a source and a possible candidate.
        suffix: Of the output files, ``".png"``; with several repeats ``"-00.png"`` and so on are put before it.
        p: Probability that an image is mixed.
        candidates: Candidates drawn for each source, without replacement, anew for each repeat.
        target_class: "any", or only targets of the "same" or a "different" class.
        fill: What stands where the target's object was: "source" or "inpaint".
        max_coverage: The largest share of an image that a union mask may cover; with "inpaint", that the source's
            mask may, and the hole that is painted.
        min_agreement: The least agreement with a better backend of an image that is source or target; 0 for any.
        repeats: Outputs of each source.
        seed: The same seed and descriptors give the same plan; more repeats leave the first ones as they were.

    Yields:
        The outputs of the first source, of the second, and so on.

    Raises:
        InvalidInputError: A setting is out of range.
    """
    MixSettings(p=p, candidates=candidates, max_coverage=max_coverage, target_class=target_class, fill=fill)
    bodies = output_names([item.key for item in descriptors.items], "")
    endings = [suffix] if repeats == 1 else [f"-{repeat:02d}{suffix}" for repeat in range(repeats)]
    finder = _Finder(descriptors, target_class, fill, max_coverage, min_agreement)
    count = len(descriptors)
    for start in range(0, count, _BLOCK):
        sources = np.arange(start, min(start + _BLOCK, count))
        earlier = np.full((len(sources), 0), -1)
        rounds = []
        for repeat in range(repeats):
            applied = uniform(seed, 2 * repeat, sources, 1)[:, 0] < p
            drawn = draw_candidate_rows(sources, count, candidates, seed=seed, repeat=repeat)
            found = finder.nearest(sources, drawn, applied, earlier)
            earlier = np.column_stack([earlier, found.target])
            rounds.append((applied, found))
        for place, source in enumerate(sources.tolist()):
            for repeat, (applied, found) in enumerate(rounds):
                yield _row(bodies[source] + endings[repeat], source, repeat, place, found, finder, bool(applied[place]))


def draw_candidate_rows(sources: Array, pool: int, candidates: int, *, seed: int = 0, repeat: int = 0) -> Array:
    """For some rows of the pool, other rows drawn without replacement.

    Floyd's algorithm (Bentley and Floyd, CACM 30(9), 1987), for all of them at once. The rows other than i are
    numbered 0 to pool - 2, and those from i on move up by one.

    Args:
        sources: (B,) consecutive rows.
        pool: N, number of rows.
        candidates: Rows drawn for each; all N - 1 others where there are no more.
        seed: What is drawn for a row depends on the seed, the repeat and the row alone.
        repeat: Which of the row's outputs they are for.

    Returns:
        (B, min(candidates, N - 1)) int64, in no particular order.

    Example:
        >>> np.sort(draw_candidate_rows(np.arange(3), 3, 50))
        array([[1, 2],
               [0, 2],
               [0, 1]])
    """
    others = max(pool - 1, 0)
    candidates = min(candidates, others)
    numbers = uniform(seed, 2 * repeat + 1, sources, candidates)
    chosen = np.empty((len(sources), candidates), np.int64)
    for step, last in enumerate(range(others - candidates, others)):
        value = (numbers[:, step] * (last + 1)).astype(np.int64)
        taken = (chosen[:, :step] == value[:, None]).any(1)
        chosen[:, step] = np.where(taken, last, value)
    moved: Array = chosen + (chosen >= np.asarray(sources)[:, None])
    return moved


def uniform(seed: int, stream: int, rows: Array, count: int) -> Array:
    """(B, count) numbers in [0, 1) for B consecutive rows; each row's depend on seed, stream and row alone.

    A counter-based generator (Philox, Salmon et al., SC 2011) is moved to the place of the first row.
    """
    if not len(rows) or not count:
        return np.empty((len(rows), count))
    steps = -(-count // 4)  # a step of the counter gives four numbers
    bits = np.random.Philox(key=np.array([seed, stream], np.uint64))
    bits.advance(int(rows[0]) * steps)
    return np.random.Generator(bits).random((len(rows), 4 * steps))[:, :count]


def output_names(keys: Sequence[str], suffix: str) -> list[str]:
    """A file name for each key, all different: the key with another suffix.

    Where two files of one folder differ in nothing but their suffix, all of that folder keep their whole name
    before the new suffix.

    Example:
        >>> output_names(["tit/1.jpg", "owl/1.jpg", "owl/1.png"], ".png")
        ['tit/1.png', 'owl/1.jpg.png', 'owl/1.png.png']
    """
    stems = [posixpath.splitext(key)[0] for key in keys]
    ambiguous = {posixpath.dirname(stem) for stem, count in Counter(stems).items() if count > 1}
    return [
        (key if ambiguous and posixpath.dirname(key) in ambiguous else stem) + suffix
        for key, stem in zip(keys, stems, strict=True)
    ]


@dataclass(frozen=True)
class _Found:
    """For B sources: row of the target or -1, the squared distance, nearer candidates that were refused."""

    target: Array
    squared: Array
    refused: Array


class _Finder:
    """Nearest targets, exactly, without comparing all maps in full."""

    def __init__(
        self, known: Descriptors, target_class: TargetClass, fill: Fill, max_coverage: float, min_agreement: float
    ) -> None:
        self.known, self.target_class = known, target_class
        self.room = max_coverage * known.maps[0].size if len(known) else 0
        self.labels = np.array([item.label for item in known.items])
        self.usable = ~known.flat & ~known.empty & ~doubted(known.agreement, min_agreement)
        self.coarse = known.coarse()
        self.crowding = None if fill == "source" else _crowding(known.grid_masks)

    def nearest(self, sources: Array, drawn: Array, applied: Array, earlier: Array) -> _Found:
        """The nearest candidate of each source that leaves room; of equally near ones the first.

        Candidates are visited in the order of a lower bound on their distance, until it passes the best distance
        that was found.
        """
        lower = self._lower_bounds(sources, drawn)
        lower[~self._eligible(sources, drawn, applied, earlier)] = np.inf
        order = np.argsort(lower, axis=1, kind="stable")
        count = len(sources)
        best = _Found(np.full(count, -1), np.full(count, np.inf), np.zeros(count, np.int64))
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

    def reason(self, source: int, refused: int) -> str:
        """Why a source that was to be mixed was not."""
        if self.known.flat[source]:
            return "flat_saliency"
        if self.known.empty[source]:
            return "empty_mask"
        if not self.usable[source]:
            return "doubtful"
        return "over_coverage" if refused else "no_target"

    def distance(self, squared: float) -> float:
        """Root mean square, in [0, 1]."""
        return float(np.sqrt(squared / self.known.maps[0].size) / 255)

    def _crowded(self, own: Array, row: Array) -> Array:
        """(B,) bool: whether a union mask fills the image; or a mask of its own, or the hole that is painted."""
        if self.crowding is None:
            return _union_area(self.known.grid_masks[own], self.known.grid_masks[row]) > self.room
        areas, holes = self.crowding
        # A hole must leave something to paint from, whatever may be covered.
        crowded: Array = (areas[own] > self.room) | (holes[row] > min(self.room, self.known.maps[0].size - 1))
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
        coarse, cell = self.coarse, self.known.maps[0].size // max(self.coarse.shape[1], 1)
        difference = coarse[drawn].astype(np.float32)
        difference -= coarse[sources].astype(np.float32)[:, None]
        squares = np.einsum("bkd,bkd->bk", difference, difference)
        level = np.sqrt(coarse.shape[1])
        bounds: Array = (np.sqrt(squares) - 1.001 * level) * np.sqrt(cell)
        return bounds


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
    for start in range(0, len(grid_masks), 4096):
        bits = np.unpackbits(grid_masks[start : start + 4096], axis=1).reshape(-1, GRID, GRID)
        holes[start : start + 4096] = grown(torch.from_numpy(bits).bool()).flatten(1).sum(1).numpy()
    return np.bitwise_count(grid_masks).sum(1, dtype=np.int64), holes


def _row(name: str, source: int, repeat: int, place: int, found: _Found, finder: _Finder, applied: bool) -> Row:
    target, refused = int(found.target[place]), int(found.refused[place])
    if target >= 0:
        return Row(name, source, target, finder.distance(found.squared[place]), None, refused, repeat)
    return Row(name, source, None, None, finder.reason(source, refused) if applied else "not_drawn", refused, repeat)
