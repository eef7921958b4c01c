"""Telling class ids from saliency: both are uint8, and one taken for the other turns the mix inside out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.refusals import refuse_if

# Trimaps have 3 classes, PASCAL VOC 21; no saliency that is stretched to [0, 255] stays as dark as that.
_FEW = 32
# Larger ids (ADE20K's 150, COCO-Stuff's 182) are told by being few in an image, unevenly spaced and flat inside.
_LARGEST = 200
_CLASSES = 24
_WHITE = 255
_FLAT = 0.9
_LEAST_PIXELS = 1024
_EVEN = 16


def refuse_class_ids(maps: Sequence[Tensor]) -> None:
    """Refuse uint8 maps that look like semantic class ids, all maps of a call together.

    They do if all values but 0 and 255 (which often stands for "void") are below 32; or if the values are few,
    below 200, unevenly spaced and flat over the map. Masks of 0 and 255, also with levels between in even steps, and
    soft maps are saliency.

    Args:
        maps: Maps (..., h, w) of any dtype; only uint8 ones are looked at.

    Raises:
        InvalidInputError: They look like class ids; with the remedy.

    Example:
        >>> import torch
        >>> refuse_class_ids([torch.tensor([[0, 255, 51]], dtype=torch.uint8)])
        >>> refuse_class_ids([torch.tensor([[1, 2, 3]], dtype=torch.uint8)])
        Traceback (most recent call last):
        ...
        sgdmix_albu.errors.InvalidInputError: given uint8 saliency holds the values 1, 2, 3, which look like class ...
    """
    maps = [one for one in maps if one.dtype == torch.uint8 and one.numel()]
    if not maps:
        return
    # Two quick looks: nothing but 0 and 255 is a mask, and levels from 200 to 254 are saliency's. Bytes wrap around.
    between = torch.stack([(one - 1).amin() < _WHITE - 1 for one in maps]).any()
    bright = torch.stack([(one - _LARGEST).amin() < _WHITE - _LARGEST for one in maps]).any()
    refuse_if(between & ~bright, lambda: _class_ids(maps))


def _class_ids(maps: Sequence[Tensor]) -> InvalidInputError | None:
    present: set[int] = set()
    for one in maps:
        present.update(torch.bincount(one.flatten(), minlength=_WHITE + 1).nonzero()[:, 0].tolist())
    between = sorted(present - {0, _WHITE})
    if not between or not (between[-1] < _FEW or _few_classes(between, maps)):
        return None
    shown = ", ".join(map(str, sorted(present)[:8])) + (", ..." if len(present) > 8 else "")
    return InvalidInputError(
        f"given uint8 saliency holds the values {shown}, which look like class ids; as saliency, 255 is 1 and "
        f"{between[0]} is {between[0] / _WHITE:.3f}. Mark the object by a bool mask (mask == its class), or "
        "pass saliency as floats in [0, 1]"
    )


def _few_classes(between: list[int], maps: Sequence[Tensor]) -> bool:
    if not (2 <= len(between) <= _CLASSES and between[-1] < _LARGEST) or _evenly_spaced(between):
        return False
    equal = [(one[..., 1:] == one[..., :-1]).float() for one in maps]
    pixels = sum(one.numel() for one in equal)
    return pixels >= _LEAST_PIXELS and sum(float(one.sum()) for one in equal) >= _FLAT * pixels


def _evenly_spaced(between: list[int]) -> bool:
    """Levels as quantising makes them: multiples of one step, or of 255 / k up to rounding."""
    return math.gcd(*between) >= _EVEN or any(
        all(abs(value * steps / 255 - round(value * steps / 255)) * 255 <= steps for value in between)
        for steps in range(2, 255 // _EVEN)
    )
