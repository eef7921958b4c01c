"""A source and a target into an image, and an image into a file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.datasets.pixels import resized, to_image, to_pixels
from sgdmix_albu.errors import DataError
from sgdmix_albu.mixing.bits import areas
from sgdmix_albu.mixing.composition import compose
from sgdmix_albu.mixing.placement import placements
from sgdmix_albu.mixing.plan import moved, plan_pairs
from sgdmix_albu.settings import MixSettings

# Level 1 is 2.5 times as fast as Pillow's default and gives photographs 5% larger. JPEG keeps full colour
# resolution, since mask edges are sharp in colour too.
_FORMATS: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "png": ("PNG", {"compress_level": 1}),
    "jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
}


class Pair(NamedTuple):
    """A source on a target's background.

    Attributes:
        pixels: (3, H, W) uint8.
        kept: (H, W) bool, where the source is kept.
        hole: (H, W) bool, where paint shows in the place of the target's object; nowhere with ``fill="source"``.
        placement: Scale, dy and dx of the source's object, as in :class:`sgdmix_albu.types.MixPlan`; None if it stays.
    """

    pixels: Tensor
    kept: Tensor
    hole: Tensor
    placement: list[float] | None


def mix_pair(
    source: Tensor,
    target: Tensor,
    own: Tensor,
    other: Tensor,
    *,
    settings: MixSettings,
    placed: Sequence[float] | None = None,
) -> Pair:
    """One source on one target's background; the target, and its mask, are brought to the source's size.

    Args:
        source: (3, H, W) uint8.
        target: (3, h, w) uint8.
        own: (H, W) bool, the source's mask.
        other: (h, w) bool, the target's.
        settings: How to mix: its ``fill``, ``feather`` and ``max_coverage``.
        placed: Three numbers in [0, 1), from which the object's place follows; None where it stays.

    Raises:
        DataError: The target's object leaves nothing to paint from, at the source's size.
    """
    if target.shape != source.shape:
        height, width = source.shape[1:]
        target = to_pixels(resized(to_image(target), (width, height)))
        other = F.interpolate(other[None, None].float(), size=(height, width), mode="nearest-exact")[0, 0] > 0
    plan = plan_pairs(own[None], other[None], settings.fill)
    if plan.holes is not None and bool(plan.holes.all()):
        raise DataError("its target's object fills the image: no background is left to paint from")
    if placed is not None:
        drawn = torch.tensor([placed], dtype=torch.float64)
        plan = moved(plan, placements(own[None], areas(own[None]), areas(other[None]), drawn, settings.max_coverage))
    mixed = compose(plan, source[None], target[None], feather=settings.feather)
    hole = torch.zeros_like(own) if plan.painted is None else plan.painted[0]
    return Pair(mixed[0], plan.masks[0], hole, None if plan.placement is None else plan.placement[0].tolist())


def encoded(pixels: Tensor, suffix: str) -> bytes:
    """(3, H, W) uint8 pixels as a file, by the suffix "png" or "jpg".

    Raises:
        DataError: The format cannot hold them.
    """
    kind, options = _FORMATS[suffix]
    content = io.BytesIO()
    try:
        to_image(pixels).save(content, kind, **options)
    except (OSError, ValueError) as error:  # JPEG knows no more than 65535 pixels a side, for one
        raise DataError(f"its outputs cannot be written as {suffix}: {error}") from error
    return content.getvalue()
