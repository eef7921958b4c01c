"""Colours as the stages need them: plain RGB out of whatever a pipeline holds, and CIE Lab."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["rgb_to_lab", "to_float", "to_rgb"]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


def to_float(images: Tensor) -> Tensor:
    """Images of any dtype as float32; uint8 scaled to [0, 1]."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def to_rgb(images: Tensor) -> Tensor:
    """(B, 1 or 3, H, W), uint8 or float, to float32 RGB in [0, 1].

    An image with a value outside [0, 1] is taken to be standardised with ImageNet's mean and deviation, the
    field's habit before a collate function, and is mapped back, then clamped. Decided for each image by
    itself, so that a batch equals a loop.
    """
    images = to_float(images).expand(-1, 3, -1, -1)
    low, high = torch.aminmax(images.flatten(1), dim=1)
    standardised = (low < 0) | (high > 1)
    if not bool(standardised.any()):
        return images
    mean = images.new_tensor(_IMAGENET_MEAN)[:, None, None]
    std = images.new_tensor(_IMAGENET_STD)[:, None, None]
    return torch.where(standardised[:, None, None, None], images * std + mean, images).clamp_(0, 1)


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
