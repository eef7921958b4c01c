"""The parts of a bank: what is known of up to 512 images each, in files that any worker writes and reads by itself.

``part-000000.maps`` holds the images' saliency maps one after the other, each followed, where masks are made, by the
image's mask on a 64 x 64 grid; ``.masks`` their masks at full resolution, compressed; ``.rows`` a row of numbers for
each image; and ``.json``, written last, the maps' shape and why images were left out. A part whose ``.json`` is there
is whole. Anyone may have made it: what its files say is checked before it is used.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgdmix_albu.datasets.source import Item, Skipped
from sgdmix_albu.errors import DataError
from sgdmix_albu.io.files import LARGEST
from sgdmix_albu.io.images import MAX_PIXELS
from sgdmix_albu.io.records import UnsoundError, items, pair, parse, record, text, whole
from sgdmix_albu.io.storage import Storage

PART = 512
STRETCH = 32  # images of a part that are described together: the smallest piece of work
GRID = 64  # pixels a side of what targets are chosen by
LARGEST_SIDE = 8192  # of a map, in pixels

ROW = np.dtype(
    [
        ("place", "<i4"),  # of the image in its part of the listing
        ("label", "<i4"),  # the class that the map explains; -1 where the backend asks for none
        ("sha256", "u1", 32),  # of the image's file
        ("size", "<i4", 2),  # height and width of the image as it was described
        ("crc32", "<u4"),  # of the map, and of the mask on the grid
        ("mask_end", "<i8"),  # where the image's mask ends among the part's
        ("threshold", "<f4"),
        ("agreement", "<f4"),  # of the mask with the reference's; NaN where there is none
        ("flat", "u1"),
        ("empty", "u1"),
    ]
)
_ABOUT = record(
    {
        "shape": items(whole(1, LARGEST_SIDE), least=2, most=2),
        "crc32": whole(0, 2**32 - 1),  # of the shape and the rows
        "skipped": items(pair(text(), text()), most=512),
    }
)
_MOST_ABOUT = 16 * 2**20  # bytes: with the reasons for 512 images that could not be used
_MOST_ROWS = 512 * ROW.itemsize


@dataclass(frozen=True)
class Part:
    """One part's work: its number, and (key, class name, label, SHA-256 where it is known) of its images."""

    number: int
    images: tuple[tuple[str, str, int, str | None], ...]


def parts_of(items: Sequence[Item]) -> list[Part]:
    """The listing in parts."""
    return [
        Part(
            start // PART,
            tuple((item.key, item.class_name, item.label, item.sha256) for item in items[start : start + PART]),
        )
        for start in range(0, len(items), PART)
    ]


@dataclass(frozen=True)
class Stretch:
    """Images of a part that are described together.

    Attributes:
        number: Of the part.
        first: The first image's place in the part.
        images: As in :class:`Part`.
    """

    number: int
    first: int
    images: tuple[tuple[str, str, int, str | None], ...]


def stretches_of(part: Part) -> list[Stretch]:
    """A part's work in pieces. They follow from the listing alone: a network's rounding can depend on its batch."""
    starts = range(0, len(part.images), STRETCH)
    return [Stretch(part.number, start, part.images[start : start + STRETCH]) for start in starts]


def located(place: int) -> tuple[int, int]:
    """The part that an image of the listing is in, and its place there."""
    return divmod(place, PART)


def first_of(number: int) -> int:
    """The place in the listing of a part's first image."""
    return number * PART


class Entry(NamedTuple):
    """What a bank keeps of one image; without masks, the last two are empty.

    Attributes:
        key: The image's.
        row: Its row, of ``ROW``; where it stands is filled in when it is written.
        map: (h, w) uint8 saliency.
        grid_mask: The mask on the grid, eight pixels a byte.
        mask: The mask at full resolution, compressed.
    """

    key: str
    row: Any
    map: NDArray[np.uint8]
    grid_mask: bytes = b""
    mask: bytes = b""


class _DamagedError(DataError):
    """A file of a part is not what was written: nothing else will make it right but to compute the part again."""


class PartContent(NamedTuple):
    """A part without its maps and masks: (n,) rows, (h, w) of each map, and the images that were left out."""

    rows: NDArray[Any]
    shape: tuple[int, int]
    skipped: list[Skipped]


