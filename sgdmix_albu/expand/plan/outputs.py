"""From targets to planned outputs: names, seeds, strengths, prompts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sgdmix_albu.bank.descriptors import Descriptors
from sgdmix_albu.expand.plan.rows import Task
from sgdmix_albu.expand.plan.targets import plan_rows, uniform
from sgdmix_albu.expand.summary import Settings

__all__ = ["plan_tasks"]

_STREAM = 2**32  # of the counter-based generator; the plan's targets have those below
_LONGEST = 255  # bytes of a file name, on every file system in use


def plan_tasks(
    known: Descriptors,
    places: Sequence[int],
    settings: Settings,
    left_out: Counter[str],
    *,
    strengths: Sequence[float] = (),
    prompts: Mapping[str, str] | None = None,
) -> Iterator[Task]:
    """Every output of a set, in the set's order; all that is random in them is drawn here.

    Args:
        known: The images that can be used.
        places: Their places in the listing.
        settings: Number, seed and so on.
        left_out: Counts, by reason, the outputs that would be nothing but copies of their source, or cannot be named.
        strengths: To draw from; none where nothing is refined.
        prompts: Class name to prompt; None where nothing is refined.
    """
    rows = plan_rows(
        known,
        suffix=f".{settings.image_format}",
        candidates=settings.candidates,
        target_class=settings.target_class,
        fill=settings.fill,
        max_coverage=settings.max_coverage,
        min_agreement=settings.min_agreement,
        repeats=settings.multiplier,
        seed=settings.seed,
    )
    everyone = np.arange(len(known))
    draws = [uniform(settings.seed, _STREAM + repeat, everyone, 2) for repeat in range(settings.multiplier)]
    for row in rows:
        if row.target is None or row.distance is None:
            left_out[str(row.unmixed)] += 1
            continue
        if len(os.fsencode(row.name.rpartition("/")[2])) > _LONGEST:
            left_out["long_name"] += 1
            continue
        chance, which = draws[row.repeat][row.source].tolist()
        source, target = known.items[row.source], known.items[row.target]
        yield Task(
            name=row.name,
            label=source.class_name,
            label_index=source.label,
            source=source.key,
            target=target.key,
            target_label=target.class_name,
            source_place=places[row.source],
            target_place=places[row.target],
            distance=row.distance,
            seed=int(chance * 2**53),
            strength=strengths[int(which * len(strengths))] if strengths else None,
            prompt=prompts[source.class_name] if prompts else None,
        )
