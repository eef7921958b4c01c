"""Keeping the label: lower strength on the object ("soft"), its pixels put back ("strict"), its prompt there alone."""

from __future__ import annotations

from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.arguments import check_choice
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.types import Preserve

__all__ = ["composite", "mask_core", "strength_map"]

INNER = 1 / 3  # share of the strength that the object itself is given


def check_preserve(preserve: str, masks: Tensor | None) -> None:
    """Refuse a mode that is not there, or that lacks its masks."""
    check_choice("preserve", preserve, get_args(Preserve))
    if preserve != "none" and masks is None:
        raise InvalidInputError(f"preserve={preserve!r} needs masks, the union masks (B, H, W)")


def strength_map(masks: Tensor, strengths: Tensor, size: tuple[int, int]) -> Tensor:
    """Strength of every latent: the image's own on the background, a third of it on the object and next to it.

    Next to it, because a model that is free to draw right up to the outline adds crests and bills of its own.

    Args:
        masks: (B, H, W) bool, True where the source is kept.
        strengths: (B,) in (0, 1].
        size: Height and width of the latents, h and w.

    Returns:
        (B, h, w) float; a latent that the mask covers in part lies in between, and each counts as covered as the
        most covered of the nine around it.

    Example:
        >>> mask = torch.tensor([[[True, False, False, False]]])
        >>> strength_map(mask, torch.tensor([0.9]), (1, 4)).mul(10).round().tolist()
        [[[3.0, 3.0, 9.0, 9.0]]]
    """
    covered = _covered(masks, size)
    return strengths.to(covered)[:, None, None] * (1 - (1 - INNER) * covered)


def hole_shares(holes: Tensor, masks: Tensor | None, size: tuple[int, int]) -> Tensor:
    """How much of every latent is a hole that the model is to fill; nothing on the object and next to it.

    Args:
        holes: (B, H, W) bool, True where the image shows nothing but paint.
        masks: (B, H, W) bool, True where the source is kept; None where it is not protected.
        size: Height and width of the latents, h and w.

    Returns:
        (B, h, w) float in [0, 1].

    Example:
        >>> hole = torch.tensor([[[False, False, True, True, True, False]]])
        >>> mask = torch.tensor([[[True, False, False, False, False, False]]])
        >>> hole_shares(hole, mask, (1, 3)).tolist()
        [[[0.0, 0.5, 0.5]]]
    """
    shares = F.interpolate(holes[:, None].float(), size=size, mode="area")[:, 0]
    return shares if masks is None else shares * off_object(masks, size)


def off_object(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """How much of every latent lies neither on the object nor next to it.

    Args:
        masks: (B, H, W) bool, True where the source is kept.
        size: Height and width of the latents, h and w.

    Returns:
        (B, h, w) float in [0, 1].

    Example:
        >>> off_object(torch.tensor([[[True, False, False, False, False, False]]]), (1, 3)).tolist()
        [[[0.5, 0.5, 1.0]]]
    """
    return 1 - _covered(masks, size)


def mask_core(masks: Tensor, band: int) -> Tensor:
    """The pixels (B, H, W) that lie at least ``band`` pixels inside the mask; the image's border is no edge.

    Example:
        >>> mask_core(torch.tensor([[[False, True, True, True, False]]]), band=1).tolist()
        [[[False, False, True, False, False]]]
    """
    return _depth(masks, band) > band


def composite(refined: Tensor, mixed: Tensor, masks: Tensor, *, band: int | None = None) -> Tensor:
    """Put the mixed image's pixels back inside the mask: exact in its core, fading over a band at its edge.

    Inside the union mask the mixed image is the source, so the core shows the source's own pixels.

    Args:
        refined: (B, C, H, W), uint8 or float.
        mixed: The same shape and dtype.
        masks: (B, H, W) bool, the union masks.
        band: Width in pixels of the fade inside the mask, 0 for none; None for a fiftieth of the shorter side.

    Returns:
        Same shape and dtype. Pixels in :func:`mask_core` equal ``mixed`` bit by bit, those outside the mask
        ``refined``.
    """
    width = max(1, round(min(mixed.shape[-2:]) / 50)) if band is None else band
    depth = _depth(masks, width)[:, None]
    share = depth / (width + 1)
    faded = share * mixed.float() + (1 - share) * refined.float()
    faded = faded if mixed.dtype.is_floating_point else faded.round()
    return torch.where(depth > width, mixed, faded.to(mixed.dtype))


def _covered(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """How much of every latent (B, h, w) the mask covers, or of the most covered of its neighbours."""
    covered = F.interpolate(masks[:, None].float(), size=size, mode="area")
    return F.max_pool2d(covered, 3, stride=1, padding=1)[:, 0]


def _depth(masks: Tensor, most: int) -> Tensor:
    """How many pixels (B, H, W) float a pixel lies inside the mask, its own counted, ``most`` + 1 at the most.

    The mask is shrunk by one pixel at a time, which costs ``most`` small windows; one window for each depth would
    cost their areas, side^4 for a band that grows with the image.
    """
    outside = (~masks)[:, None].float()
    depth = 1 - outside
    for _ in range(most):
        outside = F.max_pool2d(outside, 3, stride=1, padding=1)
        depth += 1 - outside
    return depth[:, 0]
