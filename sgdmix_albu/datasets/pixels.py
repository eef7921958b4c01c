"""From an item to a tensor of pixels and back to an image."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sgdmix_albu.datasets.source import Item
from sgdmix_albu.errors import DataError
from sgdmix_albu.io.images import decode_image


class Loaded(NamedTuple):
    """An image: (3, H, W) uint8 pixels, and the SHA-256 of the file that they were read from."""

    pixels: Tensor
    sha256: bytes


def load_image(item: Item) -> tuple[Image.Image, bytes]:
    """An item's image, upright RGB, and the SHA-256 of its file.

    Raises:
        DataError: The image cannot be read, or its file is another than the one that was planned with.
    """
    content = item.reader.read(item.key)
    digest = hashlib.sha256(content)
    if item.sha256 is not None and digest.hexdigest() != item.sha256:
        raise DataError(f"{item.key} changed after the plan was made")
    return decode_image(content, item.reader.path(item.key)), digest.digest()


def load_pixels(item: Item, size: int | None) -> Loaded:
    """An item's pixels, brought to size x size where a size is given; errors as of :func:`load_image`."""
    image, sha256 = load_image(item)
    return Loaded(to_pixels(image if size is None else resized(image, (size, size))), sha256)


def load_again(item: Item, sha256: bytes, size: int | None) -> Tensor:
    """(3, H, W) uint8 pixels of an image that was read before.

    Raises:
        DataError: It cannot be read any more, or its file is another.
    """
    loaded = load_pixels(item, size)
    if loaded.sha256 != sha256:
        raise DataError(f"{item.key} changed while it was in use: its mask is not this picture's")
    return loaded.pixels


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An image brought to ``size`` = (width, height), without regard to its shape."""
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def to_pixels(image: Image.Image) -> Tensor:
    """An RGB image as (3, H, W) uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def to_image(pixels: Tensor) -> Image.Image:
    """(3, H, W) uint8 as an RGB image."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
