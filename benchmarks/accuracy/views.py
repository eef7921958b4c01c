"""The usual augmentation, of a whole batch at once: ``RandomResizedCrop`` and a flip, masks and maps cropped along."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_TRIES = 10  # as torchvision


def views(batch: int, crop: str = "resized") -> Tensor:
    """(B, 2, 3) affine matrices of random crops and flips, for :func:`seen`; drawn on the CPU, alike for all devices.

    Args:
        batch: B.
        crop: "resized": torchvision's ``RandomResizedCrop(scale=(0.5, 1))``. "plain": a square of 8/9 of the image's
            side, anywhere.
    """
    if crop == "plain":
        width = height = torch.full((batch,), 8 / 9)
    else:
        area = torch.empty(_TRIES, batch).uniform_(0.5, 1.0)
        ratio = torch.empty(_TRIES, batch).uniform_(math.log(3 / 4), math.log(4 / 3)).exp()
        widths, heights = (area * ratio).sqrt(), (area / ratio).sqrt()
        first = ((widths <= 1) & (heights <= 1)).to(torch.uint8).argmax(0)
        each = torch.arange(batch)
        width, height = widths[first, each].clamp(max=1), heights[first, each].clamp(max=1)
    left, top = torch.rand(batch) * (1 - width), torch.rand(batch) * (1 - height)
    flip = torch.where(torch.rand(batch) < 0.5, -1.0, 1.0)
    affine = torch.zeros(batch, 2, 3)
    affine[:, 0, 0], affine[:, 0, 2] = width * flip, 2 * left + width - 1
    affine[:, 1, 1], affine[:, 1, 2] = height, 2 * top + height - 1
    return affine


def seen(values: Tensor, affine: Tensor, size: int) -> Tensor:
    """(B, C, K, K) of any dtype through the views, (B, C, size, size) float."""
    grid = F.affine_grid(affine.to(values.device), [len(values), 1, size, size], align_corners=False)
    return F.grid_sample(values.float(), grid, padding_mode="border", align_corners=False)
