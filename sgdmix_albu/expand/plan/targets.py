"""Which outputs, and which target for which source. Everything random is decided here, from one seed."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sgdmix_albu.bank.descriptors import Descriptors
from sgdmix_albu.expand.plan.finder import Array, Choice, Finder
from sgdmix_albu.expand.plan.rows import Row
from sgdmix_albu.settings import Settings

# Sources that are compared at once, each with its own candidates: with 50 of them, 13 MB of coarse maps.
_BLOCK = 256
_STREAM = 2**32  # of the counter-based generator, for seeds and strengths; targets are drawn from those below
_PLACES = 2**33  # and places from those above
_LONGEST = 255  # bytes of a file name, on every file system in use


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
    draws = [seeds_and_chances(everyone, settings.seed, repeat) for repeat in range(repeats)]
    moving = settings.place == "random"
    places_of = [placed(everyone, settings.seed, repeat) for repeat in range(repeats if moving else 0)]
    bodies = output_names([item.key for item in known.items], "")
    for source, repeat, choice in _choices(known, settings):
        name, item = bodies[source] + endings[repeat], known.items[source]
        if choice.unmixed is not None and not settings.keep_unmixed:
            left_out[choice.unmixed] += 1
            continue
        if len(name) > _LONGEST // 4 and len(os.fsencode(name.rpartition("/")[2])) > _LONGEST:
            left_out["long_name"] += 1
            continue
        seed, which = (values[source] for values in draws[repeat])
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
            seed=int(seed),
            strength=strengths[int(which * len(strengths))] if strengths and target else None,
            prompt=prompts[item.class_name] if prompts and target else None,
            unmixed=choice.unmixed,
            refused=choice.refused,
            placed=tuple(places_of[repeat][source].tolist()) if places_of and target else None,
        )


def _choices(known: Descriptors, settings: Settings) -> Iterator[tuple[int, int, Choice]]:
    """For each source, and each of its repeats, the choice."""
    finder, count = Finder(known, settings), len(known)
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


def seeds_and_chances(sources: Array, seed: int, repeat: int = 0) -> tuple[Array, Array]:
    """For (B,) consecutive rows: the seeds of their refinement, int64, and numbers in [0, 1) that choose a strength."""
    drawn = uniform(seed, _STREAM + repeat, sources, 2)
    return (drawn[:, 0] * 2**53).astype(np.int64), drawn[:, 1]


def placed(sources: Array, seed: int, repeat: int = 0) -> Array:
    """(B, 3) numbers in [0, 1) for consecutive rows, from which the area, y and x of a moved object follow."""
    return uniform(seed, _PLACES + repeat, sources, 3)


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
