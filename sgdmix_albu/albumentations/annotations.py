"""What is left of boxes and key points where a mix erased a part of the source.

The rules are those of ``A.Erasing`` and its kin: a box goes when less of it is left than ``min_visibility`` or
``min_area`` of ``A.BboxParams`` ask for, or nothing at all; a key point goes when its pixel was erased and
``A.KeypointParams`` has ``remove_invisible``. What stays keeps its coordinates.

Rows are those of Albumentations inside a pipeline: boxes ``x_min, y_min, x_max, y_max`` as shares of the image
(oriented ones with an angle in degrees behind), key points ``x, y`` in pixels. The columns behind them (labels)
go with their row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sgdmix_albu.albumentations.arrays import Array
from sgdmix_albu.mixing.visibility import visible_fractions, visible_points

_ROUNDING = 1e-5  # pipelines hold boxes as float32 shares of the image


def seen_boxes(boxes: Array, kept: Array, params: Any, image_column: int | None = None) -> Array:
    """The boxes of which enough is left.

    Args:
        boxes: (N, 4 or more), or (N, 5 or more) where oriented.
        kept: (B, H, W) bool, True where the source is kept. Of several images, which share the boxes, one that
            shows enough of a box is enough.
        params: The pipeline's ``A.BboxParams``: ``min_visibility``, ``min_area`` (in pixels) and, in
            albumentationsx, ``bbox_type``.
        image_column: Where each row says which image it belongs to; None where all images share it.
    """
    if not len(boxes) or kept.all():
        return boxes
    size = np.array(kept.shape[:0:-1], dtype=np.float64)
    corners = boxes[:, :4].astype(np.float64) * np.tile(size, 2)
    if getattr(params, "bbox_type", "hbb") == "obb":
        areas = (corners[:, 2:] - corners[:, :2]).prod(1)
        corners = _turned(corners, boxes[:, 4])
    else:
        areas = np.clip(np.clip(corners[:, 2:], 0, size) - np.clip(corners[:, :2], 0, size), 0, None).prod(1)
    seen = np.stack([visible_fractions(torch.from_numpy(one), torch.from_numpy(corners)) for one in kept])
    shares = _of_its_image(seen, boxes, image_column)
    enough = (shares >= params.min_visibility - _ROUNDING) & (shares * areas >= params.min_area - _ROUNDING)
    stay: Array = boxes[enough & (shares > 0)]
    return stay


def seen_points(points: Array, kept: Array, params: Any, image_column: int | None = None) -> Array:
    """The key points whose pixel is left in an image; all of them where the pipeline does not want them gone.

    Args:
        points: (N, 2 or more), ``x, y`` in pixels. Points outside the image are the pipeline's business.
        kept: (B, H, W) bool, True where the source is kept.
        params: The pipeline's ``A.KeypointParams``.
        image_column: As in :func:`seen_boxes`.
    """
    if not len(points) or kept.all() or not params.remove_invisible:
        return points
    places = torch.from_numpy(points[:, :2].astype(np.float64))
    seen = np.stack([visible_points(torch.from_numpy(one), places) for one in kept])
    outside = ~visible_points(torch.ones(kept.shape[1:], dtype=torch.bool, device="cpu"), places).numpy()
    stay: Array = points[_of_its_image(seen, points, image_column) | outside]
    return stay


def _of_its_image(seen: Array, rows: Array, image_column: int | None) -> Array:
    """(B, N) what each image shows of each row to (N,) what its own shows, or the one that shows most."""
    if image_column is None:
        most: Array = seen.max(0)
        return most
    own: Array = seen[rows[:, image_column].astype(np.int64), np.arange(len(rows))]
    return own


def _turned(corners: Array, degrees: Array) -> Array:
    """(N, 4, 2) corners of boxes in pixels, each turned about its centre as ``cv2.boxPoints`` does."""
    centre, half = (corners[:, :2] + corners[:, 2:]) / 2, (corners[:, 2:] - corners[:, :2]) / 2
    dx, dy = (half[:, None] * [[-1, -1], [1, -1], [1, 1], [-1, 1]]).transpose(2, 0, 1)
    turn = np.deg2rad(degrees.astype(np.float64))[:, None]
    x, y = dx * np.cos(turn) - dy * np.sin(turn), dx * np.sin(turn) + dy * np.cos(turn)
    turned: Array = centre[:, None] + np.stack([x, y], axis=2)
    return turned
