"""Colours as the stages need them: plain RGB out of whatever a pipeline holds, and CIE Lab."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from sgdmix_albu.arguments import finite, said
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.tensors import PIXELS, check_tensor

Normalization: TypeAlias = "tuple[Sequence[float], Sequence[float]]"
"""Mean and standard deviation, one number for each channel or one for all, as ``v2.Normalize`` takes them."""

_PLAIN: Normalization = ((0.0,), (1.0,))
_HALVES: Normalization = ((0.5,), (0.5,))
IMAGENET: Normalization = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_IMAGENET_GREY: Normalization = ((0.449,), (0.226,))

# Resizing by a cubic or Lanczos kernel steps over the ends of [0, 1]. Measured on 150 photographs: to -0.42 and
# 1.38 at the most, and 2.0% of the values by more than 0.02. Photographs standardised with mean = std = 0.5 have
# 11% of their values at least that far outside, with ImageNet's statistics 36%.
_OVERSHOOT = 0.5
_LARGEST, _SMALLEST = torch.finfo(torch.float32).max, torch.finfo(torch.float32).tiny
_SLACK = 0.02
_SHARE = 0.05
_LOOKED_AT = 128  # rows and columns of each image on which that share is counted


def to_float(images: Tensor) -> Tensor:
    """Images of any dtype as float32; integers divided by their dtype's greatest value, as ``v2.ToDtype`` does."""
    check_tensor(images, "images of real numbers", (), PIXELS, more=True)
    if images.dtype.is_floating_point or images.dtype == torch.bool:
        return images.float()
    return images.float() / torch.iinfo(images.dtype).max


