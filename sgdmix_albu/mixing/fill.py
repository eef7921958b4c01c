"""Paint over the target's object with the colours around it, by :mod:`sgdmix_albu.mixing.pyramid`.

The source hides the middle of most holes; the visible parts are near their borders, where the averages are finest.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.bits import aligned, areas, as_integers, gathered, parts
from sgdmix_albu.mixing.pyramid import enlarged, enlarged_at, halved, without_holes
from sgdmix_albu.refusals import refuse_if
from sgdmix_albu.tensors import BOOL, PIXELS, check_tensor
from sgdmix_albu.types import Rows

__all__ = ["grown", "inpaint", "inpaint_nearest"]

# By which share of the longer side masks grow before they are painted out. Masks come from maps of 64 cells a side, so
# what they miss at their edges is a share of the image. On 67 ECSSD photographs (today's default masks, IoU > 0.6)
# 0, 2, 5 and 8 pixels of 224 left 10, 5, 3.6 and 2.7% of the object standing; each pixel takes as much background.
_GROWTH = 1 / 48
_TOGETHER = 2**18  # pixels that are worked on at once on a CPU
# Sums of few small whole numbers are exact in float32.
_NARROW = frozenset({torch.uint8, torch.int8, torch.uint16, torch.int16, torch.float16, torch.bfloat16, torch.float32})


def grown(masks: Tensor) -> Tensor:
    """Masks with a rim of 1/48 of the longer side, at least a pixel: the holes to paint.

    A mask that misses an object's rim would leave its outline, and its colours would spread into the hole.

    Args:
        masks: (B, H, W) bool.

    Returns:
        (B, H, W) bool in fresh memory; empty masks stay empty.

    Example:
        >>> masks = torch.zeros(1, 5, 5, dtype=torch.bool)
        >>> masks[0, 0, 2] = True
        >>> grown(masks).int()[0, :3]
        tensor([[0, 1, 1, 1, 0],
                [0, 1, 1, 1, 0],
                [0, 0, 0, 0, 0]], dtype=torch.int32)
    """
    check_tensor(masks, "(B, H, W) bool masks", (-1, -1, -1), BOOL)
    rim = max(1, round(max(masks.shape[1:]) * _GROWTH))
    wide = F.pad(masks, (rim, rim, rim, rim))
    for dim in (1, 2):
        reach = 1
        while reach < 2 * rim + 1:  # each step doubles the window, as far as it may
            step = min(reach, 2 * rim + 1 - reach)
            rest = wide.shape[dim] - step
            wide = wide.narrow(dim, 0, rest) | wide.narrow(dim, step, rest)
            reach += step
    return wide


def inpaint(images: Tensor, holes: Tensor) -> Tensor:
    """Paint the holes with the colours around them; the rest is bit-identical.

    The paint is within the range of each image's known pixels, except for the last bit of a float, and exactly in
    [0, 1] if they are. It is computed by additions, divisions and products that every processor rounds the same way, so
    it depends neither on the processor nor on the batch. Autograd treats it as a constant.

    Args:
        images: (B, ..., H, W), any real dtype; whole numbers are rounded, bool images are painted by
            :func:`inpaint_nearest`.
        holes: (B, H, W) bool, True where to paint.

    Returns:
        (B, ..., H, W) in fresh memory, the images' dtype, device and memory format.

    Raises:
        InvalidInputError: Shapes or dtypes do not fit, a hole fills its image, or the pixels around holes
            are not finite.

    Example:
        >>> images = torch.tensor([[[[10, 10, 99, 20, 20]]]], dtype=torch.uint8)
        >>> inpaint(images, images[:, 0] == 99)
        tensor([[[[10, 10, 15, 20, 20]]]], dtype=torch.uint8)
    """
    if not _check(images, holes):
        return images.clone()
    if images.dtype == torch.bool:
        return inpaint_nearest(images, holes)
    bits = _channels(as_integers(images))
    halves = _halves(images.detach(), torch.arange(len(images), device=images.device), holes)
    painted = torch.empty_like(bits)
    for part in parts(bits):
        own = bits[part]
        paint = as_integers(_as(enlarged(halves[part], own.shape[-2:]), images.dtype))
        inside = holes[part, None].view(torch.int8).neg().to(own.dtype)  # all ones
        torch.bitwise_xor(own, paint.bitwise_xor_(own).bitwise_and_(inside), out=painted[part])
    return _filled(images, holes, painted)


def inpaint_into(mixed: Tensor, pool: Rows, target: Tensor, holes: Tensor, seen: Tensor) -> None:
    """Write what :func:`inpaint` makes of targets into mixed images, where it is seen: there it costs something.

    Args:
        mixed: (B, ..., H, W), any real dtype but bool; written into.
        pool: Rows to gather targets from.
        target: (B,) rows of the pool.
        holes: (B, H, W) bool, of the targets.
        seen: (B, H, W) bool, where the target shows in the mix.
    """
    if not _check(mixed, holes):
        return
    seen = holes & seen
    rows = (areas(seen) > 0).nonzero()[:, 0]
    if not len(rows):
        return
    image, row, column = seen[rows].nonzero(as_tuple=True)
    halves = _halves(pool, target[rows], holes[rows])
    paint = _as(enlarged_at(halves, mixed.shape[-2:], image, row, column), mixed.dtype)
    as_integers(mixed)[rows[image], ..., row, column] = as_integers(paint).view(-1, *mixed.shape[1:-2])


def _halves(pool: Rows, target: Tensor, holes: Tensor) -> Tensor:
    """Rows ``target[i]`` of the pool at half their size, without their (B, H, W) holes: (B, C, h, w) floats."""
    sums = []
    for part in parts(holes, _TOGETHER):
        images = _channels(gathered(pool, target[part]))
        bits = as_integers(images)
        # All ones; in the holes, what stands there goes.
        bits &= holes[part, None].view(torch.int8).sub(1).to(bits.dtype)
        sums.append(halved(images.to(torch.float32 if images.dtype in _NARROW else torch.float64)))
    return without_holes(torch.cat(sums), ~holes[:, None])


def _as(paint: Tensor, dtype: torch.dtype) -> Tensor:
    return (paint if dtype.is_floating_point else paint.round_()).to(dtype)


def inpaint_nearest(images: Tensor, holes: Tensor) -> Tensor:
    """Give each pixel of a hole the value of the nearest pixel outside, by city-block distance.

    For values that cannot be averaged: class indices, and depth, where NaN means not measured. If several are equally
    near, one in the same row wins, then the left before the right, then the upper before the lower.

    Args:
        images: (B, ..., H, W), any real dtype.
        holes: (B, H, W) bool, True where to paint.

    Returns:
        (B, ..., H, W) in fresh memory, the images' dtype and device.

    Raises:
        InvalidInputError: As in :func:`inpaint`, but for values, which may be any.

    Example:
        >>> classes = torch.tensor([[[3, 3, 7, 7, 7, 5]]])
        >>> inpaint_nearest(classes, classes == 7)
        tensor([[[3, 3, 3, 3, 5, 5]]])
    """
    if not _check(images, holes):
        return images.clone()
    bits = _channels(as_integers(images)).flatten(2)
    places = _nearest_known(~holes).flatten(1)[:, None].expand(bits.shape)
    return _filled(images, holes, bits.gather(2, places))


def _check(images: Any, holes: Any) -> bool:
    """Whether there is anything to paint, once it is known that it can be."""
    check_tensor(images, "images (B, ..., H, W)", (-1, -1, -1), PIXELS, more=True)
    size = (len(images), *images.shape[-2:])
    check_tensor(holes, f"bool holes {size} for images {tuple(images.shape)}", size, BOOL)
    if not images.numel():
        return False
    whole = areas(holes) == holes[0].numel()
    refuse_if(whole, lambda: _all_hole(whole))
    return holes.device.type != "cpu" or bool(holes.any())


def _all_hole(whole: Tensor) -> InvalidInputError:
    rows = whole.nonzero()[:, 0].tolist()
    return InvalidInputError(f"expected holes that leave pixels to paint from; image(s) {rows[:8]} are all hole")


def _channels(images: Tensor) -> Tensor:
    """(B, ..., H, W) as (B, C, H, W), any number of channels."""
    return images.reshape(len(images), -1, *images.shape[-2:])


def _filled(images: Tensor, holes: Tensor, painted: Tensor) -> Tensor:
    """The painted bits, whole images, in the images' dtype and memory format, and with their graph."""
    painted = painted.view(images.dtype).view(images.shape)
    if images.requires_grad:
        return torch.where(aligned(holes, images), painted, images)
    return torch.empty_like(images).copy_(painted) if painted.stride() != images.stride() else painted


