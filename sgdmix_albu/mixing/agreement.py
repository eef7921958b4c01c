"""Which masks can be doubted without true ones: a better backend looks at the same image.

A worse one cannot judge: on ECSSD photographs ``spectral_residual`` finds the faults of ``manifold_ranking`` no better
than chance does. What the better one sees and the mask does not hold is lost where the image is a source, and shows
beside another's object where it is a target.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.tensors import BOOL, check_tensor

_RIM = 75  # parts of the shorter side; 3 pixels of 224: outlines of two backends differ by as much


def held_share(masks: Tensor, objects: Tensor) -> Tensor:
    """Share of each object that a mask holds, |M and O| / |O|.

    With the better backend's masks as objects this is the agreement of the two. It is directed: what a mask keeps
    beside the object takes room from the new background, but changes no label. On photographs with true masks it
    finds incomplete masks better than intersection over union does.

    Args:
        masks: (B, H, W) bool.
        objects: (B, H, W) bool, true masks or another backend's.

    Returns:
        (B,) float32 in [0, 1]; NaN where there is no object.

    Raises:
        InvalidInputError: Other shapes, or no bool tensors.

    Example:
        >>> import torch
        >>> held_share(torch.tensor([[[True, False]]]), torch.tensor([[[True, True]]]))
        tensor([0.5000])
    """
    check_pair(masks, objects)
    return (masks & objects).flatten(1).sum(1).float() / objects.flatten(1).sum(1).float()


def solid_share(parts: Tensor, objects: Tensor) -> Tensor:
    """Share of each object that lies in the solid pieces of a part of it: its rims do not count.

    Args:
        parts: (B, H, W) bool, as what a union mask leaves to be seen.
        objects: (B, H, W) bool.

    Returns:
        (B,) float32 in [0, 1]; NaN where there is no object.

    Raises:
        InvalidInputError: Other shapes, or no bool tensors.

    Example:
        >>> import torch
        >>> square = torch.zeros(1, 9, 9, dtype=torch.bool)
        >>> square[:, 2:7, 2:7] = True
        >>> rim = square.clone()
        >>> rim[:, 3:7] = False
        >>> solid_share(square, square), solid_share(rim, square)
        (tensor([1.]), tensor([0.]))
    """
    check_pair(parts, objects)
    return held_share(solid(parts & objects), objects)


def solid(masks: Tensor) -> Tensor:
    """(B, H, W) bool masks without what is thinner than a hundredth or so of the image: opened by a square."""
    check_masks(masks)
    rim = max(1, round(min(masks.shape[-2:]) / _RIM))
    side = 2 * rim + 1
    if not masks.numel():
        return masks
    # Outside the image is no object: what only its border cuts off must be thick by itself.
    padded = F.pad((~masks)[:, None].float(), (rim,) * 4, value=1.0)
    cores = 1 - F.max_pool2d(padded, side, stride=1)
    return F.max_pool2d(cores, side, stride=1, padding=rim)[:, 0] > 0


def check_pair(one: Any, other: Any) -> None:
    """Refuse all but two bool masks of one shape (B, H, W)."""
    for masks in (one, other):
        check_masks(masks)
    if one.shape != other.shape:
        raise InvalidInputError(
            f"expected two bool masks of one shape (B, H, W), got {tuple(one.shape)} and {tuple(other.shape)}"
        )


def check_masks(masks: Any) -> None:
    """Refuse all but (B, H, W) bool masks."""
    check_tensor(masks, "(B, H, W) bool masks", (-1, -1, -1), BOOL)
