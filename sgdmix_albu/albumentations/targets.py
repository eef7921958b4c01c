"""What one decision does to each target of a call: pictures are composited, boxes and key points may go or move.

For these the rules are those of ``A.Erasing`` and its kin: a box goes when less of it is left than ``min_visibility``
or ``min_area`` of ``A.BboxParams`` ask for, or nothing at all; a key point goes when its pixel was erased and
``A.KeypointParams`` has ``remove_invisible``. What stays keeps its coordinates, or moves with its object. Rows are
those of Albumentations inside a pipeline: boxes ``x_min, y_min, x_max, y_max`` as shares of the image (oriented ones
with an angle in degrees behind), key points ``x, y`` in pixels. The columns behind them (labels) go with their row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgdmix_albu.albumentations.arrays import Array, Moves, composite, cut, holds_unknown, painted
from sgdmix_albu.albumentations.pool import Pool, Row, row_key
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.visibility import visible_fractions, visible_points


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
    moves: Moves | None = None,
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
        moves: Where the sources' objects go; None where they stay.
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
        if frame_ids is not None:
            union, moves = union[frame_ids], None if moves is None else moves.of(frame_ids)
        left = cut(pictures, union, moves)
        return np.stack(left) if many else left[0]
    if any(row is not None and key not in row for row in backgrounds) or (batched and not many):
        known = next(", ".join(row) for row in backgrounds if row)
        raise InvalidInputError(f"this mix was decided without {name}; it was for {len(union)} x ({known})")
    others: list[Any] = [None if row is None else row[key] for row in backgrounds]
    if many and not batched:  # several masks of one image
        all_of_it = np.zeros(len(pictures), dtype=np.int64)
        others, union, moves = others[0], union[all_of_it], None if moves is None else moves.of(all_of_it)
    hard = kind in ("mask", "masks")
    mixed = composite(pictures, others, union, feather=0 if hard else feather, moves=moves, hard=hard)
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
    return painted(picture, hole, nearest=kind == "mask" or holds_unknown(picture))


def nothing_to_mix(images: Any) -> dict[str, Any]:
    """The decision about an empty batch."""
    size = images.shape[1:3] if isinstance(images, np.ndarray) else (0, 0)
    union = np.zeros((0, *size), dtype=bool)
    return {"union": union, "backgrounds": [], "instances": [], "batched": True, "target": []}


_SCALE = 4  # the column of a key point's own size, inside a pipeline
_ROUNDING = 1e-5  # pipelines hold boxes as float32 shares of the image


def seen_boxes(
    boxes: Array, kept: Array, params: Any, image_column: int | None = None, moves: Moves | None = None
) -> Array:
    """The boxes of which enough is left, where they are now.

    Args:
        boxes: (N, 4 or more), or (N, 5 or more) where oriented.
        kept: (B, H, W) bool, True where the source is kept. Of several images, which share the boxes, one that
            shows enough of a box is enough.
        params: The pipeline's ``A.BboxParams``: ``min_visibility``, ``min_area`` (in pixels) and, in
            albumentationsx, ``bbox_type``.
        image_column: Where each row says which image it belongs to; None where all images share it.
        moves: Where the objects go; None where they stay. Upright boxes are clipped to the frame.

    Raises:
        InvalidInputError: Images whose objects go to different places share the boxes.
    """
    if not len(boxes) or _untouched(kept, moves):
        return boxes
    where = None if moves is None else _where(boxes, image_column, moves, "boxes")
    kept = kept if moves is None else moves.cutouts  # a moved object stays whole, so what is lost is told where it was
    size = np.array(kept.shape[:0:-1], dtype=np.float64)
    corners = boxes[:, :4].astype(np.float64) * np.tile(size, 2)
    oriented = getattr(params, "bbox_type", "hbb") == "obb"
    if oriented:
        areas = (corners[:, 2:] - corners[:, :2]).prod(1)
        corners = _turned(corners, boxes[:, 4])
    else:
        areas = np.clip(np.clip(corners[:, 2:], 0, size) - np.clip(corners[:, :2], 0, size), 0, None).prod(1)
    shares = _shown(visible_fractions, kept, corners, boxes, image_column)
    areas = areas if where is None else areas * where[:, 0] ** 2
    enough = (shares >= params.min_visibility - _ROUNDING) & (shares * areas >= params.min_area - _ROUNDING)
    enough &= shares > 0
    stay: Array = boxes[enough]
    return stay if where is None else _carried_boxes(stay, where[enough], clipped=not oriented)


def seen_points(
    points: Array, kept: Array, params: Any, image_column: int | None = None, moves: Moves | None = None
) -> Array:
    """The key points whose pixel is left in an image, where they are now; all where the pipeline wants none gone.

    Args:
        points: (N, 2 or more), ``x, y`` in pixels. Points outside the image are the pipeline's business.
        kept: (B, H, W) bool, True where the source is kept.
        params: The pipeline's ``A.KeypointParams``.
        image_column: As in :func:`seen_boxes`.
        moves: As in :func:`seen_boxes`; points outside the image stay where they are.

    Raises:
        InvalidInputError: As in :func:`seen_boxes`.
    """
    if not len(points) or _untouched(kept, moves) or not (params.remove_invisible or moves):
        return points
    where = None if moves is None else _where(points, image_column, moves, "key points")
    kept = kept if moves is None else moves.cutouts
    places = points[:, :2].astype(np.float64)
    inside = _shown(visible_points, np.ones_like(kept[:1]), places, points, None)
    left = _shown(visible_points, kept, places, points, image_column) | ~inside | (not params.remove_invisible)
    stay: Array = points[left]
    if where is None:
        return stay
    return np.where(inside[left, None], _carried_points(stay, where[left], kept.shape[1:]), stay)


def _untouched(kept: Array, moves: Moves | None) -> bool:
    """Whether no pixel was taken; an object that grew until it fills the frame has moved all the same."""
    return bool(kept.all()) and (moves is None or bool((moves.placement == (1, 0, 0)).all()))


def _where(rows: Array, image_column: int | None, moves: Moves, what: str) -> Array:
    """(N, 3) where the object of each row's own image goes."""
    if image_column is None and len(moves.placement) > 1:
        raise InvalidInputError(
            f"place='random' moves the object of each of {len(moves.placement)} images to a different place, but all "
            f"share these {what}: use place='source', or one image per call"
        )
    found: Array = moves.placement[0 if image_column is None else rows[:, image_column].astype(int)]
    return np.broadcast_to(found, (len(rows), 3))