def _nearest_known(known: Tensor) -> Tensor:
    """(B, H, W) int64: for each pixel the place, y W + x, of the nearest known one by city-block distance.

    Along the rows first, then along the columns over what the rows found; both are running extremes.
    """
    height, width = known.shape[1:]
    far = height + width
    # Half the memory is nearly half the time, and numbers below stay under 3 (H + W) H.
    dtype = torch.int32 if 3 * far * height < 2**31 else torch.int64
    column = torch.arange(width, dtype=dtype, device=known.device)
    row = torch.arange(height, dtype=dtype, device=known.device)[:, None]
    left = torch.where(known, column, -far).cummax(2).values
    right = torch.where(known, column, width + far).flip(2).cummin(2).values.flip(2)
    across = torch.where(column - left <= right - column, left, right)
    steps = (column - across).abs()
    # The row stands in the last digits, so that the least number tells it.
    above = ((steps - row) * height + row).cummin(1).values
    below = ((steps + row) * height + row).flip(1).cummin(1).values.flip(1)
    up = above.div(height, rounding_mode="floor") + row
    down = below.div(height, rounding_mode="floor") - row
    nearest = torch.where(up <= down, above, below).remainder(height)
    nearest = torch.where(steps <= torch.minimum(up, down), row, nearest)
    nearest = nearest.long()
    return nearest * width + across.gather(1, nearest)
