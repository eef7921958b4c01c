"""What one decision does to each picture target of a call."""

from __future__ import annotations

from typing import Any

import numpy as np

from sgdmix_albu.albumentations.arrays import Array, composite, cut, painted
from sgdmix_albu.albumentations.pool import Pool, Row, row_key
from sgdmix_albu.errors import InvalidInputError


def mixed_target(
    name: str,
    kind: str,
    value: Any,
    *,
    feather: float | None,
    union: Array,
    backgrounds: list[Row | None],
    instances: list[str],
    batched: bool,
    frame_ids: Array | None = None,
    **params: Any,
) -> Any:
    """Composite a target, or cut it if it holds instances.

    Args:
        name: The target.
        kind: "image", "images", "mask" or "masks".
        value: Its picture or pictures.
        feather: As in :func:`sgdmix_albu.mixing.blend`, for images; class indices cannot fade into each other.
        union: (B, H, W) bool, True where the source is kept.
        backgrounds: For each image the pictures of its donor, or None where it stays unmixed.
        instances: Targets that hold instances of the source.
        batched: Whether the call was about ``images``.
        frame_ids: For each mask of the target the image that it belongs to, where that is not told by its place.
        **params: What else was decided.

    Raises:
        InvalidInputError: The decision was made for other targets or sizes, as happens in a replay.
    """
    if not any(backgrounds) or not len(value):
        return value
    key, many = row_key(name, batched), kind in ("images", "masks")
    pictures = list(value) if many else [value]
    if name in instances:
        left = cut(pictures, union if frame_ids is None else union[frame_ids])
        return np.stack(left) if many else left[0]
    if any(row is not None and key not in row for row in backgrounds) or (batched and not many):
        known = next(", ".join(row) for row in backgrounds if row)
        raise InvalidInputError(f"this mix was decided without {name}; it was for {len(union)} x ({known})")
    others: list[Any] = [None if row is None else row[key] for row in backgrounds]
    if many and not batched:  # several masks of one image
        others, union = others[0], union.repeat(len(pictures), axis=0)
    mixed = composite(pictures, others, union, feather=0 if kind in ("mask", "masks") else feather)
    return np.stack(mixed) if many else mixed[0]


def backgrounds_of(pool: Pool, chosen: list[int | None], holes: Array | None) -> list[Row | None]:
    """For each source the pictures of its donor that a mix may show.

    Args:
        pool: The pictures of the call.
        chosen: For each source the place of its donor, or None where it stays unmixed.
        holes: (B, H, W) bool, where the donors are painted over; None where nothing is.
    """
    rows = [None if place is None else pool.row(place) for place in chosen]
    if holes is None:
        return [None if row is None else {key: row[key] for key in pool.kinds} for row in rows]
    return [
        None if row is None else {key: _painted(row[key], kind, hole) for key, kind in pool.kinds.items()}
        for row, hole in zip(rows, holes, strict=True)
    ]


def _painted(picture: Any, kind: str, hole: Array) -> Any:
    if kind == "masks":
        return [painted(one, hole, nearest=True) for one in picture]
    # Depth under the kind "image" has NaN where nothing was measured, which cannot be averaged.
    unknown = picture.dtype.kind == "f" and not np.isfinite(picture).all()
    return painted(picture, hole, nearest=kind == "mask" or unknown)


def nothing_to_mix(images: Any) -> dict[str, Any]:
    """The decision about an empty batch."""
    size = images.shape[1:3] if isinstance(images, np.ndarray) else (0, 0)
    union = np.zeros((0, *size), dtype=bool)
    return {"union": union, "backgrounds": [], "instances": [], "batched": True, "target": []}