class Parts:
    """The parts in a folder, on this machine or behind a URL. Nothing is read before it is asked for.

    A map is read from its place in the file each time: the system keeps what is used, and a file that was cut short
    meanwhile is an error, where a memory map would end the process.

    Args:
        storage: The folder.
        remedy: What to do about a part that is damaged; ends the error.
        shape: (h, w) that all maps must have; None for any.
        masks: Whether masks are kept too.
    """

    def __init__(
        self, storage: Storage, remedy: str, shape: tuple[int, int] | None = None, *, masks: bool = False
    ) -> None:
        self.storage, self.remedy, self.shape, self.masks = storage, remedy, shape, masks
        self.read = lru_cache(maxsize=4096)(self._read)

    def numbers(self) -> list[int]:
        """Of the parts that are there."""
        found = (re.fullmatch(r"part-(\d{6,9})\.json", name) for name in self.storage.sizes())
        return sorted(int(name[1]) for name in found if name)

    def write(
        self, number: int, entries: Sequence[Entry], places: Iterable[int], skipped: Iterable[Skipped] = ()
    ) -> None:
        """A part, whole or not at all: of images, by their places in its listing; and of those that cannot be used."""
        rows = np.array([one.row for one in entries], ROW)
        rows["place"], rows["mask_end"] = list(places), np.cumsum([len(one.mask) for one in entries])
        maps = [one.map.tobytes() + one.grid_mask for one in entries]
        rows["crc32"] = [zlib.crc32(one) for one in maps]
        shape = entries[0].map.shape if entries else (GRID, GRID)
        self._write(number, rows, maps, shape, [one.mask for one in entries], skipped)

    def repaired(self, number: int) -> NDArray[Any]:
        """The rows of a part without masks whose maps are what was written; nothing else is left of it."""
        try:
            rows, shape, _ = self.read(number)
            found = self._stored(number)
        except _DamagedError:
            found = []
        sound = [row for row, one in enumerate(found) if one is not None]
        if not sound:
            self.remove(number)
            return np.zeros(0, ROW)
        end = len(rows) * self._length(number)
        if len(sound) < len(rows) or self.storage.read(_name(number, "maps"), end, end + 1):
            rows = rows[sound]
            rows["place"] = range(len(rows))
            self._write(number, rows, [one for one in found if one is not None], shape)
        return rows

    def remove(self, number: int) -> None:
        """A part, which is none from the first moment on."""
        for kind in ("json", "rows", "maps", "masks"):
            self.storage.remove(_name(number, kind))
        self.read.cache_clear()

    def maps(self, number: int, rows: Sequence[int] | None = None) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """All maps of a part, or those of some rows: (k, h, w) uint8; and their masks on the grid, (k, 512) or (k, 0).

        Raises:
            DataError: They are not what was written.
        """
        height, width = self.read(number).shape
        found = [one for one in self._stored(number, rows) if one is not None]
        count = len(self.read(number).rows if rows is None else rows)
        if len(found) < count:
            raise self._damaged(_name(number, "maps"), "its checksum does not match")
        values = np.frombuffer(b"".join(found), np.uint8).reshape(count, self._length(number))
        return values[:, : height * width].reshape(-1, height, width), values[:, height * width :]

    def mask(self, number: int, row: int) -> Tensor:
        """(H, W) bool, the foreground mask of a row's image.

        Raises:
            DataError: It is not what was written.
        """
        rows, name = self.read(number).rows, _name(number, "masks")
        start = int(rows["mask_end"][row - 1]) if row else 0
        try:
            packed = self._content(name, start, int(rows["mask_end"][row]))
            return unpacked(packed, tuple(rows["size"][row].tolist()))
        except UnsoundError as error:
            raise self._damaged(name, str(error)) from error

    def entries(self, number: int, keys: Sequence[str]) -> list[Entry]:
        """What was written of a part with masks, to be written again beside more.

        Args:
            number: Of the part.
            keys: Of all images of its listing.

        Raises:
            DataError: It is not what was written, or not of this listing.
        """
        rows, (maps, grid_masks) = self.read(number).rows, self.maps(number)
        if len(rows) and rows["place"][-1] >= len(keys):
            raise self._damaged(_name(number, "rows"), f"it is not of {len(keys)} images")
        found = []
        for row, (one, levels, grid_mask) in enumerate(zip(rows, maps, grid_masks, strict=True)):
            self.mask(number, row)
            start = int(rows["mask_end"][row - 1]) if row else 0
            packed = self._content(_name(number, "masks"), start, int(one["mask_end"]))
            found.append(Entry(keys[one["place"]], one, levels, grid_mask.tobytes(), packed))
        return found

    def _stored(self, number: int, rows: Sequence[int] | None = None) -> list[bytes | None]:
        """What is stored of the maps of a part, or of some rows; None where its checksum does not match."""
        known, size, name = self.read(number).rows, self._length(number), _name(number, "maps")
        wanted = range(len(known)) if rows is None else rows
        try:
            if rows is None:
                content = self._content(name, 0, len(known) * size)
                found = [content[row * size : (row + 1) * size] for row in wanted]
            else:
                found = [self._content(name, row * size, (row + 1) * size) for row in wanted]
        except UnsoundError as error:
            raise self._damaged(name, str(error)) from error
        whole = (
            len(one) == size and zlib.crc32(one) == known["crc32"][row] for row, one in zip(wanted, found, strict=True)
        )
        return [one if good else None for one, good in zip(found, whole, strict=True)]

    def _length(self, number: int) -> int:
        """Bytes of a map, and of its mask on the grid where there are masks."""
        height, width = self.read(number).shape
        return height * width + self.masks * GRID * GRID // 8

    def _read(self, number: int) -> PartContent:
        name = _name(number, "json")
        try:
            about = parse(self._whole(name, _MOST_ABOUT), _ABOUT)
            name = _name(number, "rows")
            content = self._whole(name, _MOST_ROWS)
            if _sum(about["shape"], content) != about["crc32"]:
                raise UnsoundError("its checksum does not match")
            rows, shape = _checked(content), tuple(about["shape"])
            if len(rows) * shape[0] * shape[1] > LARGEST or shape != (self.shape or shape):
                raise UnsoundError(f"maps of {shape} are not the bank's")
        except UnsoundError as error:
            raise self._damaged(name, str(error)) from error
        return PartContent(rows, shape, [Skipped(*one) for one in about["skipped"]])

    def _write(
        self,
        number: int,
        rows: NDArray[Any],
        maps: Sequence[bytes],
        shape: tuple[int, ...],
        masks: Sequence[bytes] = (),
        skipped: Iterable[Skipped] = (),
    ) -> None:
        about = {"shape": shape, "crc32": _sum(shape, rows.tobytes()), "skipped": list(skipped)}
        if self.masks:
            self.storage.write(_name(number, "masks"), b"".join(masks))
        self.storage.write(_name(number, "maps"), b"".join(maps))
        self.storage.write(_name(number, "rows"), rows.tobytes())
        self.storage.write(_name(number, "json"), json.dumps(about).encode())
        self.read.cache_clear()

    def _whole(self, name: str, most: int) -> bytes:
        content = self._content(name, 0, most + 1)
        if len(content) > most:
            raise UnsoundError(f"it has more than {most} bytes")
        return content

    def _content(self, name: str, start: int, end: int) -> bytes:
        try:
            return self.storage.read(name, start, end)
        except DataError as error:
            if self.storage.has(name):
                raise  # which says nothing of what is in it
            raise UnsoundError("it is missing") from error

    def _damaged(self, name: str, why: str) -> DataError:
        return _DamagedError(f"{self.storage.path(name)} is damaged: {why}; {self.remedy}")

    def __getstate__(self) -> dict[str, Any]:
        return {"storage": self.storage, "remedy": self.remedy, "shape": self.shape, "masks": self.masks}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def _name(number: int, kind: str) -> str:
    return f"part-{number:06d}.{kind}"


