"""From the pool of one call to a plan: what is looked at, what may not be chosen, and which donor is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from sgdmix_albu.albumentations.arrays import stacked
from sgdmix_albu.albumentations.describing import Describer, repeats
from sgdmix_albu.albumentations.pool import Pool, PoolImages
from sgdmix_albu.albumentations.told import read_ids, read_labels
from sgdmix_albu.mixing.mix import choose
from sgdmix_albu.mixing.plan import draw
from sgdmix_albu.mixing.selection import same_ids
from sgdmix_albu.settings import MixSettings
from sgdmix_albu.types import MixPlan


def plan_call(
    data: Mapping[str, Any],
    pool: Pool,
    describer: Describer,
    settings: MixSettings,
    stream: torch.Generator,
    *,
    exclude_duplicates: bool,
    metadata_key: str,
    label_key: str | None,
    id_key: str | None,
) -> MixPlan:
    """Candidates, stages 1 to 3, and the choice of targets among the rows of the pool.

    Args:
        data: What the transform was called with.
        pool: Its pictures, all to be mixed.
        describer: Stages 1 and 3.
        settings: How to mix; labels are read where ``target_class`` or the describer needs them.
        stream: Of the draws.
        exclude_duplicates: By pixels.
        metadata_key: Where the donors are.
        label_key: Where classes are, or None.
        id_key: Where sample identities are, or None.
    """
    draws = draw(len(pool.sources), len(pool), candidates=settings.candidates, generator=stream)
    # Only sources and donors that were drawn as candidates of at least one source are looked at.
    places = sorted({*range(len(pool.sources)), *draws.candidates.any(0).nonzero()[:, 0].tolist()})
    draws = draws._replace(candidates=draws.candidates[:, places])
    by_class = settings.target_class != "any"
    labels = None
    if label_key is not None and (by_class or describer.uses_labels):
        labels = read_labels(data, pool, label_key, metadata_key, names=not describer.uses_labels)
        labels = None if labels is None else labels[places]
    described, seen = describer.look(pool, places, labels)
    if by_class:
        described = replace(described, labels=labels)
    sources = [row["image"] for row in pool.sources]
    itself = repeats(seen, sources) if exclude_duplicates else None
    ids = read_ids(data, pool, id_key)
    if ids is not None:
        same = same_ids(ids[: len(sources)], [ids[place] for place in places])
        itself = same if itself is None else itself | same
    plan = choose(described, draws, settings, stacked(sources), PoolImages(pool, places), itself)
    return replace(plan, target=torch.tensor(places, device="cpu")[plan.target])
