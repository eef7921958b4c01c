"""The bank of a run: descriptors of a listing, for planning and mixing; images are found by their place in it."""

from __future__ import annotations

import math
import mmap
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sgdmix_albu.bank.parts import GRID, Part, Parts, first_of, located
from sgdmix_albu.datasets.source import Item, Skipped
from sgdmix_albu.errors import DataError
from sgdmix_albu.io.files import refusals_named
from sgdmix_albu.io.storage import Storage


@dataclass(frozen=True)
class Descriptors:
    """What planning needs to know of N images; rows agree.

    Attributes:
        items: The images.
        maps: (N, 64, 64) uint8 saliency.
        grid_masks: (N, 512) uint8, foreground masks on the same grid, eight pixels a byte.
        flat: (N,) bool, the saliency map is constant.
        empty: (N,) bool, the mask is empty.
        agreement: (N,) float32, share of the reference's object that the mask holds; NaN where it finds none, or nobody
            was asked.
    """

    items: list[Item]
    maps: NDArray[np.uint8]
    grid_masks: NDArray[np.uint8]
    flat: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    agreement: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.items)

    def coarse(self) -> NDArray[np.uint8]:
        """(N, 256) the maps as 16 x 16 averages, rounded."""
        cells, side = 16, GRID // 16
        coarse = np.empty((len(self), cells * cells), np.uint8)
        for start in range(0, len(self), 4096):  # the maps may be larger than the memory
            block = self.maps[start : start + 4096].reshape(-1, cells, side, cells, side)
            sums = block.sum(axis=(2, 4), dtype=np.uint16)
            coarse[start : start + 4096] = ((sums + side * side // 2) // (side * side)).reshape(len(block), -1)
            self.forget()
        return coarse

    def forget(self) -> None:
        """Let go of those mapped maps that are in memory; they are read again where they are needed.

        A system that has room keeps them beside its processes' own memory.
        """
        mapped = getattr(self.maps, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


def check_some_usable(usable: int, count: int, skipped: Sequence[Skipped]) -> None:
    """Refuse a set of which nothing can be used.

    Raises:
        DataError: The first reason is given.
    """
    if not usable:
        why = f"; the first, {skipped[0]}" if skipped else ""
        raise DataError(f"none of {count} images can be used{why}")


class Known(NamedTuple):
    """What is known of an image beside its mask."""

    sha256: bytes  # of its file
    threshold: float  # the saliency above which a pixel entered its mask
    agreement: float | None  # of its mask with the reference's; None where nobody was asked, or that found nothing


class DescriptorBank:
    """Reads what :mod:`sgdmix_albu.bank.builder` wrote; rows are places in the listing.

    Args:
        storage: The bank's folder.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._parts = Parts(storage, f"remove {storage.root} to rebuild it", (GRID, GRID), masks=True)

    def missing(self, parts: Sequence[Part]) -> list[Part]:
        """The parts that are not there."""
        there = set(self._parts.numbers())
        return [part for part in parts if part.number not in there]

    def skipped(self, parts: Sequence[Part]) -> list[Skipped]:
        """The images that could not be used, and why.

        Raises:
            DataError: A part is missing or damaged.
        """
        return [one for part in parts for one in self._parts.read(part.number).skipped]

    def why(self, key: str, place: int) -> str | None:
        """Why an image could not be used; None where the part does not say."""
        skipped = self._parts.read(located(place)[0]).skipped
        return next((one.reason for one in skipped if one.key == key), None)

    def load(self, items: Sequence[Item], parts: Sequence[Part]) -> tuple[Descriptors, list[int]]:
        """What planning needs: descriptors, and their places in the listing.

        The maps lie in a file that is mapped into memory.

        Raises:
            DataError: A part is missing or damaged.
        """
        rows, places, grid_masks = [], [], []
        with refusals_named(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as file:  # its map outlives it
            for part in parts:
                maps, masks = self._parts.maps(part.number)
                file.write(np.ascontiguousarray(maps).tobytes())
                grid_masks.append(masks)
                rows.append(self._parts.read(part.number).rows)
                places += [first_of(part.number) + place for place in rows[-1]["place"].tolist()]
            file.flush()
            shape = (len(places), GRID, GRID)
            whole = np.memmap(file, np.uint8, "r", shape=shape) if places else np.empty(shape, np.uint8)
        known = np.concatenate(rows)
        described_items = [items[place] for place in places]
        flat, empty = known["flat"].astype(bool), known["empty"].astype(bool)
        return Descriptors(described_items, whole, np.concatenate(grid_masks), flat, empty, known["agreement"]), places

    def known(self, place: int) -> Known | None:
        """What is known of an image, if it could be used."""
        found = self._found(place)
        if found is None:
            return None
        row = self._parts.read(found[0]).rows[found[1]]
        agreement = float(row["agreement"])
        return Known(bytes(row["sha256"]), float(row["threshold"]), None if math.isnan(agreement) else agreement)

    def mask(self, place: int) -> Tensor:
        """(H, W) bool foreground mask of an image."""
        found = self._found(place)
        if found is None:
            raise DataError(f"the bank in {self.storage.root} does not describe image {place}")
        return self._parts.mask(*found)

    def _found(self, place: int) -> tuple[int, int] | None:
        """An image's part, and its row there."""
        number, inside = located(place)
        places = self._parts.read(number).rows["place"]
        row = int(np.searchsorted(places, inside))
        return None if row == len(places) or places[row] != inside else (number, row)