def _sum(shape: Sequence[int], rows: bytes) -> int:
    return zlib.crc32(rows, zlib.crc32(json.dumps(list(shape)).encode()))


def _checked(content: bytes) -> NDArray[Any]:
    """Rows that a part can have.

    Raises:
        UnsoundError: They are none.
    """
    if len(content) % ROW.itemsize:
        raise UnsoundError(f"{len(content)} bytes are no rows of {ROW.itemsize}")
    rows = np.frombuffer(content, ROW)
    places, ends, sizes = rows["place"], rows["mask_end"], rows["size"].astype(np.int64)
    lengths = np.diff(ends, prepend=0)
    rising = bool((np.diff(places) > 0).all() and (lengths >= 0).all() and (lengths <= MAX_PIXELS).all())
    inside = not len(rows) or bool(places[0] >= 0 and places[-1] < 512)
    if not rising or not inside or not ((sizes > 0).all() and (sizes.prod(1) <= MAX_PIXELS).all()):
        raise UnsoundError("places, ends or sizes that no part has")
    return rows


def unpacked(packed: bytes, size: tuple[int, int]) -> Tensor:
    """(H, W) bool mask from its compressed form.

    Raises:
        UnsoundError: The bytes are not what was written.
    """
    height, width = size
    wanted = -(-height * width // 8)
    try:
        # No more than one byte too many: a few bytes can be made to unpack to gigabytes.
        stream = zlib.decompressobj()
        bits = np.frombuffer(stream.decompress(packed, wanted + 1), np.uint8)
    except zlib.error as error:
        raise UnsoundError(str(error)) from error
    if len(bits) != wanted or not stream.eof:
        raise UnsoundError(f"{len(bits)} bytes for {height} x {width} pixels")
    return torch.from_numpy(np.unpackbits(bits, count=height * width).reshape(height, width)).bool()
