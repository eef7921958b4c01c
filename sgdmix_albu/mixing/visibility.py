"""How much of a box or point is still the source's after mixing."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.tensors import BOOL, NUMBERS, check_tensor

__all__ = ["visible_fractions", "visible_points"]

_SAMPLES = 64  # a side: oriented boxes are looked at in this many places along each of their sides


def visible_fractions(kept: Tensor, boxes: Tensor) -> Tensor:
    """Which share of each box is still the source's.

    Upright boxes exactly, by an integral image; pixels that a box's side cuts count in part. Boxes of four corners
    by 64 x 64 samples. What lies outside the image is not counted; a box with no area inside has the share 0.

    Args:
        kept: (H, W) bool, True where the pixel is the source's: a row of
            :attr:`sgdmix_albu.types.MixPlan.masks`.
        boxes: (N, 4) x1, y1, x2, y2 in pixels, any real or integer numbers; or (N, 4, 2), corners of oriented boxes
            in order round the box.

    Returns:
        (N,) float32 in [0, 1], on the device of ``kept``.

    Raises:
        InvalidInputError: Another shape or dtype.

    Example:
        >>> import torch
        >>> kept = torch.zeros(4, 4, dtype=torch.bool)
        >>> kept[:, :2] = True
        >>> visible_fractions(kept, torch.tensor([[0, 0, 4, 4], [0, 1, 2, 3], [1.5, 0, 2.5, 4]]))
        tensor([0.5000, 1.0000, 0.5000])
    """
    _check(kept, boxes, [(4,), (4, 2)], "boxes (N, 4) or corners (N, 4, 2)")
    boxes = boxes.detach().as_subclass(Tensor).to(kept.device, torch.float64)
    return _oriented(kept, boxes) if boxes.ndim == 3 else _upright(kept, boxes)


def visible_points(kept: Tensor, points: Tensor) -> Tensor:
    """Which points lie on pixels that are still the source's.

    Args:
        kept: (H, W) bool, True where the pixel is the source's.
        points: (N, 2) x, y in pixels; (0.0, 0.0) to (1.0, 1.0) is the first pixel.

    Returns:
        (N,) bool, on the device of ``kept``; False outside the image.

    Raises:
        InvalidInputError: Another shape or dtype.

    Example:
        >>> import torch
        >>> visible_points(torch.tensor([[True, False]]), torch.tensor([[0.9, 0.0], [1.0, 0.0], [5.0, 0.0]]))
        tensor([ True, False, False])
    """
    _check(kept, points, [(2,)], "points (N, 2)")
    x, y = points.detach().as_subclass(Tensor).to(kept.device, torch.float64).unbind(1)
    height, width = kept.shape
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)  # NaN is outside
    column, row = (torch.where(inside, place, 0).long() for place in (x, y))
    return kept[row, column] & inside if kept.numel() else inside


def _upright(kept: Tensor, boxes: Tensor) -> Tensor:
    height, width = kept.shape
    left, right = (boxes[:, i].clamp(0, width) for i in (0, 2))
    top, bottom = (boxes[:, i].clamp(0, height) for i in (1, 3))
    area = (right - left).clamp_min(0) * (bottom - top).clamp_min(0)
    # sums[y, x] pixels are kept above and to the left of the corner (x, y); between corners it is bilinear.
    sums = F.pad(kept.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    pixels = _within(sums, left, top, right, bottom)
    # Whole pixels are counted without an error: a box that touches no kept one has a share of 0, not of 1e-13.
    touched = _within(sums, left.floor(), top.floor(), right.ceil(), bottom.ceil())
    return torch.where((area > 0) & (touched > 0), pixels / area, 0).clamp(0, 1).float()


def _within(sums: Tensor, left: Tensor, top: Tensor, right: Tensor, bottom: Tensor) -> Tensor:
    return _at(sums, right, bottom) - _at(sums, left, bottom) - _at(sums, right, top) + _at(sums, left, top)


def _at(sums: Tensor, x: Tensor, y: Tensor) -> Tensor:
    x, y = x.nan_to_num(), y.nan_to_num()
    column, row = x.floor().long(), y.floor().long()
    next_column, next_row = (column + 1).clamp_max(sums.shape[1] - 1), (row + 1).clamp_max(sums.shape[0] - 1)
    above = torch.lerp(sums[row, column], sums[row, next_column], x - column)
    below = torch.lerp(sums[next_row, column], sums[next_row, next_column], x - column)
    return torch.lerp(above, below, y - row)


def _oriented(kept: Tensor, corners: Tensor) -> Tensor:
    steps = (torch.arange(_SAMPLES, dtype=torch.float64, device=kept.device) + 0.5) / _SAMPLES
    first, second, third, fourth = (corners[:, i, None, None] for i in range(4))
    along, across = steps[None, :, None, None], steps[None, None, :, None]
    points = torch.lerp(torch.lerp(first, second, along), torch.lerp(fourth, third, along), across)
    flat = points.reshape(-1, 2)
    inside = visible_points(torch.ones_like(kept), flat).view(len(corners), _SAMPLES**2).sum(1)
    visible = visible_points(kept, flat).view(len(corners), _SAMPLES**2).sum(1)
    x, y = corners.unbind(2)
    area = (x * y.roll(-1, 1) - y * x.roll(-1, 1)).sum(1).abs() / 2
    return torch.where(area > 0, visible / inside.clamp_min(1), 0).float()


def _check(kept: Any, places: Any, shapes: list[tuple[int, ...]], expected: str) -> None:
    check_tensor(kept, "a kept region (H, W) of bool", (-1, -1), BOOL)
    check_tensor(places, f"{expected} in pixels", (-1, -1), NUMBERS, more=True)
    if tuple(places.shape[1:]) not in shapes:
        raise InvalidInputError(f"expected {expected} in pixels, got {places.dtype} {tuple(places.shape)}")
