"""What a call tells about its images besides pixels: their classes, and which sample each one is."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from sgdmix_albu.albumentations.arrays import Array
from sgdmix_albu.albumentations.pool import Pool
from sgdmix_albu.arguments import said
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.labels import class_ids


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
    if len(own) != len(pool.sources):
        raise InvalidInputError(f"expected {key} to hold one for each of {len(pool.sources)} images, got {len(own)}")
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
    own = _one_for_each(data[key], pool, key)
    if len(own) != len(pool.sources):
        raise InvalidInputError(
            f"expected {key} to hold one for each of {len(pool.sources)} images, got {said(data[key])}"
        )
    told = [*own, *(donor.get(key) for donor in pool.donors)]
    return [object() if one is None else _hashable(key, one) for one in told]


def _one_for_each(told: Any, pool: Pool, key: str) -> list[Any]:
    """What is told of each source."""
    if not pool.batched:
        return [told]
    try:
        if isinstance(told, str | bytes | Mapping):
            raise TypeError
        return list(told)
    except TypeError:
        raise InvalidInputError(
            f"expected {key} to hold one for each of {len(pool.sources)} images, got {said(told)}"
        ) from None


def _as_array(label: Any, key: str) -> Array:
    try:
        return np.asarray(label)
    except (TypeError, ValueError, RuntimeError) as error:  # lists of unequal lengths, tensors that hold no numbers
        raise InvalidInputError(f"expected {key} to say a class, got {type(label).__name__}: {error}") from error


def _hashable(key: str, one: Any) -> Hashable:
    if isinstance(one, np.ndarray | Tensor) and one.ndim == 0:
        one = one.item()
    try:
        hash(one)
    except TypeError:
        pass
    else:
        if not isinstance(one, Tensor):  # hashed by identity
            return cast("Hashable", one)
    raise InvalidInputError(
        f"expected {key} to name the sample that an image shows, by a number, a name or a tuple of them, "
        f"got {type(one).__name__}; another key can be named by id_key="
    )
