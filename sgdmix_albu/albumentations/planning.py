"""From the pool of one call to a plan: what is looked at, what the call tells of it, and which donor is chosen."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from sgdmix_albu.albumentations.arrays import Array, stacked
from sgdmix_albu.albumentations.describing import Describer, repeats
from sgdmix_albu.albumentations.pool import Pool, PoolImages
from sgdmix_albu.arguments import said
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.labels import class_ids
from sgdmix_albu.mixing.mix import choose
from sgdmix_albu.mixing.plan import draw
from sgdmix_albu.mixing.selection import hashable, same_ids
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
    draws = draw(len(pool.sources), len(pool), candidates=settings.candidates, place=settings.place, generator=stream)
    # Only sources and donors that were drawn as candidates of at least one source are looked at.
    places = sorted({*range(len(pool.sources)), *draws.candidates.any(0).nonzero()[:, 0].tolist()})
    draws = draws._replace(candidates=draws.candidates[:, places])
    by_class = settings.target_class != "any"
    labels = None
    if label_key is not None and (by_class or describer.uses_labels):
        told = read_labels(data, pool, label_key, metadata_key, names=not describer.uses_labels)
        labels = None if told is None else told[places]
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


def read_labels(data: Mapping[str, Any], pool: Pool, key: str, metadata_key: str, *, names: bool) -> Tensor | None:
    """(N,) int64, the class of each row of the pool; None where the sources have no labels.

    Args:
        data: What the transform was called with.
        pool: What was found in it.
        key: The key of sources and donors that holds labels; forms as in :func:`sgdmix_albu.mixing.labels.class_ids`.
        metadata_key: Where the donors are.
        names: Whether labels may be names, where only their being equal counts.

    Raises:
        InvalidInputError: The sources have labels and a donor has none, their number is wrong, or they do not say
            one class for each image.
    """
    if data.get(key) is None:
        return None
    own = _one_for_each(data[key], pool, key)
    for number, donor in enumerate(pool.donors):
        if donor.get(key) is None:
            raise InvalidInputError(
                f"expected {metadata_key}[{number}] to have the key {key!r}, since the source has it; "
                f"it has {', '.join(map(repr, donor))}"
            )
    told = [_as_array(label, key) for label in (*own, *(donor[key] for donor in pool.donors))]
    if names and all(label.dtype.kind in "US" and label.ndim == 0 for label in told):
        return torch.from_numpy(np.unique(np.stack(told), return_inverse=True)[1])
    if len({label.shape for label in told}) > 1:
        raise InvalidInputError(
            f"expected {key} in one form for the source and all donors, got shapes "
            f"{', '.join(sorted({str(label.shape) for label in told}))}"
        )
    return class_ids(np.stack(told).tolist() if told[0].dtype.kind in "USO" else np.stack(told), len(pool), name=key)


def read_ids(data: Mapping[str, Any], pool: Pool, key: str | None) -> list[Hashable] | None:
    """Which sample each row of the pool is; None where the sources do not say.

    A donor that does not say is a sample of its own.

    Raises:
        InvalidInputError: Something that cannot be compared, or not one for each image.
    """
    if key is None or data.get(key) is None:
        return None
    told = [*_one_for_each(data[key], pool, key), *(donor.get(key) for donor in pool.donors)]
    return [object() if one is None else _hashable(key, one) for one in told]


def _one_for_each(told: Any, pool: Pool, key: str) -> list[Any]:
    """What is told of each source."""
    if not pool.batched:
        return [told]
    came = said(told)
    if not isinstance(told, str | bytes | Mapping):
        with suppress(TypeError, RuntimeError):  # of what holds nothing; of a nested tensor, which says so thus
            own = list(told)
            if len(own) == len(pool.sources):
                return own
            came = str(len(own))
    raise InvalidInputError(f"expected {key} to hold one for each of {len(pool.sources)} images, got {came}")


def _as_array(label: Any, key: str) -> Array:
    try:
        return np.asarray(label)
    except (TypeError, ValueError, RuntimeError) as error:  # lists of unequal lengths, tensors that hold no numbers
        raise InvalidInputError(f"expected {key} to say a class, got {type(label).__name__}: {error}") from error


def _hashable(key: str, one: Any) -> Hashable:
    if isinstance(one, np.ndarray | Tensor) and one.ndim == 0:
        one = one.item()
    if hashable(one) and not isinstance(one, Tensor):  # a tensor is hashed by identity
        return cast("Hashable", one)
    raise InvalidInputError(
        f"expected {key} to name the sample that an image shows, by a number, a name or a tuple of them, "
        f"got {type(one).__name__}; another key can be named by id_key="
    )
