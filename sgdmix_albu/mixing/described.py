"""Stage 3: the mask of each image, and what else selection needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgdmix_albu.arguments import said
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.bits import areas
from sgdmix_albu.mixing.colour import check_finite
from sgdmix_albu.mixing.labels import class_ids
from sgdmix_albu.mixing.masks import MaskPreset, check_range, otsu, working_maps
from sgdmix_albu.tensors import BYTES, FLOATS, PIXELS, check_tensor, sent


@dataclass(frozen=True)
class Described:
    """What selection needs to know of N images.

    Attributes:
        maps: (N, h, w) float32 saliency at working resolution.
        masks: (N, H, W) bool foreground masks.
        thresholds: (N,) float32.
        areas: (N,) int32, pixels in each mask.
        flat: (N,) bool, the saliency map is constant at 8 bits.
        labels: (N,) int64, or None where no class constraint needs them.
        sums: (N,) int64 of :func:`sgdmix_albu.mixing.bits.bit_sums`, or None if not computed yet.
    """

    maps: Tensor
    masks: Tensor
    thresholds: Tensor
    areas: Tensor
    flat: Tensor
    labels: Tensor | None = None
    sums: Tensor | None = None

    def row(self, i: int) -> Described:
        """The i-th image alone, copied, N = 1."""
        alone: Iterator[Any] = (None if value is None else value[i : i + 1].clone() for value in vars(self).values())
        return Described(*alone)

    def followed_by(self, *others: Described) -> Described:
        """These rows, then the others'."""
        columns = zip(*(vars(part).values() for part in (self, *others)), strict=True)
        joined: Iterator[Any] = (None if column[0] is None else torch.cat(column) for column in columns)
        return Described(*joined)


def describe(maps: Tensor, images: Tensor, mask: MaskPreset, labels: Tensor | None = None) -> Described:
    """Compute the mask of each image, and what else selection needs (stage 3).

    Args:
        maps: (B, h, w) float in [0, 1], or uint8, where 255 is 1; h and w may be smaller than H and W.
        images: (B, C, H, W), uint8 or float.
        mask: A preset from :func:`sgdmix_albu.masks.get_mask`.
        labels: Carried along for class constraints, as :func:`sgdmix_albu.mixing.labels.class_ids` reads them.

    Raises:
        InvalidInputError: The maps do not fit the images, an image holds NaN or infinite pixels, the preset broke
            its contract, or labels do not give one class per image.
    """
    check_batch(images, maps)
    check_finite(images)
    if not callable(mask):
        raise InvalidInputError(f"expected a mask preset from get_mask(), got {said(mask)}")
    maps = maps.detach()
    maps = maps if maps.dtype == torch.uint8 else maps.float()
    # Presets are promised floats; the one that needs none reads bytes as they are.
    found: Any = mask(maps.float() / 255 if maps.dtype == torch.uint8 and mask is not otsu else maps, images)
    if not isinstance(found, tuple) or len(found) != 2 or not all(isinstance(part, Tensor) for part in found):
        raise InvalidInputError(
            f"the mask preset must return bool masks and thresholds, as masks.Foreground, got {type(found).__name__}"
        )
    masks, thresholds = found
    if masks.dtype != torch.bool or masks.shape != images.shape[:1] + images.shape[-2:]:
        raise InvalidInputError(
            f"the mask preset must return bool masks {(len(images), *images.shape[-2:])}, "
            f"got {masks.dtype} {tuple(masks.shape)}"
        )
    working = working_maps(maps)
    check_range(working)
    low, high = torch.aminmax(working.flatten(1), dim=1)
    return Described(
        maps=working,
        masks=masks,
        thresholds=thresholds,
        areas=areas(masks),
        flat=high - low < 0.5 / 255,
        labels=None if labels is None else sent(class_ids(labels, len(images)), maps.device),
    )


def check_batch(images: Any, maps: Any) -> None:
    """Refuse what are no images, or maps of other ones."""
    check_tensor(images, "(B, C, H, W) images", (-1, None, None, None), PIXELS)
    check_tensor(maps, f"({len(images)}, h, w) float saliency maps", (len(images), None, None), FLOATS | BYTES)
