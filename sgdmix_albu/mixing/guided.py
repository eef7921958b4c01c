"""Stage 3, torch only: masks that follow the edges of the image, by guided filtering of the saliency map.

He, Sun and Tang, "Guided Image Filtering", TPAMI 35(6), 2013; He and Sun, "Fast Guided Filter", 2015.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.guides import eight_bits, reading_of_guides
from sgdmix_albu.mixing.masks import check_maps, check_maps_of, check_range, otsu
from sgdmix_albu.mixing.stretching import more_rows
from sgdmix_albu.refusals import read_together, refuse_if
from sgdmix_albu.tensors import check_tensor
from sgdmix_albu.types import Foreground

__all__ = ["guided", "guided_filter", "guided_maps"]

_SIDE = 56  # the longer side on which the filter's coefficients are computed
_RADIUS = 4  # of its windows, in pixels of that size: a seventh of the image
_SMOOTHNESS = 1e-4  # the variance of a colour, in [0, 1], that still counts as one surface
_LEVELS = 255  # colours are read at 8 bits: whole numbers, whose sums are exact in float32
_STEPS = 65536  # of the coefficients, to 1: the last bits of a processor's arithmetic are gone
_ROUNDING = 1e-9  # of a step: what lies between two but for such bits goes up
# Pixels that a CPU works on at once: what is as large as they are stays in its second cache.
_PIXELS_AT_ONCE, _PIXELS_AT_ONCE_ELSEWHERE = 4 * 224 * 224, 256 * 224 * 224


def guided(maps: Tensor, images: Tensor) -> Foreground:
    """Otsu's threshold of the saliency map after it was fitted to the image's colours.

    Args:
        maps: (B, h, w) float in [0, 1], coarse or not.
        images: (B, C, H, W), read as :func:`sgdmix_albu.mixing.guides.to_guide` says, at 8 bits.

    Returns:
        Masks (B, H, W) and thresholds (B,) of the filtered maps, see :func:`guided_maps`.

    Example:
        >>> import torch
        >>> image = torch.zeros(1, 3, 64, 64)
        >>> image[..., 20:44, 20:44] = 1
        >>> blurred = torch.nn.functional.avg_pool2d(image[:, 0], 13, stride=1, padding=6)
        >>> bool((guided(blurred, image).masks == (image[:, 0] > 0)).all())
        True
    """
    check_maps_of(images, maps)
    if not len(maps):
        return otsu(maps, images)
    with read_together():
        check_range(maps)
        reading = reading_of_guides(images)  # of the whole batch, so that the blocks change nothing
        at_once = _PIXELS_AT_ONCE if images.device.type == "cpu" else _PIXELS_AT_ONCE_ELSEWHERE
        count = max(1, at_once // images[0, 0].numel())
        found = [
            otsu(_fitted(some, eight_bits(part, reading)), part)
            for some, part in zip(torch.split(maps, count), torch.split(images.detach(), count), strict=True)
        ]
    if len(found) == 1:
        return found[0]
    return Foreground(torch.cat([part.masks for part in found]), torch.cat([part.thresholds for part in found]))


def guided_maps(maps: Tensor, guides: Tensor) -> Tensor:
    """:func:`guided_filter` for saliency: kept in [0, 1], and zeros where the map is constant.

    Args:
        maps: (B, h, w) float in [0, 1].
        guides: (B, 3, H, W) float32 or float64 RGB in [0, 1], read at 8 bits.

    Returns:
        (B, H, W) float32 in [0, 1]. They do not depend on the processor, the threads or the batch: the coefficients
        are computed in float64 and rounded to 65536 steps, and what follows is single additions and products.

    Example:
        >>> import torch
        >>> guided_maps(torch.full((1, 4, 4), 0.5), torch.rand(1, 3, 8, 8)).amax()
        tensor(0.)
    """
    _check(maps, guides)
    with read_together():
        check_range(maps)
        _refuse_broken(guides)
        return _fitted(maps, (guides.detach() * _LEVELS).round_())


def guided_filter(maps: Tensor, guides: Tensor) -> Tensor:
    """Colour guided filter (He et al. 2013, equations 19 to 21), its coefficients at 56 pixels (He and Sun 2015).

    In every window the map is fitted by an affine function of the guide's colours; the output at a pixel is
    the mean of the fits of all windows that hold it.

    Args:
        maps: (B, h, w) float.
        guides: (B, 3, H, W) float in [0, 1].

    Returns:
        (B, H, W) of the wider of the two dtypes, about the range of ``maps``.

    Example:
        >>> import torch
        >>> guided_filter(torch.ones(2, 5, 5), torch.rand(2, 3, 30, 40)).shape
        torch.Size([2, 30, 40])
    """
    _check(maps, guides)
    dtype = torch.promote_types(maps.dtype, guides.dtype)
    _refuse_broken(guides)
    small = _small(guides)
    # A photograph may have 90 million pixels: what is as large as it, is there for one channel at a time.
    colour = torch.cat(
        [F.interpolate(channel.to(dtype), small, mode="area") for channel in torch.split(guides, 1, 1)], 1
    )
    return _applied(_coefficients(maps.to(dtype), colour), guides)


def _fitted(maps: Tensor, colours: Tensor) -> Tensor:
    """The filtered maps, from colours (B, 3, H, W) in whole numbers up to 255: the same bits everywhere."""
    colours = colours.to(torch.float32, memory_format=torch.contiguous_format)
    fit = _coefficients(maps.double(), _means(colours, _small(colours)).double() / _LEVELS)
    # What the filter leaves of a constant map are rounding errors, and thresholds make masks of them.
    flat = maps.amax((1, 2)) == maps.amin((1, 2))
    fit = (fit * _STEPS + (0.5 + _ROUNDING)).floor_().div_(_STEPS).masked_fill_(flat[:, None, None, None], 0)
    fit[:, :3] /= _LEVELS
    return _applied(fit.float(), colours).clamp_(0, 1)


def _coefficients(maps: Tensor, colour: Tensor) -> Tensor:
    """(B, h, w) maps, (B, 3, h', w') colours in [0, 1] to (B, 4, h', w'): slopes by colour, and an offset."""
    target = F.interpolate(maps[:, None], colour.shape[-2:], mode="bilinear", align_corners=False)
    means = _box(torch.cat([colour, target, colour * target, _products(colour)], 1))
    mean, mean_target, with_target, second = means[:, :3], means[:, 3:4], means[:, 4:7], means[:, 7:]
    rr, rg, rb, gg, gb, bb = (second - _products(mean)).unbind(1)
    rr, gg, bb = rr + _SMOOTHNESS, gg + _SMOOTHNESS, bb + _SMOOTHNESS
    r, g, b = (with_target - mean * mean_target).unbind(1)
    # The inverse of a symmetric 3 x 3 matrix, written out: a batched solver takes far longer.
    c_rr, c_rg, c_rb = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    c_gg, c_gb, c_bb = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    determinant = rr * c_rr + rg * c_rg + rb * c_rb
    adjugate = [c_rr * r + c_rg * g + c_rb * b, c_rg * r + c_gg * g + c_gb * b, c_rb * r + c_gb * g + c_bb * b]
    slope = torch.stack(adjugate, 1) / determinant[:, None]
    offset = mean_target - (slope * mean).sum(1, keepdim=True)
    return _box(torch.cat([slope, offset], 1))


def _applied(fit: Tensor, guides: Tensor) -> Tensor:
    """Coefficients (B, 4, h, w), stretched over the guides (B, 3, H, W), times these: (B, H, W)."""
    height, width = guides.shape[-2:]
    # Columns by way of rows: copying rows is fast.
    wide = more_rows(fit.mT.contiguous(), width).mT.contiguous()
    fitted = more_rows(wide[:, 3], height)
    for place in range(3):
        fitted = fitted.add_(more_rows(wide[:, place], height).mul_(guides[:, place]))
    return fitted


def _means(colours: Tensor, small: tuple[int, int]) -> Tensor:
    """As ``F.interpolate(mode="area")`` does, in half its time where the windows do not overlap."""
    (height, width), (rows, columns) = colours.shape[-2:], small
    if height % rows or width % columns:
        return F.interpolate(colours, small, mode="area")
    cells = (*colours.shape[:2], rows, height // rows, columns, width // columns)
    means: Tensor = colours.reshape(cells).sum(3).sum(4) / (cells[3] * cells[5])
    return means


def _small(guides: Tensor) -> tuple[int, int]:
    """The size of the coefficients."""
    height, width = guides.shape[-2:]
    scale = min(1, _SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _check(maps: Any, guides: Any) -> None:
    check_maps(maps)
    expected, shape = f"(B, 3, H, W) float guides, one for each of {len(maps)} maps", (len(maps), 3, None, None)
    check_tensor(guides, expected, shape, {torch.float32, torch.float64})


def _refuse_broken(guides: Tensor) -> None:
    ends = torch.stack(torch.aminmax(guides.detach()))
    message = "expected guides of finite numbers, got NaN or infinite ones"
    refuse_if(~ends.isfinite(), lambda: InvalidInputError(message))


def _products(colours: Tensor) -> Tensor:
    """(B, 3, h, w) to (B, 6, h, w): rr, rg, rb, gg, gb, bb."""
    r, g, b = colours.unbind(1)
    return torch.stack([r * r, r * g, r * b, g * g, g * b, b * b], 1)


def _box(values: Tensor) -> Tensor:
    """Means over windows of 9 x 9, cut at the border: two matrix products, which take a fifth of ``avg_pool2d``."""
    rows, columns = (_window_means(length, values) for length in values.shape[-2:])
    with torch.autocast(values.device.type, enabled=False):
        return rows @ values @ columns.T


def _window_means(length: int, like: Tensor) -> Tensor:
    at = torch.arange(length, device=like.device)
    near = ((at[:, None] - at).abs() <= _RADIUS).to(like.dtype)
    return near / near.sum(1, keepdim=True)
