"""The training images: a class-per-folder tree, or any labelled data set; each is read once before training begins."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from sgdmix_albu.datasets.pixels import load_image
from sgdmix_albu.datasets.source import Item, Skipped, open_source
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.io.threads import default_jobs, ordered_map
from sgdmix_albu.refine.finetuning.labelled import Labelled, labelled
from sgdmix_albu.tensors import check_tensor

# The folders of an absolute path: the refiner's card, which others may get, must not tell where its data were.
_FOLDERS = re.compile(r"(?<![\w.])/(?:[^/'\":\n]+/)+|\b[A-Za-z]:\\+(?:[^\\'\":\n]+\\+)+")


class MapsOfFiles(Protocol):
    """Saliency maps that were computed before: a :class:`sgdmix_albu.saliency.SaliencyBank`."""

    def of_file(self, path: str | os.PathLike[str], label: int | None = None) -> Tensor:
        """The map of an image file, (h, w) uint8, which covers the whole image."""
        ...


Saliency: TypeAlias = Callable[[Tensor], Tensor] | MapsOfFiles
"""Images (B, 3, R, R) uint8 to maps (B, h, w) in [0, 1]; or a bank of maps."""


@dataclass(frozen=True)
class Listed:
    """The images to train on, before one is read.

    Attributes:
        source: Classes, labels and images.
        items: The files of a folder; none where the images are a data set's.
        skipped: Files of the folder that are no images of a class, and why.
    """

    source: Labelled
    items: list[Item]
    skipped: list[Skipped]


def listed(data: str | os.PathLike[str] | Any) -> Listed:
    """Find images, labels and classes.

    Args:
        data: A folder with one folder of images per class; or a data set of (PIL image or uint8 tensor (3, H, W),
            label), see :func:`sgdmix_albu.refine.finetuning.labelled.labelled`.

    Raises:
        DataError: No such folder, or no images.
        InvalidInputError: Neither a folder nor such a data set.
    """
    if isinstance(data, str | os.PathLike):
        found = open_source(data)
        items = found.items
        labels = [item.label for item in items]
        source = Labelled(tuple(found.class_names), labels, lambda row: load_image(items[row])[0])
        listing = Listed(source, items, found.skipped)
    else:
        listing = Listed(labelled(data), [], [])
    if not listing.source.labels:
        raise DataError("the data set to fine-tune on is empty")
    return listing


class TrainingImages:
    """Square uint8 images with labels; those that cannot be read are left out.

    Args:
        data: What :func:`listed` found, or takes.
        resolution: Side in pixels: the shorter side is brought to it, the middle is taken.
        progress: Report how far it is.

    Attributes:
        classes: Class names in the order of their labels.
        labels: (N,) int64.
        skipped: Images that cannot be read, and why.
        pixels: SHA-256 of all pixels, in order.

    Raises:
        DataError: No such folder, no images, or a class of which no image can be read.
        InvalidInputError: Neither a folder nor such a data set.
    """

    def __init__(self, data: str | os.PathLike[str] | Any, resolution: int, *, progress: bool = False) -> None:
        self.resolution = resolution
        found = data if isinstance(data, Listed) else listed(data)
        self._items, source = found.items, found.source
        self._source, self.classes = source, source.classes
        self.skipped: list[tuple[str, str]] = []
        self._rows: list[int] = []
        digest = hashlib.sha256(str(resolution).encode())
        rows = range(len(source.labels))
        reading = enumerate(ordered_map(self._tried, rows, self._jobs))
        for row, image in Progress(quiet=not progress).over(reading, "reading", len(rows)):
            if isinstance(image, Exception):
                self.skipped.append(
                    (self._items[row].key if self._items else f"image {row}", _FOLDERS.sub("", str(image)))
                )
                continue
            self._rows.append(row)
            digest.update(image.numpy().tobytes())
        self.pixels = digest.hexdigest()
        self.labels = torch.tensor([source.labels[row] for row in self._rows], dtype=torch.int64)
        lost = sorted(set(source.labels) - set(self.labels.tolist()))
        if lost:
            key, reason = self.skipped[0]
            raise DataError(
                f"no image of class {self.classes[lost[0]]!r} can be read; {len(self.skipped)} image(s) cannot, "
                f"the first is {key}: {reason}"
            )

        self.skipped += found.skipped

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> Tensor:
        """(3, R, R) uint8."""
        return self._read(self._rows[row])

    def batches(self, parts: Iterable[Sequence[int]]) -> Iterator[Tensor]:
        """(b, 3, R, R) uint8 for each of some parts of the rows; the next ones are read while one is worked on."""
        return ordered_map(lambda rows: torch.stack([self[row] for row in rows]), parts, self._jobs)

    def map(self, row: int, bank: MapsOfFiles) -> Tensor:
        """A bank's map of an image, (R, R) uint8, cut out as the image is.

        Raises:
            InvalidInputError: The images are not files of a folder.
            DataError: The bank does not know the image.
        """
        path = self._items[self._rows[row]].file if self._items else None
        if path is None:
            raise InvalidInputError("a saliency bank finds images by their files: expected a folder to fine-tune on")
        found = Image.fromarray(bank.of_file(path, int(self.labels[row])).numpy())
        whole = found.resize(self._source.image(self._rows[row]).size, Image.Resampling.BILINEAR)
        square = ImageOps.fit(whole, (self.resolution, self.resolution), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(square))

    @property
    def _jobs(self) -> int:
        """Threads that read: somebody's data set may have one file open for all of its images."""
        return default_jobs() if self._items else 1

    def _tried(self, row: int) -> Tensor | Exception:
        try:
            return self._read(row)
        except (DataError, OSError) as error:  # Pillow's complaints are OSErrors
            return error

    def _read(self, row: int) -> Tensor:
        image = self._source.image(row)
        if not isinstance(image, Image.Image):
            expected = f"image {row} as a PIL image or a (3, H, W) uint8 tensor"
            check_tensor(image, expected, (3, None, None), {torch.uint8})
            image = Image.fromarray(image.permute(1, 2, 0).numpy())
        square = ImageOps.fit(image.convert("RGB"), (self.resolution, self.resolution), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(square)).permute(2, 0, 1)
