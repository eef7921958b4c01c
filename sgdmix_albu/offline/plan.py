"""The plan: a row for each output image. Everything random is decided here, from one seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import torch
from torch import Tensor

from sgdmix_albu.mixing import check_settings, plan_mix
from sgdmix_albu.offline.descriptors import Descriptors
from sgdmix_albu.types import Draws, MixPlan, TargetClass

__all__ = ["Row", "draw_candidate_rows", "output_names", "plan_rows"]

# Sources that are compared at once, each with its own candidates: with 50 of them, 13 MB of maps.
_BLOCK = 16


@dataclass(frozen=True)
class Row:
    """One output image.

    Attributes:
        name: Its file below the output folder, with forward slashes.
        source: Row of the source among the descriptors.
        target: Row of the target, or None where the image stays unmixed.
        distance: Root-mean-square difference of the two maps; None where unmixed.
        unmixed: Why the image stays unmixed ("not_drawn", "flat_saliency", "empty_mask", "no_target",
            "over_coverage"), or None where it is mixed.
        refused: Nearer candidates refused because the union would have covered too much.
    """

    name: str
    source: int
    target: int | None
    distance: float | None
    unmixed: str | None
    refused: int


def plan_rows(
    descriptors: Descriptors,
    *,
    suffix: str,
    p: float = 1.0,
    candidates: int = 50,
    target_class: TargetClass = "any",
    max_coverage: float = 0.95,
    seed: int = 0,
) -> list[Row]:
    """Choose each image's target among candidates drawn from the whole set.

    Time and memory grow with N times ``candidates``, never with the square of N. The union's coverage is
    judged on the 64 x 64 grid.

    Args:
        descriptors: The N images, each a source and a possible candidate.
        suffix: Of the output files, ``".png"``.
        p: Probability that an image is mixed.
        candidates: Candidates drawn for each source, without replacement.
        target_class: "any", or only targets of the "same" or a "different" class.
        max_coverage: The largest share of an image that a union mask may cover.
        seed: The same seed and descriptors give the same plan.

    Raises:
        InvalidInputError: A setting is out of range.
    """
    check_settings(p=p, candidates=candidates, max_coverage=max_coverage)
    generator = torch.Generator().manual_seed(seed)
    applied = torch.rand(len(descriptors), generator=generator) < p
    drawn = draw_candidate_rows(len(descriptors), candidates, generator)
    names = output_names([item.key for item in descriptors.items], suffix)
    rows: list[Row] = []
    for start in range(0, len(descriptors), _BLOCK):
        block = torch.arange(start, min(start + _BLOCK, len(descriptors)))
        # plan_mix takes the sources as the pool's first rows. The candidates follow in the order of the set,
        # also those that are sources of this block, so that ties do not depend on where blocks begin.
        pool, where = map(torch.from_numpy, np.unique(drawn[block].numpy(), return_inverse=True))
        eligible = torch.zeros(len(block), len(block) + len(pool), dtype=torch.bool)
        eligible.scatter_(1, where.view(len(block), -1) + len(block), True)
        plan = plan_mix(
            descriptors.select(torch.cat([block, pool])),
            Draws(applied[block], eligible),
            max_coverage=max_coverage,
            target_class=target_class,
        )
        rows += _rows(plan, torch.cat([block, pool]), applied[block], names[start : start + len(block)])
    return rows


def draw_candidate_rows(pool: int, candidates: int, generator: torch.Generator) -> Tensor:
    """For each row of the pool, other rows drawn without replacement.

    Floyd's algorithm (Bentley and Floyd, CACM 30(9), 1987), for all rows at once: time and memory grow with
    pool times candidates. The rows other than i are numbered 0 to pool - 2, and those from i on move up by one.

    Args:
        pool: N, number of rows.
        candidates: Rows drawn for each; all N - 1 others where there are no more.
        generator: CPU generator.

    Returns:
        (N, min(candidates, N - 1)) int64, in no particular order.

    Example:
        >>> draw_candidate_rows(3, 50, torch.Generator()).sort().values
        tensor([[1, 2],
                [0, 2],
                [0, 1]])
    """
    others = max(pool - 1, 0)
    candidates = min(candidates, others)
    chosen = torch.empty(pool, candidates, dtype=torch.int64)
    for step, last in enumerate(range(others - candidates, others)):
        value = (torch.rand(pool, generator=generator, dtype=torch.float64) * (last + 1)).long()
        taken = (chosen[:, :step] == value[:, None]).any(1)
        chosen[:, step] = torch.where(taken, last, value)
    return chosen + (chosen >= torch.arange(pool)[:, None])


def output_names(keys: Sequence[str], suffix: str) -> list[str]:
    """A file name for each key, all different: the key with another suffix.

    Where two files of one folder differ in nothing but their suffix, all of that folder keep their whole name
    before the new suffix.

    Example:
        >>> output_names(["tit/1.jpg", "owl/1.jpg", "owl/1.png"], ".png")
        ['tit/1.png', 'owl/1.jpg.png', 'owl/1.png.png']
    """
    folders: dict[str, list[str]] = {}
    for key in keys:
        path = PurePosixPath(key)
        folders.setdefault(path.parent.as_posix(), []).append(path.stem)
    ambiguous = {folder for folder, stems in folders.items() if len(set(stems)) < len(stems)}
    return [
        key + suffix
        if PurePosixPath(key).parent.as_posix() in ambiguous
        else PurePosixPath(key).with_suffix(suffix).as_posix()
        for key in keys
    ]


def _rows(plan: MixPlan, pool: Tensor, applied: Tensor, names: Sequence[str]) -> list[Row]:
    rows = []
    for i, name in enumerate(names):
        mixed, refused = bool(plan.applied[i]), int(plan.guards.over_coverage[i])
        rows.append(
            Row(
                name=name,
                source=int(pool[i]),
                target=int(pool[plan.target[i]]) if mixed else None,
                distance=float(plan.distance[i]) if mixed else None,
                unmixed=None if mixed else _reason(plan, i, bool(applied[i]), refused),
                refused=refused,
            )
        )
    return rows


def _reason(plan: MixPlan, i: int, applied: bool, refused: int) -> str:
    if not applied:
        return "not_drawn"
    if plan.guards.flat_saliency[i]:
        return "flat_saliency"
    if plan.guards.empty_mask[i]:
        return "empty_mask"
    return "over_coverage" if refused else "no_target"
