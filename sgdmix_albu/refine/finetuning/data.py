"""The training images: a class-per-folder tree, or any map-style data set with classes and targets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.images import list_images, read_image

__all__ = ["TrainingImages"]


class TrainingImages:
    """Square uint8 images with labels.

    Args:
        data: A folder with one folder of images per class; or a map-style data set that gives (PIL image or uint8
            tensor (3, H, W), label) and has ``classes`` and ``targets``, as torchvision's and this package's have.
        resolution: Side in pixels: the shorter side is brought to it, the middle is taken.

    Attributes:
        classes: Class names in the order of their labels.
        labels: (N,) int64.

    Raises:
        DataError: No such folder, no images.
        InvalidInputError: Neither a folder nor such a data set.
    """

    def __init__(self, data: str | os.PathLike[str] | Any, resolution: int) -> None:
        self.resolution = resolution
        self._entries, self._dataset = None, None
        targets: Sequence[int]
        if isinstance(data, str | os.PathLike):
            self._entries = list_images(data)
            names = {entry.label: entry.class_name for entry in self._entries}
            # A class folder without images keeps its number, as it does in torchvision's ImageFolder.
            self.classes = tuple(names.get(label, f"class {label}, without images") for label in range(max(names) + 1))
            targets = [entry.label for entry in self._entries]
        elif hasattr(data, "classes") and hasattr(data, "targets") and hasattr(data, "__getitem__"):
            self._dataset = data
            self.classes, targets = tuple(map(str, data.classes)), [int(label) for label in data.targets]
        else:
            raise InvalidInputError(
                f"expected a folder, or a data set with classes and targets, got {type(data).__name__}"
            )
        if not targets:
            raise DataError("the data set to fine-tune on is empty")
        self.labels = torch.tensor(targets)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> Tensor:
        """(3, R, R) uint8."""
        if self._entries is not None:
            image: Any = read_image(self._entries[row].path)
        else:
            assert self._dataset is not None
            image = self._dataset[row][0]
        if isinstance(image, Tensor):
            if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
                raise InvalidInputError(
                    f"expected PIL images or (3, H, W) uint8 tensors, image {row} is {image.dtype} {tuple(image.shape)}"
                )
            image = Image.fromarray(image.permute(1, 2, 0).numpy())
        if not isinstance(image, Image.Image):
            raise InvalidInputError(f"expected PIL images or uint8 tensors, image {row} is {type(image).__name__}")
        square = ImageOps.fit(image.convert("RGB"), (self.resolution, self.resolution), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(square)).permute(2, 0, 1)