def _carried_boxes(boxes: Array, where: Array, *, clipped: bool) -> Array:
    """Boxes as shares of the image, scaled and moved; the angle of oriented ones stays."""
    corners = boxes[:, :4] * where[:, :1] + where[:, [2, 1, 2, 1]]
    corners = np.clip(corners, 0, 1) if clipped else corners
    return np.concatenate([corners.astype(boxes.dtype), boxes[:, 4:]], axis=1)


def _carried_points(points: Array, where: Array, size: tuple[int, ...]) -> Array:
    """Key points ``x, y, z, angle, scale`` in pixels, scaled and moved."""
    carried = points.copy()
    carried[:, :2] = points[:, :2] * where[:, :1] + where[:, [2, 1]] * size[::-1]
    if points.shape[1] > _SCALE:
        carried[:, _SCALE] *= where[:, 0]
    return carried


def _shown(
    measure: Callable[[Tensor, Tensor], Tensor], kept: Array, places: Array, rows: Array, image_column: int | None
) -> Array:
    """(N,) what of each row its own image shows, or the one that shows most."""
    seen = np.stack([measure(torch.from_numpy(one), torch.from_numpy(places)) for one in kept])
    own: Array = seen.max(0) if image_column is None else seen[rows[:, image_column].astype(int), np.arange(len(rows))]
    return own


def _turned(corners: Array, degrees: Array) -> Array:
    """(N, 4, 2) corners of boxes in pixels, each turned about its centre as ``cv2.boxPoints`` does."""
    centre, half = (corners[:, :2] + corners[:, 2:]) / 2, (corners[:, 2:] - corners[:, :2]) / 2
    dx, dy = (half[:, None] * [[-1, -1], [1, -1], [1, 1], [-1, 1]]).transpose(2, 0, 1)
    turn = np.deg2rad(degrees.astype(np.float64))[:, None]
    x, y = dx * np.cos(turn) - dy * np.sin(turn), dx * np.sin(turn) + dy * np.cos(turn)
    turned: Array = centre[:, None] + np.stack([x, y], axis=2)
    return turned
