"""What can be measured of a mask, one number per image or pair; pure functions without a threshold.

Where a measure has no meaning (the share of an empty mask, the coverage of an image without an object) the
answer is NaN, and nothing else is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.arguments import check_count, check_number
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.io.opencv import cv2
from sgdmix_albu.mixing.agreement import check_masks, check_pair, held_share
from sgdmix_albu.tensors import FLOATS, check_tensor


def area(masks: Tensor) -> Tensor:
    """Share of each image that its mask covers: (B, H, W) bool to (B,) float32.

    Example:
        >>> import torch
        >>> area(torch.tensor([[[True, False]]]))
        tensor([0.5000])
    """
    check_masks(masks)
    return held_share(masks, torch.ones_like(masks))


def coverage(masks: Tensor, truth: Tensor) -> Tensor:
    """Share of the true object that the mask holds, |M and FG| / |FG|.

    Args:
        masks: (B, H, W) bool.
        truth: (B, H, W) bool, the true foregrounds.

    Returns:
        (B,) float32 in [0, 1]; NaN where there is no object.

    Example:
        >>> import torch
        >>> coverage(torch.tensor([[[True, False]]]), torch.tensor([[[True, True]]]))
        tensor([0.5000])
    """
    return held_share(masks, truth)


def spill(masks: Tensor, truth: Tensor) -> Tensor:
    """Share of the true background that the mask holds, |M and not FG| / |not FG|; arguments as above.

    Example:
        >>> import torch
        >>> spill(torch.tensor([[[True, False]]]), torch.tensor([[[True, False]]]))
        tensor([0.])
    """
    check_masks(truth)
    return held_share(masks, ~truth)


def leak(covered: Tensor, target_truth: Tensor) -> Tensor:
    """Share of the target's true object that shows in the mix, |not M and FG_target| / |FG_target|.

    Args:
        covered: (B, H, W) bool M, where nothing of the target's picture shows: the union masks; where targets are
            painted over, the sources' own masks and the holes.
        target_truth: (B, H, W) bool, the true foreground of each pair's target.

    Returns:
        (B,) float32 in [0, 1]; NaN where the target has no object.

    Example:
        >>> import torch
        >>> leak(torch.tensor([[[True, False]]]), torch.tensor([[[True, True]]]))
        tensor([0.5000])
    """
    check_masks(covered)
    return held_share(~covered, target_truth)


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of two (B, H, W) bool masks: (B,) float32, NaN where both are empty.

    Example:
        >>> import torch
        >>> overlap(torch.tensor([[[True, True]]]), torch.tensor([[[True, False]]]))
        tensor([0.5000])
    """
    check_pair(first, second)
    return held_share(first & second, first | second)


def void_share(source: Tensor, target: Tensor) -> Tensor:
    """Share of the union mask that only the target's mask holds, |M_j and not M_i| / |M_i or M_j|.

    There the mix shows the source's own background in the shape of the target's object: a hole in the new
    background, or a halo round the source.

    Args:
        source: (B, H, W) bool foreground masks M_i.
        target: (B, H, W) bool foreground masks M_j.

    Returns:
        (B,) float32 in [0, 1]; NaN where both are empty.

    Example:
        >>> import torch
        >>> void_share(torch.tensor([[[True, False]]]), torch.tensor([[[True, True]]]))
        tensor([0.5000])
    """
    check_pair(source, target)
    return held_share(~source, source | target)


def largest_piece_share(masks: Tensor) -> Tensor:
    """Share of each mask's area that its largest 8-connected piece holds.

    Returns:
        (B,) float32 in (0, 1]; NaN where the mask is empty.

    Example:
        >>> import torch
        >>> largest_piece_share(torch.tensor([[[True, False, True, True]]]))
        tensor([0.6667])
    """
    check_masks(masks)
    return torch.tensor([_largest(mask) for mask in masks.cpu().numpy()], dtype=torch.float32)


def border_share(masks: Tensor, margin: float = 0.1) -> Tensor:
    """Share of each mask's area that lies in a margin along the image's border.

    Args:
        masks: (B, H, W) bool.
        margin: Width of the margin in parts of the side, in (0, 0.5]. At 0.1 it is 36% of the image, which
            is what a mask without any preference has there.

    Returns:
        (B,) float32 in [0, 1]; NaN where the mask is empty.

    Raises:
        InvalidInputError: ``margin`` is out of range.

    Example:
        >>> import torch
        >>> border_share(torch.ones(1, 10, 10, dtype=torch.bool))
        tensor([0.3600])
    """
    check_number("margin", margin, "must lie in (0, 0.5]", low=0, high=0.5, open_low=True)
    check_masks(masks)
    margin = float(margin)
    height, width = masks.shape[-2:]
    ring = torch.ones(height, width, dtype=torch.bool, device=masks.device)
    rows, columns = max(1, round(margin * height)), max(1, round(margin * width))
    ring[rows : height - rows, columns : width - columns] = False
    return held_share(ring.expand_as(masks), masks)


