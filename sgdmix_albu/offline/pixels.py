"""From an item to a tensor of pixels and back to an image."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sgdmix_albu.offline.source import Item

__all__ = ["load_pixels", "resized", "to_image", "to_pixels"]


def load_pixels(item: Item, size: int | None) -> Tensor:
    """(3, H, W) uint8 pixels of an item, brought to size x size where a size is given.

    Raises:
        DataError: The image cannot be read.
    """
    image = item.read()
    return to_pixels(image if size is None else resized(image, (size, size)))


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An image brought to ``size`` = (width, height), without regard to its shape."""
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def to_pixels(image: Image.Image) -> Tensor:
    """An RGB image as (3, H, W) uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def to_image(pixels: Tensor) -> Image.Image:
    """(3, H, W) uint8 as an RGB image."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
