"""Which outputs, and which target for which source. Everything random is decided here, from one seed."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from sgdmix_albu.bank.descriptors import Descriptors
from sgdmix_albu.bank.parts import GRID
from sgdmix_albu.bank.reference import doubted
from sgdmix_albu.expand.plan.rows import Row
from sgdmix_albu.mixing.fill import grown
from sgdmix_albu.settings import Settings

Array: TypeAlias = NDArray[Any]

# Sources that are compared at once, each with its own candidates: with 50 of them, 13 MB of coarse maps.
_BLOCK = 256
_STREAM = 2**32  # of the counter-based generator, for seeds and strengths; targets are drawn from those below
_PLACES = 2**33  # and places from those above
_LONGEST = 255  # bytes of a file name, on every file system in use
_PIXELS = GRID * GRID  # of a map
_AT_ONCE = 512  # maps of which something is computed at once, before the comparing begins
_TOGETHER = 32  # sources whose coarse maps, with their candidates', stay in a core's cache


def plan_rows(
    known: Descriptors,
    places: Sequence[int],
    settings: Settings,
    left_out: Counter[str],
    *,
    strengths: Sequence[float] = (),
    prompts: Mapping[str, str] | None = None,
) -> Iterator[Row]:
    """Every output of a set, in the set's order; all that is random in them is drawn here.

    Each image's targets are chosen among candidates drawn from the whole set. Time grows with N times the candidates,
    memory with N. The nearest target is exact, on the 64 x 64 grid, where coverage is judged too. A source never gets
    the same target twice. The same seed and images give the same plan; more outputs leave the first ones as they were.

    Args:
        known: The N images that can be used, each a source and a possible candidate.
        places: Their places in the listing.
        settings: Number, seed and so on.
        left_out: Counts, by reason, the outputs that would be nothing but copies of their source, or cannot be named.
        strengths: To draw from; none where nothing is refined.
        prompts: Class name to prompt; None where nothing is refined.

    Yields:
        The outputs of the first source, of the second, and so on.
    """
    suffix, repeats = f".{settings.image_format}", settings.multiplier
    endings = [suffix] if repeats == 1 else [f"-{repeat:02d}{suffix}" for repeat in range(repeats)]
    everyone = np.arange(len(known))
    draws = [uniform(settings.seed, _STREAM + repeat, everyone, 2) for repeat in range(repeats)]
    moving = settings.place == "random"
    places_of = [uniform(settings.seed, _PLACES + repeat, everyone, 3) for repeat in range(repeats if moving else 0)]
    bodies = output_names([item.key for item in known.items], "")
    for source, repeat, choice in _choices(known, settings):
        name, item = bodies[source] + endings[repeat], known.items[source]
        if choice.unmixed is not None and not settings.keep_unmixed:
            left_out[choice.unmixed] += 1
            continue
        if len(name) > _LONGEST // 4 and len(os.fsencode(name.rpartition("/")[2])) > _LONGEST:
            left_out["long_name"] += 1
            continue
        chance, which = draws[repeat][source].tolist()
        target = None if choice.target is None else known.items[choice.target]
        yield Row(
            name=name,
            label=item.class_name,
            label_index=item.label,
            source=item.key,
            target=None if target is None else target.key,
            target_label=None if target is None else target.class_name,
            source_place=places[source],
            target_place=None if choice.target is None else places[choice.target],
            distance=choice.distance,
            seed=int(chance * 2**53),
            strength=strengths[int(which * len(strengths))] if strengths and target else None,
            prompt=prompts[item.class_name] if prompts and target else None,
            unmixed=choice.unmixed,
            refused=choice.refused,
            placed=tuple(places_of[repeat][source].tolist()) if places_of and target else None,
        )


class _Choice(NamedTuple):
    """A source's target, and how far it is; or why there is none. And how many nearer ones were refused."""

    target: int | None
    distance: float | None
    unmixed: str | None
    refused: int


def _choices(known: Descriptors, settings: Settings) -> Iterator[tuple[int, int, _Choice]]:
    """For each source, and each of its repeats, the choice."""
    finder, count = _Finder(known, settings), len(known)
    for start in range(0, count, _BLOCK):
        sources = np.arange(start, min(start + _BLOCK, count))
        earlier = np.full((len(sources), 0), -1)
        rounds = []
        for repeat in range(settings.multiplier):
            applied = uniform(settings.seed, 2 * repeat, sources, 1)[:, 0] < settings.p
            drawn = draw_candidate_rows(sources, count, settings.candidates, seed=settings.seed, repeat=repeat)
            found = finder.nearest(sources, drawn, applied, earlier)
            earlier = np.column_stack([earlier, found.target])
            rounds.append((applied, found))
            known.forget()
        for place, source in enumerate(sources.tolist()):
            for repeat, (applied, found) in enumerate(rounds):
                yield source, repeat, finder.choice(source, found, place, bool(applied[place]))


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
    return chosen + (chosen >= np.asarray(sources)[:, None])


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


class _Found(NamedTuple):
    """For B sources: row of the target or -1, the squared distance, nearer candidates that were refused."""

    target: Array
    squared: Array
    refused: Array


class _Finder:
    """Nearest targets, exactly, without comparing all maps in full."""

    def __init__(self, known: Descriptors, settings: Settings) -> None:
        self.known, self.target_class = known, settings.target_class
        self.room = settings.max_coverage * _PIXELS
        self.labels = np.array([item.label for item in known.items])
        self.usable = ~known.flat & ~known.empty & ~doubted(known.agreement, settings.min_agreement)
        self.coarse = known.coarse()
        self.norms = _norms(self.coarse)
        self.crowding = None if settings.fill == "source" else _crowding(known.grid_masks)

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

    def choice(self, source: int, found: _Found, place: int, applied: bool) -> _Choice:
        """What was found for a source, in one place of the block."""
        target, refused = int(found.target[place]), int(found.refused[place])
        if target >= 0:  # the distance is a root mean square in [0, 1]
            return _Choice(target, float(np.sqrt(found.squared[place] / _PIXELS) / 255), None, refused)
        return _Choice(None, None, self._reason(source, refused) if applied else "not_drawn", refused)

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
