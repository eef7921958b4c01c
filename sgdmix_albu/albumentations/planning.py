"""From the pool of one call to a plan: what is looked at, what may not be chosen, and which donor is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sgdmix_albu.albumentations.arrays import stacked
from sgdmix_albu.albumentations.describing import Describer, repeats
from sgdmix_albu.albumentations.pool import Pool, PoolImages
from sgdmix_albu.albumentations.told import read_ids, read_labels
from sgdmix_albu.mixing.mix import choose
from sgdmix_albu.mixing.selection import same_ids
from sgdmix_albu.settings import MixSettings
from sgdmix_albu.types import Draws, MixPlan

__all__ = ["plan_call"]


def plan_call(
    data: Mapping[str, Any],
    pool: Pool,
    places: list[int],
    draws: Draws,
    describer: Describer,
    settings: MixSettings,
    *,
    exclude_duplicates: bool,
    metadata_key: str,
    label_key: str | None,
    id_key: str | None,
) -> MixPlan:
    """Stages 1 to 3 and the choice of targets.

    Args:
        data: What the transform was called with.
        pool: Its pictures.
        places: Rows of the pool that are looked at, the sources first.
        draws: Whose candidates are among ``places``.
        describer: Stages 1 and 3.
        settings: How to mix; labels are read where ``target_class`` or the describer's backend needs them.
        exclude_duplicates: By pixels.
        metadata_key: Where the donors are.
        label_key: Where classes are, or None.
        id_key: Where sample identities are, or None.

    Returns:
        A plan whose targets are rows of ``places``.
    """
    by_class = describer.backend is not None and describer.backend.uses_labels
    labels = None
    if label_key is not None and (by_class or settings.target_class != "any"):
        labels = read_labels(data, pool, label_key, metadata_key, names=not by_class)
        labels = None if labels is None else labels[places]
    described, seen = describer.look(pool, places, labels)
    if settings.target_class != "any":
        described = replace(described, labels=labels)
    sources = [row["image"] for row in pool.sources]
    itself = repeats(seen, sources) if exclude_duplicates else None
    ids = read_ids(data, pool, id_key)
    if ids is not None:
        same = same_ids(ids[: len(sources)], [ids[place] for place in places])
        itself = same if itself is None else itself | same
    return choose(described, draws, settings, stacked(sources), PoolImages(pool, places), itself)
