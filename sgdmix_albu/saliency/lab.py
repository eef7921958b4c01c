"""CIE Lab: colours in which distances are about as large as they look."""

from __future__ import annotations

import torch
from torch import Tensor

from sgdmix_albu.mixing.colour import constants

_XYZ = (0.412453, 0.357580, 0.180423, 0.212671, 0.715160, 0.072169, 0.019334, 0.119193, 0.950227)


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
    to_xyz = constants(_XYZ, images.device, images.dtype).view(3, 3)
    white = to_xyz.sum(1, keepdim=True)
    xyz = torch.einsum("ij,bjhw->bihw", to_xyz / white, linear)
    bent = torch.where(xyz > 0.008856, xyz.clamp_min(0.008856) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = bent.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)
