"""From the images of a pipeline to plain RGB."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from sgdmix_albu.arguments import finite, said
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.refusals import refuse_if
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
_LOOKED_AT = 128  # rows and columns of each image, at most, on which that share is counted


def to_float(images: Tensor) -> Tensor:
    """Images of any dtype as float32; integers divided by their dtype's greatest value, as ``v2.ToDtype`` does."""
    check_tensor(images, "images of real numbers", (), PIXELS, more=True)
    if images.dtype.is_floating_point or images.dtype == torch.bool:
        return images.float()
    return images.float() / torch.iinfo(images.dtype).max


def to_rgb(images: Tensor, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> Tensor:
    """Images of a pipeline as float32 RGB in [0, 1].

    Integers (uint8, uint16, int16 from 0 on) are divided by their dtype's greatest value. Floats are read by
    ``mean`` and ``std``, or else as :func:`normalization_of` recognises them, in [0, 1] or standardised with
    ImageNet's statistics, decided for the whole batch, since one pipeline made it. The result is
    clamped.

    Args:
        images: (B, 1 or 3, H, W).
        mean: What ``v2.Normalize`` subtracted, one number per channel or one for all; then nothing is guessed.
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
        return reading_of(images).rgb(images)
    return unnormalized(images, mean=mean, std=std).expand(-1, 3, -1, -1)


def check_colours(images: Tensor) -> None:
    """Refuse images without colours: other channels than grey or RGB, or integers of which nobody knows the range."""
    check_tensor(images, "grey or RGB images (B, 1 or 3, H, W)", (), PIXELS, more=True)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        last = images.ndim == 4 and images.shape[3] in (1, 3)
        remedy = (
            "if the channels are last, use .permute(0, 3, 1, 2)"
            if last
            else "for other channels use saliency that can read them (a function, a model-based backend or 'given')"
        )
        raise InvalidInputError(
            f"expected grey or RGB images (B, 1 or 3, H, W) here, got {tuple(images.shape)}: {remedy}"
        )
    came = "torch.int16 with negative values" if images.dtype == torch.int16 else str(images.dtype)
    error = InvalidInputError(
        f"expected uint8, uint16, int16 from 0 on or float images where colours are needed, got {came}: scale them "
        "to floats in [0, 1], or use saliency that can read them (a function or 'given')"
    )
    if images.dtype == torch.int16:
        refuse_if(images < 0, lambda: error)
    elif not has_range(images):
        raise error


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
        mean_of, std_of = (constants(part, values.device)[:, None, None] for part in (mean, std))
        values = values * std_of + mean_of
    return values if images.dtype == torch.uint8 else values.clamp(0, 1)


def check_finite(images: Tensor) -> None:
    """Refuse pixels that are no numbers: they would spread to other images as their background.

    Args:
        images: (B, ...), of any dtype.

    Raises:
        InvalidInputError: NaN or infinite pixels; the images that hold them are named.
    """
    if not images.dtype.is_floating_point or not images.numel():
        return
    # One pass instead of two: NaN and infinity spread to a sum. So may an overflow, and then the extremes are asked.
    if images.device.type != "cpu" or not math.isfinite(float(images.detach().sum(dtype=torch.float32))):
        _refuse_broken(*extremes(images.detach().flatten(1)))


def extremes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Least and greatest along the last axis; NaN where there is one. ``torch.aminmax`` takes eight times as long."""
    return values.amin(-1), values.amax(-1)


def _refuse_broken(low: Tensor, high: Tensor) -> None:
    """By the extremes (B,) of each image, which carry every NaN and infinity."""
    broken = ~(low.isfinite() & high.isfinite())
    refuse_if(broken, lambda: InvalidInputError(f"image(s) {_rows(broken)} of the batch hold NaN or infinite pixels"))


def _rows(flags: Tensor) -> list[int]:
    """The first eight rows (B,) for which a flag is set, for a message."""
    found: list[int] = flags.nonzero()[:8, 0].tolist()
    return found


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
    return reading_of(images).normalization()


@dataclass(frozen=True)
class Reading:
    """How the numbers of a batch are read as colours.

    Attributes:
        plain: Whether they are in [0, 1] as they are, 0-dim bool: left on a GPU, so that nobody waits. None for yes.
        otherwise: How they were normalised if not.
    """

    plain: Tensor | None = None
    otherwise: Normalization = _PLAIN

    def normalization(self) -> Normalization:
        """As numbers; reads ``plain``."""
        return _PLAIN if self.plain is None or bool(self.plain) else self.otherwise

    def rgb(self, images: Tensor) -> Tensor:
        """(B, 1 or 3, H, W), some of that batch, as (B, 3, H, W) float32 in [0, 1]."""
        if self.plain is None or self.plain.device.type == "cpu":
            mean, std = self.normalization()
            return unnormalized(images, mean=mean, std=std).expand(-1, 3, -1, -1)
        shift, scale = (constants(part, images.device)[:, None, None] for part in self.otherwise)
        values = images.float() * torch.where(self.plain, 1.0, scale) + torch.where(self.plain, 0.0, shift)
        return values.clamp(0, 1).expand(-1, 3, -1, -1)


def reading_of(images: Tensor) -> Reading:
    """:func:`normalization_of` for a batch of which only some is to be read at a time; waits for no GPU."""
    check_colours(images)
    if not images.dtype.is_floating_point or not images.numel():
        return Reading()
    low, high = extremes(images.detach().flatten(2))
    _refuse_broken(low.amin(1), high.amax(1))
    inside = ((low >= 0) & (high <= 1)).all()
    on_cpu = images.device.type == "cpu"  # where looking is free
    if on_cpu and bool(inside):
        return Reading()
    imagenet = IMAGENET if images.shape[1] == 3 else _IMAGENET_GREY
    plain = inside | _fits(images, low, high, _PLAIN)
    if on_cpu and bool(plain):
        return Reading()
    ambiguous = _fits(images, low, high, _HALVES)
    refuse_if(
        ~(plain | (_fits(images, low, high, imagenet) & ~ambiguous)),
        lambda: _unknown_range(low, high, ambiguous=bool(ambiguous)),
    )
    return Reading(plain, imagenet)


def _unknown_range(low: Tensor, high: Tensor, *, ambiguous: bool) -> InvalidInputError:
    strange = _rows(((low < 0) | (high > 1)).any(1))
    return InvalidInputError(
        f"cannot tell how these images were normalised: float values from {float(low.min()):g} to "
        f"{float(high.max()):g}, outside [0, 1] in image(s) {strange} of {len(low)}"
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


def _fits(images: Tensor, low: Tensor, high: Tensor, reading: Normalization) -> Tensor:
    """Whether a reading fits, 0-dim bool."""
    mean, std = (constants(part, low.device) for part in reading)
    far = ((low * std + mean < -_OVERSHOOT) | (high * std + mean > 1 + _OVERSHOOT)).any()
    if images.device.type == "cpu" and bool(far):
        return ~far
    step = math.ceil(max(images.shape[-2:]) / _LOOKED_AT)
    values = images.detach()[..., ::step, ::step].float() * std[:, None, None] + mean[:, None, None]
    outside = (values < -_SLACK) | (values > 1 + _SLACK)
    return ~far & (outside.count_nonzero() <= _SHARE * outside.numel())


def constants(values: Sequence[float], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """(n,) numbers, made where they are needed: a list would be copied to a GPU, for which everybody waits."""
    return torch.cat([torch.full((1,), value, dtype=dtype, device=device) for value in values])


def has_range(images: Tensor) -> bool:
    """Whether it is known which numbers are black and white; those of int16 are read."""
    if images.dtype.is_floating_point or images.dtype in (torch.uint8, torch.uint16):
        return True
    return images.dtype == torch.int16 and not bool((images < 0).any())
