"""Saliency that travels with the sample: computed once, carried through crops and flips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data._utils.collate import collate as _torch_collate
from torch.utils.data._utils.collate import collate_tensor_fn, default_collate_fn_map
from torchvision import tv_tensors

from sgdmix_albu.arguments import check_sequence
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.refusals import refuse_if
from sgdmix_albu.saliency.levels import refuse_class_ids
from sgdmix_albu.tensors import PIXELS, check_tensor

_ROUNDING = 1e-4  # by which interpolation may step over the ends of [0, 1]


class SaliencyMap(tv_tensors.Mask):  # type: ignore[misc]  # torchvision ships no types
    """A saliency map or foreground mask that belongs to an image, (..., H, W).

    Bool, uint8 in [0, 255] or float in [0, 1]. Torchvision's v2 transforms treat it as a mask: crops, flips,
    resizing and rotation move it with the image, colour transforms leave it alone, and it stays a
    ``SaliencyMap``. ``SGDMix(saliency="given")`` finds it in the sample.

    torch's ``default_collate`` returns plain tensors; give the loader :func:`collate` instead.

    Example:
        >>> import torch
        >>> from torchvision.transforms import v2
        >>> cut = v2.CenterCrop(4)(SaliencyMap(torch.rand(8, 8)))
        >>> type(cut).__name__, tuple(cut.shape)
        ('SaliencyMap', (4, 4))
    """


def given_maps(maps: Tensor, images_shape: Sequence[int]) -> Tensor:
    """Maps or masks as a user has them, as the maps that mixing works on.

    Class ids are refused, see :func:`sgdmix_albu.saliency.levels.refuse_class_ids`. All else as :func:`scaled_maps`,
    but bool and uint8 are uint8 then, where 255 is 1: a quarter of the memory to go through.

    Example:
        >>> import torch
        >>> given_maps(torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8), (1, 3, 10, 30))
        tensor([[[  0, 255,  51]]], dtype=torch.uint8)
    """
    check_tensor(maps, "given saliency of bool, uint8 or float", (), PIXELS, more=True)
    refuse_class_ids([maps])
    if maps.dtype in (torch.bool, torch.uint8):
        return _of_images(maps, images_shape).to(torch.uint8) * (255 if maps.dtype == torch.bool else 1)
    return scaled_maps(maps, images_shape)


def scaled_maps(maps: Tensor, images_shape: Sequence[int]) -> Tensor:
    """Maps or masks as a user has them as floats; class ids were refused before.

    Values are taken as they are, not stretched: a mask of 0 and 1 stays one, and a map's own scale is kept.

    Args:
        maps: (B, h, w) or (B, 1, h, w): bool; uint8, where 255 is 1 (so a mask of 0 and 1 must be bool or
            float); or float in [0, 1]. Any resolution: it is stretched over the image.
        images_shape: Shape of the images that the maps belong to, (B, C, H, W).

    Returns:
        (B, h, w) float32 in [0, 1], a plain tensor on the maps' device.

    Raises:
        InvalidInputError: Another dtype or shape, another batch size, or values outside [0, 1].
    """
    maps = _of_images(maps, images_shape)
    if maps.dtype == torch.bool:
        return maps.to(torch.float32)
    if maps.dtype == torch.uint8:
        return maps.to(torch.float32) / 255
    if not maps.dtype.is_floating_point:
        raise InvalidInputError(
            f"expected given saliency as bool, uint8 or float, got {maps.dtype}: turn class ids into a bool "
            "mask (mask == its class), saliency into floats in [0, 1]"
        )
    maps = maps.to(torch.float32)
    if maps.numel():
        low, high = torch.aminmax(maps)
        refuse_if(
            ~((low >= -_ROUNDING) & (high <= 1 + _ROUNDING)),  # written so that NaN fails too
            lambda: InvalidInputError(
                f"expected given saliency in [0, 1], got values from {float(low):g} to {float(high):g}"
            ),
        )
    return maps.clamp(0, 1)


def _of_images(maps: Tensor, images_shape: Sequence[int]) -> Tensor:
    """(B, h, w), a plain tensor, once it is known that there is a map for each image."""
    fits = maps.ndim == 3 or (maps.ndim == 4 and maps.shape[1] == 1)
    if not fits or maps.shape[0] != images_shape[0] or (maps.shape[0] and 0 in maps.shape):
        raise InvalidInputError(
            f"expected given saliency of shape ({images_shape[0]}, h, w) or ({images_shape[0]}, 1, h, w) for "
            f"images of shape {tuple(images_shape)}, got shape {tuple(maps.shape)}"
        )
    return maps.detach().as_subclass(Tensor).reshape(maps.shape[0], *maps.shape[-2:])


def collate(batch: list[Any]) -> Any:
    """The ``default_collate`` of torch, except that images, masks and saliency maps keep their tv_tensor type.

    Args:
        batch: The samples, as a ``DataLoader`` hands them to its ``collate_fn``.

    Raises:
        InvalidInputError: There are no samples, or they cannot be stacked; with torch's message.

    Returns:
        The samples stacked: for (image, SaliencyMap, label) samples, (images, SaliencyMap, labels).

    Example:
        >>> import torch
        >>> samples = [(torch.zeros(3, 4, 4), SaliencyMap(torch.zeros(4, 4)), 7)] * 2
        >>> [(type(part).__name__, tuple(part.shape)) for part in collate(samples)]
        [('Tensor', (2, 3, 4, 4)), ('SaliencyMap', (2, 4, 4)), ('Tensor', (2,))]
    """
    check_sequence(batch, "a list of samples")
    if not batch:
        raise InvalidInputError("expected samples to stack, got none")
    try:
        return _torch_collate(batch, collate_fn_map=_COLLATE)
    except (AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise InvalidInputError(f"samples of {type(batch[0]).__name__} cannot be stacked: {error}") from error


def _stack(batch: list[Tensor], *, collate_fn_map: dict[Any, Any] | None = None) -> Tensor:
    plain = collate_tensor_fn([item.as_subclass(Tensor) for item in batch], collate_fn_map=collate_fn_map)
    wrapped: Tensor = tv_tensors.wrap(plain, like=batch[0])
    return wrapped


# First match wins, so the narrower types come first.
_COLLATE = {(tv_tensors.Image, tv_tensors.Mask): _stack, **default_collate_fn_map}