def to_rgb(images: Tensor, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> Tensor:
    """Whatever a pipeline holds as float32 RGB in [0, 1].

    Integers (uint8, uint16, int16 from 0 on) are divided by their dtype's greatest value. Floats are read by
    ``mean`` and ``std``, or else as :func:`normalization_of` recognises them, in [0, 1] or standardised with
    ImageNet's statistics, which is decided for the whole batch, since one pipeline made all of it. The result is
    clamped.

    Args:
        images: (B, 1 or 3, H, W).
        mean: What ``v2.Normalize`` subtracted, one number for each channel or one for all; nothing is guessed then.
        std: What it divided by.

    Returns:
        (B, 3, H, W) float32 in [0, 1].

    Raises:
        InvalidInputError: Another number of channels or dtype, or floats in a range that fits nothing.

    Example:
        >>> import torch
        >>> to_rgb(torch.tensor([-1.0, 0.0, 1.0]).expand(1, 1, 1, 3), mean=[0.5], std=[0.5])[0, 2]
        tensor([[0.0000, 0.5000, 1.0000]])
    """
    check_colours(images)
    if mean is None or std is None:
        check_normalization(mean, std)
        mean, std = normalization_of(images)
    return unnormalized(images, mean=mean, std=std).expand(-1, 3, -1, -1)


def check_colours(images: Tensor) -> None:
    """Refuse images without colours: other channels than grey or RGB, or integers of which nobody knows the range."""
    check_tensor(images, "grey or RGB images (B, 1 or 3, H, W)", (), PIXELS, more=True)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise InvalidInputError(
            f"expected grey or RGB images (B, 1 or 3, H, W) here, got {tuple(images.shape)}: for other channels take "
            "saliency that can read them (a function, a model-based backend or 'given')"
        )
    if not _has_range(images):
        came = "torch.int16 with negative values" if images.dtype == torch.int16 else str(images.dtype)
        raise InvalidInputError(
            f"expected uint8, uint16, int16 from 0 on or float images where colours are needed, got {came}: scale them "
            "to floats in [0, 1], or take saliency that can read them (a function or 'given')"
        )


def to_guide(images: Tensor) -> Tensor:
    """What a mask's outline can follow: the colours as :func:`to_rgb` gives them, or else grey.

    Images without colours (2, 4 or 12 channels, other integers than :func:`to_rgb` takes) have the mean of their
    channels as grey, each image stretched to [0, 1].

    Args:
        images: (B, C, H, W).

    Returns:
        (B, 3, H, W) float32 in [0, 1].
    """
    check_tensor(images, "images (B, C, H, W)", (-1, None, -1, -1), PIXELS)
    if images.shape[1] in (1, 3) and _has_range(images):
        return to_rgb(images)
    grey = to_float(images).mean(1, keepdim=True)
    if not grey.numel():
        return grey.expand(-1, 3, -1, -1)
    low, high = (end[:, None, None, None] for end in torch.aminmax(grey.flatten(1), dim=1))
    return ((grey - low) / (high - low).clamp_min(torch.finfo(grey.dtype).tiny)).expand(-1, 3, -1, -1)


def unnormalized(images: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """``v2.Normalize(mean, std)`` undone and clamped to [0, 1]; integers are scaled instead, never normalised.

    Args:
        images: (B, C, H, W).
        mean: C numbers, or one.
        std: C positive numbers, or one.

    Returns:
        (B, C, H, W) float32 in [0, 1].

    Raises:
        InvalidInputError: Another number of channels.
    """
    check_tensor(images, "images (B, C, H, W)", (-1, -1, -1, -1), PIXELS)
    check_normalization(mean, std, channels=images.shape[1])
    values = to_float(images)
    if images.dtype.is_floating_point and (tuple(mean), tuple(std)) != _PLAIN:
        values = values * _per_channel(std, values) + _per_channel(mean, values)
    return values if images.dtype == torch.uint8 else values.clamp(0, 1)


def check_finite(images: Tensor) -> None:
    """Refuse pixels that are no numbers: they would spread to other images as their background.

    Args:
        images: (B, ...), of any dtype.

    Raises:
        InvalidInputError: NaN or infinite pixels; the images that hold them are named.
    """
    if images.dtype.is_floating_point and images.numel():
        _refuse_broken(*torch.aminmax(images.detach().flatten(1), dim=1))


def _refuse_broken(low: Tensor, high: Tensor) -> None:
    """By the extremes (B,) of each image, which carry every NaN and infinity."""
    broken = (~(low.isfinite() & high.isfinite())).nonzero()[:, 0].tolist()
    if broken:
        raise InvalidInputError(f"image(s) {broken[:8]} of the batch hold NaN or infinite pixels")


def normalization_of(images: Tensor) -> Normalization:
    """Recognise how a batch was normalised: not at all ([0, 1]) or with ImageNet's mean and deviation.

    A reading fits if it brings all values into [-0.5, 1.5], and 95% of them into [0, 1]: resizing by a cubic or
    Lanczos kernel overshoots that far and no further.

    Args:
        images: (B, 1 or 3, H, W), of any dtype.

    Raises:
        InvalidInputError: Nothing fits, or mean = std = 0.5 would fit too; the extremes and the images that hold them
            are named. Also NaN and infinite pixels.
    """
    check_colours(images)
    if not images.dtype.is_floating_point or not images.numel():
        return _PLAIN
    low, high = torch.aminmax(images.detach().flatten(2), dim=2)
    _refuse_broken(low.amin(1), high.amax(1))
    if bool((low >= 0).all() & (high <= 1).all()) or _fits(images, low, high, _PLAIN):
        return _PLAIN
    imagenet = IMAGENET if images.shape[1] == 3 else _IMAGENET_GREY
    ambiguous = _fits(images, low, high, _HALVES)
    if not ambiguous and _fits(images, low, high, imagenet):
        return imagenet
    strange = ((low < 0) | (high > 1)).any(1).nonzero()[:, 0].tolist()
    raise InvalidInputError(
        f"cannot tell how these images were normalised: float values from {float(low.min()):g} to "
        f"{float(high.max()):g}, outside [0, 1] in image(s) {strange[:8]} of {len(images)}"
        f"{'; mean = std = 0.5 would fit, and so might other statistics' if ambiguous else ''}. Pass mean= and std= "
        "as v2.Normalize got them (mean=[0], std=[1] for images in [0, 1] that overshoot); divide images in [0, 255] "
        "by 255 or leave them uint8"
    )


def check_normalization(
    mean: Sequence[float] | None, std: Sequence[float] | None, *, channels: int | None = None
) -> None:
    """Refuse a ``mean`` or ``std`` that no ``v2.Normalize`` could have used.

    Args:
        mean: What came; None together with ``std`` where nothing is said and ``channels`` is None.
        std: What came.
        channels: Of the images that they are for, if those are known.
    """
    if mean is None and std is None and channels is None:
        return
    for name, values in (("mean", mean), ("std", std)):
        if not isinstance(values, Sequence) or isinstance(values, str | bytes) or not values:
            raise InvalidInputError(f"mean and std go together, each a sequence of numbers; got {name}={said(values)}")
        for value in values:
            number = finite(value)
            if number is None or abs(number) > _LARGEST or (name == "std" and number < _SMALLEST):
                expected = "positive" if name == "std" else "finite"
                raise InvalidInputError(f"{name} must be {expected} numbers of float32, got {name}={said(values)}")
        if channels is not None and len(values) not in (1, channels):
            raise InvalidInputError(f"{name} has {len(values)} numbers, and the images have {channels} channels")


def _fits(images: Tensor, low: Tensor, high: Tensor, reading: Normalization) -> bool:
    mean, std = (torch.tensor(part, device=low.device) for part in reading)
    if bool((low * std + mean < -_OVERSHOOT).any() | (high * std + mean > 1 + _OVERSHOOT).any()):
        return False
    step = max(1, max(images.shape[-2:]) // _LOOKED_AT)
    values = images.detach()[..., ::step, ::step].float()
    values = values * _per_channel(reading[1], values) + _per_channel(reading[0], values)
    outside = (values < -_SLACK) | (values > 1 + _SLACK)
    return int(outside.count_nonzero()) <= _SHARE * outside.numel()


def _per_channel(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(tuple(values), dtype=torch.float32, device=like.device)[:, None, None]


def _has_range(images: Tensor) -> bool:
    if images.dtype.is_floating_point or images.dtype in (torch.uint8, torch.uint16):
        return True
    return images.dtype == torch.int16 and not bool((images < 0).any())


def rgb_to_lab(images: Tensor) -> Tensor:
    """CIE Lab under D65 of sRGB images.

    Args:
        images: (B, 3, H, W) floating-point sRGB in [0, 1].

    Returns:
        (B, 3, H, W): L in [0, 100], a and b around 0.

    Example:
        >>> import torch
        >>> rgb_to_lab(torch.ones(1, 3, 1, 1)).round().flatten().tolist()
        [100.0, 0.0, 0.0]
    """
    linear = torch.where(images <= 0.04045, images / 12.92, ((images.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)
    to_xyz = images.new_tensor(
        [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    )
    white = to_xyz.sum(1, keepdim=True)
    xyz = torch.einsum("ij,bjhw->bihw", to_xyz / white, linear)
    bent = torch.where(xyz > 0.008856, xyz.clamp_min(0.008856) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = bent.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)
