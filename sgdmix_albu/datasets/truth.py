"""True masks beside images: where each object is, to the pixel."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from sgdmix_albu.errors import DataError
from sgdmix_albu.io.images import read_image

# A mask may have another resolution than its image, but not another shape: 2% allows for rounding.
_ASPECT_TOLERANCE = 0.02


class TrueMasks(Protocol):
    """Where true masks are: a :class:`MaskFolder`, or what draws them with the images."""

    def mask(self, key: str, size: tuple[int, int]) -> Image.Image:
        """An image's true mask, object light, background dark.

        Args:
            key: The image's name.
            size: The image's width and height.

        Raises:
            DataError: It cannot be read, or has another shape than its image.
        """
        ...


@dataclass(frozen=True)
class MaskFolder:
    """A folder of true masks: for ``owl/1.jpg`` the file ``owl/1.png``.

    Raises:
        DataError: It is not there.
    """

    root: Path

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise DataError(f"expected a folder of true masks, {self.root} does not exist")

    def path(self, key: str) -> Path:
        """Where the mask of an image should be."""
        return (self.root / key).with_suffix(".png")

    def has(self, key: str) -> bool:
        """Whether something lies there; a pipe, or a link to nothing, is a mask that cannot be read."""
        return os.path.lexists(self.path(key))

    def mask(self, key: str, size: tuple[int, int]) -> Image.Image:
        """As :class:`TrueMasks` says."""
        mask, (width, height) = read_image(self.path(key)), size
        if abs(mask.width / mask.height * height / width - 1) > _ASPECT_TOLERANCE:
            raise DataError(
                f"the true mask {self.path(key)} is {mask.width} x {mask.height}, its image {width} x {height}: "
                "expected the same shape"
            )
        return mask
