"""Stage 3: saliency maps to foreground masks (SGD-Mix, equations 8 and 9).

    M_i = Z_i > otsu(Z_i);   M = M_i OR M_j

A preset is a callable ``(maps, images) -> Foreground``: maps (B, h, w) float in [0, 1], images (B, C, H, W).
Maps may be coarser than the images; masks always have the images' size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.bits import parts
from sgdmix_albu.mixing.stretching import upsampled
from sgdmix_albu.refusals import refuse_if
from sgdmix_albu.registry import Registry
from sgdmix_albu.tensors import BYTES, FLOATS, PIXELS, check_tensor
from sgdmix_albu.types import Foreground

__all__ = [
    "MaskPreset",
    "above",
    "get_mask",
    "list_masks",
    "otsu",
    "otsu_threshold",
    "register_mask",
    "rounded",
    "working_maps",
]

MaskPreset: TypeAlias = Callable[[Tensor, Tensor], Foreground]

_PRESETS = Registry("mask preset", group="sgdmix_albu.masks")
_PRESETS.register("otsu", "sgdmix_albu.mixing.masks:otsu")
_PRESETS.register("guided", "sgdmix_albu.mixing.guided:guided")
_PRESETS.register("grabcut", "sgdmix_albu.mixing.grabcut:grabcut")

_READ = FLOATS | BYTES  # in bytes, 255 is 1
_LEVELS = 256
_STEPS = 65535
_ROUNDING = 1e-9  # far more than rounding errors of float64, far less than a step
_MET = 1e-6  # the same for interpolation in float32
_AT_ONCE = 4 * 224 * 224  # pixels of a mask whose floats a CPU's second cache holds
# Side to which maps are reduced for histograms and distances: the resolution of the paper's spectral residual.
# A threshold or a distance at the full 224 x 224 would cost more than the mixing itself.
_WORKING_SIDE = 64


def list_masks() -> list[str]:
    """Names of the mask presets, sorted.

    Example:
        >>> "otsu" in list_masks()
        True
    """
    return _PRESETS.names()


def get_mask(spec: str | MaskPreset) -> MaskPreset:
    """A preset by name, or any callable ``(maps, images) -> Foreground`` as it is.

    Raises:
        UnknownNameError: No preset has that name.
        InvalidInputError: Neither a name nor a callable.
    """
    if isinstance(spec, str):
        preset: MaskPreset = _PRESETS.load(spec)
        return preset
    if callable(spec):
        return spec
    raise InvalidInputError(f"expected a mask preset's name or a callable, got {type(spec).__name__}")


def register_mask(name: str, target: str | MaskPreset, *, extra: str | None = None) -> None:
    """Add a preset: a callable or ``"module:Object"``; see :meth:`sgdmix_albu.registry.Registry.register`."""
    _PRESETS.register(name, target, extra=extra)


def otsu(maps: Tensor, images: Tensor) -> Foreground:
    """The paper's mask: saliency above its own Otsu threshold.

    Args:
        maps: (B, h, w) float in [0, 1], or uint8, where 255 is 1.
        images: (B, C, H, W); only the size is used.

    Returns:
        Masks (B, H, W) and thresholds (B,). Departure from the paper: on maps of more than 64 pixels a side the
        histogram is that of a regular grid of pixels; the comparison is at full resolution.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[[0.1, 0.1, 0.9]]])
        >>> otsu(maps, torch.zeros(1, 3, 1, 3)).masks
        tensor([[[False, False,  True]]])
    """
    check_maps_of(images, maps, _READ)
    step = _reduction(maps)
    thresholds = otsu_threshold(maps[:, ::step, ::step])
    return Foreground(above(maps, thresholds, images), thresholds)


def otsu_threshold(maps: Tensor) -> Tensor:
    """Otsu's threshold (IEEE Trans. SMC 9(1), 1979) of each map, for the comparison ``map > threshold``.

    The map is read at 8 bits, ``round(255 map)``, as usual implementations do; the threshold returned lies
    halfway between the last background level and the next, so that the comparison splits the 8-bit map just
    as ``skimage.filters.threshold_otsu`` does. Of equally good levels the lowest is taken. A constant map has
    its own level as threshold, which leaves its mask empty.

    Args:
        maps: (B, h, w) float in [0, 1], or uint8, where 255 is 1.

    Returns:
        (B,) float32 in [0, 1.002].

    Raises:
        InvalidInputError: Not a (B, h, w) tensor of these, or values outside [0, 1].

    Example:
        >>> import torch
        >>> float(255 * otsu_threshold(torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])))
        0.5
    """
    check_maps(maps, _READ)
    check_range(maps)
    # Clamped as whole numbers: what is refused later, NaN too, must not be an index that a GPU dies of.
    levels = maps if maps.dtype == torch.uint8 else (maps.float() * (_LEVELS - 1)).round_()
    levels = levels.long().clamp_(0, _LEVELS - 1).flatten(1)
    weight = torch.zeros(len(levels), _LEVELS, dtype=torch.float64, device=maps.device)
    # bincount would tell the host the length of its result, for which a GPU has to be waited for.
    weight.scatter_add_(1, levels, weight.new_ones(1, 1).expand_as(levels))
    level = torch.arange(_LEVELS, device=maps.device, dtype=torch.float64)
    below = weight.cumsum(1)
    sum_below = (weight * level).cumsum(1)
    above = below[:, -1:] - below
    sum_above = sum_below[:, -1:] - sum_below
    gap = sum_below / below.clamp_min(1) - sum_above / above.clamp_min(1)
    between = below * above * gap.square()
    best = between.argmax(1)
    constant = between.amax(1) == 0
    best = torch.where(constant, levels[:, 0], best)
    return ((best + 0.5) / (_LEVELS - 1)).float()


def check_maps(maps: Any, dtypes: Collection[torch.dtype] = FLOATS) -> None:
    """Refuse maps that are no (B, h, w) floating-point tensor, or one of these dtypes."""
    check_tensor(maps, "(B, h, w) floating-point maps", (-1, None, None), dtypes)


def check_maps_of(images: Any, maps: Any, dtypes: Collection[torch.dtype] = FLOATS) -> None:
    """Refuse such maps, and images that are no (B, C, H, W), one for each of them."""
    check_maps(maps, dtypes)
    count = len(maps)
    check_tensor(images, f"(B, C, H, W) images, one for each of {count} maps", (count, None, None, None), PIXELS)


def check_range(maps: Tensor) -> None:
    """Refuse saliency that leaves [0, 1] or is not a number."""
    if not maps.numel() or maps.dtype == torch.uint8:
        return
    low, high = torch.aminmax(maps.detach())
    refuse_if(
        ~((low >= 0) & (high <= 1)),
        lambda: InvalidInputError(
            f"saliency maps must lie in [0, 1], got values from {float(low):g} to {float(high):g}"
        ),
    )


def working_maps(maps: Tensor) -> Tensor:
    """Maps averaged down by a whole factor to at most 64 pixels on the longer side, for comparing them.

    Values are read in steps of 1/65535, and these are added up as whole numbers, in whatever order.
    """
    check_maps(maps, _READ)
    factor = _reduction(maps)
    in_bytes = maps.dtype == torch.uint8
    if factor == 1 or not len(maps):
        return maps.float() / (_LEVELS - 1) if in_bytes else maps
    # What holds a window's sum; float32 adds whole numbers up without an error to 2^24.
    narrow = factor**2 * (_LEVELS - 1) < 2**15 if in_bytes else factor**2 * _STEPS < 2**24
    dtype = (torch.int16 if narrow else torch.int64) if in_bytes else (torch.float32 if narrow else torch.float64)
    found = []
    for part in parts(maps):
        steps = maps[part] if in_bytes else (maps[part].to(dtype) * _STEPS).round_()
        found.append(_window_sums(_window_sums(steps, factor, 1, dtype), factor, 2, dtype))
    sums = torch.cat(found)
    ones = torch.ones_like(maps[:1], dtype=torch.uint8)
    pixels = _window_sums(_window_sums(ones, factor, 1, torch.int64), factor, 2, torch.int64)
    return rounded(sums.double() / (pixels * (_LEVELS - 1 if in_bytes else _STEPS)).double())


def _window_sums(values: Tensor, factor: int, dim: int, dtype: torch.dtype) -> Tensor:
    """Sums along an axis over windows of ``factor``, the last of which may be shorter."""
    rows = values.movedim(dim, 0)
    sums = rows[::factor].to(dtype, copy=True)
    for offset in range(1, factor):
        further = rows[offset::factor]
        sums[: len(further)] += further
    return sums.movedim(0, dim)


def _reduction(maps: Tensor) -> int:
    return math.ceil(max(maps.shape[-2:]) / _WORKING_SIDE)


def rounded(maps: Tensor) -> Tensor:
    """float64 maps in [0, 1] as float32 ones of 65535 steps: the last bits of a processor's arithmetic are gone.

    What lies between two steps but for such bits goes up.
    """
    check_tensor(maps, "float64 maps", (-1,), {torch.float64}, more=True)
    return ((maps * _STEPS + (0.5 + _ROUNDING)).floor_() / _STEPS).clamp_(max=1).float()


def above(maps: Tensor, thresholds: Tensor, images: Tensor) -> Tensor:
    """Where maps (B, h, w), brought to the images' size, exceed their thresholds (B,): (B, H, W) bool.

    Interpolation often meets a threshold exactly but for rounding errors: such pixels are background.
    """
    check_maps_of(images, maps, _READ)
    check_tensor(thresholds, f"{len(maps)} thresholds", (len(maps),), FLOATS)
    in_bytes = maps.dtype == torch.uint8
    if maps.shape[-2:] == images.shape[-2:]:
        if in_bytes:
            thresholds = (thresholds * (_LEVELS - 1)).floor().to(torch.uint8)
        return maps > thresholds[:, None, None]
    maps = maps.float() / (_LEVELS - 1) if in_bytes else maps.float()
    thresholds = thresholds.float()[:, None, None] + _MET
    masks = torch.empty(len(maps), *images.shape[-2:], dtype=torch.bool, device=maps.device)
    for part in parts(masks, _AT_ONCE):
        torch.gt(upsampled(maps[part], images), thresholds[part], out=masks[part])
    return masks