def corner_share(maps: Tensor, side: float = 0.25) -> Tensor:
    """Share of each map's total saliency that lies in the heaviest of the four corners.

    Args:
        maps: (B, h, w) float, not negative.
        side: Side of a corner in parts of the image's side, in (0, 0.5]. At 0.25 a corner is 6.25% of the
            image, which is the share that a map without any preference has there.

    Returns:
        (B,) float32 in [0, 1]; NaN where the map is zero everywhere.

    Raises:
        InvalidInputError: ``side`` is out of range.

    Example:
        >>> import torch
        >>> corner_share(torch.ones(1, 8, 8))
        tensor([0.0625])
    """
    check_number("side", side, "must lie in (0, 0.5]", low=0, high=0.5, open_low=True)
    _check_maps(maps)
    side = float(side)
    height, width = maps.shape[-2:]
    rows, columns = max(1, round(side * height)), max(1, round(side * width))
    corners = [
        maps[:, vertical, horizontal].flatten(1).sum(1)
        for vertical in (slice(rows), slice(height - rows, None))
        for horizontal in (slice(columns), slice(width - columns, None))
    ]
    return torch.stack(corners).amax(0).float() / maps.flatten(1).sum(1).float()


def mass_outside(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of each map's total that lies outside the mask.

    Args:
        maps: (B, H, W) float, not negative.
        masks: (B, H, W) bool.

    Returns:
        (B,) float32 in [0, 1]; NaN where the map is zero everywhere.

    Example:
        >>> import torch
        >>> mass_outside(torch.tensor([[[0.2, 0.6]]]), torch.tensor([[[True, False]]]))
        tensor([0.7500])
    """
    check_masks(masks)
    check_tensor(maps, f"{tuple(masks.shape)} float maps", tuple(masks.shape), FLOATS)
    return (maps * ~masks).flatten(1).sum(1).float() / maps.flatten(1).sum(1).float()


def shared_spot_share(maps: Tensor, *, cells: int = 8, bright: float = 2.0, shared: float = 0.55) -> Tensor:
    """Share of each map's saliency on a spot away from the middle that is bright in most of the maps.

    Objects lie in different places, and mostly in the middle; a watermark or a caption lies in the same place in
    image after image, and takes too little of each map to be seen there. The spot is the cell of a
    ``cells`` x ``cells`` grid, outside the central half, that is bright in the most maps.

    Args:
        maps: (B, h, w) float, not negative; the more images, the surer.
        cells: Cells along each side; a multiple of four.
        bright: A cell is bright above so many times the map's mean.
        shared: There is a spot when more than this share of the maps is bright there. With spectral residual at most
            0.28 on photographs without watermarks (CUB, ECSSD), 0.43 on drawn birds, 0.36 with true masks as
            maps; 0.70 to 0.93 with a word in the lower right corner of the same photographs.

    Returns:
        (B,) float32 in [0, 1]; NaN where there is no spot, or where the map is zero everywhere.

    Example:
        >>> import torch
        >>> maps = torch.ones(5, 16, 16)
        >>> maps[:, 14:, 14:] = 5
        >>> shared_spot_share(maps)[0]
        tensor(0.0735)
    """
    check_count("cells", cells, "must be a multiple of four from 4 to 1024", least=4, most=1024)
    if cells % 4:
        raise InvalidInputError(f"cells must be a multiple of four from 4 to 1024, got {cells}")
    check_number("bright", bright, "must be 0 or more", low=0, high=math.inf)
    check_number("shared", shared, "must lie in [0, 1]", low=0, high=1)
    _check_maps(maps)
    if not len(maps):
        return maps.new_zeros(0)
    cells = int(cells)
    grids = F.adaptive_avg_pool2d(maps[:, None].float(), cells)[:, 0]
    shares = grids / grids.sum((1, 2), keepdim=True)
    common = (shares > float(bright) / cells**2).float().mean(0)
    common[cells // 4 : -(cells // 4), cells // 4 : -(cells // 4)] = 0
    spot = int(common.argmax())
    if common.max() <= float(shared):
        return torch.full((len(maps),), torch.nan, device=maps.device)
    return shares.flatten(1)[:, spot]


def _check_maps(maps: Any) -> None:
    check_tensor(maps, "(B, h, w) float maps", (-1, None, None), FLOATS)


def _largest(mask: np.ndarray) -> float:
    total = int(mask.sum())
    if not total:
        return float("nan")
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return float(stats[1:, cv2.CC_STAT_AREA].max() / total)
