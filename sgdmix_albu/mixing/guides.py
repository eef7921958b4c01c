"""What a mask's outline can follow: the colours of the images, or else grey."""

from __future__ import annotations

import torch
from torch import Tensor

from sgdmix_albu.mixing.colour import Reading, extremes, has_range, reading_of, to_float
from sgdmix_albu.tensors import PIXELS, check_tensor


def to_guide(images: Tensor) -> Tensor:
    """The colours as :func:`sgdmix_albu.mixing.colour.to_rgb` gives them, or else grey.

    Images without colours (2, 4 or 12 channels, integers whose range nobody knows) have the mean of their channels as
    grey, each image stretched to [0, 1].

    Args:
        images: (B, C, H, W).

    Returns:
        (B, 3, H, W) float32 in [0, 1].
    """
    reading = reading_of_guides(images)
    return reading.rgb(images) if reading else _stretched_grey(images)


def eight_bits(images: Tensor, reading: Reading | None) -> Tensor:
    """What :func:`to_guide` gives, as (B, 3, H, W) bytes.

    Args:
        images: (B, C, H, W), some of a batch.
        reading: Of the batch, by :func:`reading_of_guides`.
    """
    if images.dtype == torch.uint8 and reading:
        return images.expand(-1, 3, -1, -1)
    return ((reading.rgb(images) if reading else _stretched_grey(images)) * 255).round_().byte()


def reading_of_guides(images: Tensor) -> Reading | None:
    """How :func:`to_guide` reads a batch; None where the images have no colours."""
    check_tensor(images, "images (B, C, H, W)", (-1, None, -1, -1), PIXELS)
    return reading_of(images) if images.shape[1] in (1, 3) and has_range(images) else None


def _stretched_grey(images: Tensor) -> Tensor:
    grey = to_float(images).mean(1, keepdim=True)
    if not grey.numel():
        return grey.expand(-1, 3, -1, -1)
    low, high = (end[:, None, None, None] for end in extremes(grey.flatten(1)))
    return ((grey - low) / (high - low).clamp_min(torch.finfo(grey.dtype).tiny)).expand(-1, 3, -1, -1)
