"""Stage 3, torch only: masks that follow the edges of the image, by guided filtering of the saliency map.

He, Sun and Tang, "Guided Image Filtering", TPAMI 35(6), 2013; He and Sun, "Fast Guided Filter", 2015.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.colour import to_guide
from sgdmix_albu.mixing.masks import check_maps, check_maps_of, check_range, otsu, rounded
from sgdmix_albu.tensors import check_tensor
from sgdmix_albu.types import Foreground

__all__ = ["guided", "guided_filter", "guided_maps"]

_SIDE = 56  # the longer side on which the filter's coefficients are computed
_RADIUS = 4  # of its windows, in pixels of that size: a seventh of the image
_SMOOTHNESS = 1e-4  # the variance of a colour, in [0, 1], that still counts as one surface


def guided(maps: Tensor, images: Tensor) -> Foreground:
    """Otsu's threshold of the saliency map after it was fitted to the image's colours.

    Args:
        maps: (B, h, w) float in [0, 1], coarse or not.
        images: (B, C, H, W), read as :func:`sgdmix_albu.mixing.colour.to_guide` says.

    Returns:
        Masks (B, H, W) and thresholds (B,) of the filtered maps.

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
    return otsu(guided_maps(maps, to_guide(images)), images)


def guided_maps(maps: Tensor, guides: Tensor) -> Tensor:
    """:func:`guided_filter` for saliency: kept in [0, 1], and zeros where the map is constant.

    Args:
        maps: (B, h, w) float in [0, 1].
        guides: (B, 3, H, W) float32 RGB in [0, 1].

    Returns:
        (B, H, W) float32 in [0, 1], computed in float64 and rounded to 65535 steps: thresholds then do not depend on
        the processor, the threads or the batch.

    Example:
        >>> import torch
        >>> guided_maps(torch.full((1, 4, 4), 0.5), torch.rand(1, 3, 8, 8)).amax()
        tensor(0.)
    """
    _check(maps, guides)
    check_range(maps)
    # What the filter leaves of a constant map are rounding errors, and thresholds make masks of them.
    flat = maps.amax((1, 2)) == maps.amin((1, 2))
    fitted = guided_filter(maps.double(), guides.detach()).clamp_(0, 1).masked_fill_(flat[:, None, None], 0)
    return rounded(fitted)


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
    size = tuple(guides.shape[-2:])
    small = tuple(max(1, round(length * min(1, _SIDE / max(size)))) for length in size)
    # A photograph may have 90 million pixels: what is as large as it, is there for one channel at a time.
    dtype = torch.promote_types(maps.dtype, guides.dtype)
    channels = [guides[:, channel : channel + 1] for channel in range(3)]
    colour = torch.cat([F.interpolate(channel.to(dtype), small, mode="area") for channel in channels], 1)
    if not bool(colour.isfinite().all()):
        raise InvalidInputError("expected guides of finite numbers, got NaN or infinite ones")
    target = F.interpolate(maps[:, None].to(dtype), small, mode="bilinear", align_corners=False)
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
    fit = _box(torch.cat([slope, offset], 1))
    fitted = _enlarged(fit[:, 3:], size)
    for place, channel in enumerate(channels):
        fitted = fitted + _enlarged(fit[:, place : place + 1], size).mul_(channel)
    return fitted[:, 0]


def _enlarged(values: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(values, size, mode="bilinear", align_corners=False)


def _check(maps: Any, guides: Any) -> None:
    check_maps(maps)
    expected, shape = f"(B, 3, H, W) float guides, one for each of {len(maps)} maps", (len(maps), 3, None, None)
    check_tensor(guides, expected, shape, {torch.float32, torch.float64})


def _products(colours: Tensor) -> Tensor:
    """(B, 3, h, w) to (B, 6, h, w): rr, rg, rb, gg, gb, bb."""
    r, g, b = colours.unbind(1)
    return torch.stack([r * r, r * g, r * b, g * g, g * b, b * b], 1)


def _box(values: Tensor) -> Tensor:
    """Means over windows of 9 x 9, cut at the border; one axis after the other."""
    width = 2 * _RADIUS + 1
    rows = F.avg_pool2d(values, (width, 1), 1, (_RADIUS, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, width), 1, (0, _RADIUS), count_include_pad=False)
