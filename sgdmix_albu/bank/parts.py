"""Descriptors of a whole set on disk, in parts that workers write and read independently of each other.

A part covers 512 images of the listing: ``part-000000.masks`` holds their full-resolution masks one after the other,
``part-000000.skipped`` which images could not be used, and ``part-000000.npz``, written last, everything else. A part
that is there is whole.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sgdmix_albu.bank.descriptors import GRID, Descriptors, describe_read, read_pixels, unpacked
from sgdmix_albu.bank.map_source import open_saliency
from sgdmix_albu.bank.reference import open_reference
from sgdmix_albu.datasets.source import Item, Skipped, open_reader
from sgdmix_albu.errors import DataError
from sgdmix_albu.io.attempts import begin_attempt
from sgdmix_albu.io.files import refusals_named
from sgdmix_albu.io.images import MAX_PIXELS
from sgdmix_albu.io.records import UnsoundError, items, pair, parse, text
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.io.threads import one_thread_each, ordered_map
from sgdmix_albu.mixing.masks import get_mask
from sgdmix_albu.settings import SaliencySettings

__all__ = ["PART", "BankBuilder", "BankSettings", "Described", "DescriptorBank", "Part", "parts_of"]

PART = 512
# Shape of each array beside the number of images, and type.
_ARRAYS: Mapping[str, tuple[tuple[int, ...], type]] = {
    "maps": ((GRID, GRID), np.uint8),
    "grid_masks": ((GRID * GRID // 8,), np.uint8),
    "sizes": ((2,), np.int32),
    "digests": ((32,), np.uint8),
    "thresholds": ((), np.float32),
    "flat": ((), np.bool_),
    "empty": ((), np.bool_),
    "agreement": ((), np.float32),
    "places": ((), np.int32),
    "ends": ((), np.int64),
}
_LARGEST = 16 * 2**20  # bytes of a part's arrays; 512 images have 2.5 million
_SKIPPED = items(pair(text(), text()), most=PART)
_JOINED = ("grid_masks", "thresholds", "flat", "empty", "agreement")


@dataclass(frozen=True)
class BankSettings:
    """What a bank is made with.

    Attributes:
        storage: The bank's folder.
        data: The image tree, or None.
        dataset: The embedded data set, or None.
        size: Bring every image to size x size; None keeps each as it is.
        saliency: What gives the maps.
        mask: The mask preset's name.
        class_names: Label index to name.
        reference: The backend that the masks are compared with, or None.
        jobs: Threads that read images.
        tries: Where to note what is begun, if the engine repeats what a lost worker had.
    """

    storage: Storage
    data: str | None
    dataset: str | None
    size: int | None
    saliency: SaliencySettings
    mask: str
    class_names: tuple[str, ...]
    reference: str | None = None
    jobs: int = 1
    tries: Storage | None = None


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


class Described(NamedTuple):
    """How many images were described, and the seconds that took."""

    images: int
    seconds: float


class _Execution(NamedTuple):
    """What execution needs of a part, besides the masks."""

    places: NDArray[Any]
    sizes: NDArray[Any]
    ends: NDArray[Any]
    digests: NDArray[Any]
    agreement: NDArray[Any]
    thresholds: NDArray[Any]


class BankBuilder:
    """Describes a part and writes it; any process may, in any order."""

    def __init__(self, settings: BankSettings) -> None:
        self.settings = settings
        self._reader = open_reader(settings.data, settings.dataset, size=settings.size)
        self._source = open_saliency(settings.saliency, settings.class_names)
        self._preset = get_mask(settings.mask)
        judge = settings.reference
        self._reference = None if judge is None else open_reference(judge, settings.class_names)[0]

    def __call__(self, part: Part) -> Described:
        """Describe the part's images."""
        began = time.perf_counter()
        if self.settings.tries is not None:
            begin_attempt(self.settings.tries, f"bank part {part.number}")
        items = [Item(key, class_name, label, self._reader, digest) for key, class_name, label, digest in part.images]
        with one_thread_each():
            reading = ordered_map(lambda item: read_pixels(item, self.settings.size), items, self.settings.jobs)
            described, skipped = describe_read(reading, self._source, self._preset, reference=self._reference)
        _write(self.settings.storage, part, described, skipped)
        return Described(len(items), time.perf_counter() - began)


class DescriptorBank:
    """Reads what :class:`BankBuilder` wrote; rows are places in the listing.

    Args:
        storage: The bank's folder.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._part = lru_cache(maxsize=4096)(self._read_part)

    def missing(self, parts: Sequence[Part]) -> list[Part]:
        """The parts that are not there."""
        there = self.storage.sizes()
        return [part for part in parts if f"{_name(part.number)}.npz" not in there]

    def skipped(self, parts: Sequence[Part]) -> list[Skipped]:
        """The images that could not be used, and why.

        Raises:
            DataError: A part is missing or damaged.
        """
        found = []
        for part in parts:
            name = f"{_name(part.number)}.skipped"
            try:
                found += [Skipped(key, reason) for key, reason in parse(self.storage.read(name), _SKIPPED)]
            except UnsoundError as error:
                raise self._damaged(name) from error
        return found

    def why(self, key: str, place: int) -> str | None:
        """Why an image could not be used; None where the part does not say."""
        part = Part(place // PART, ())
        return next((one.reason for one in self.skipped([part]) if one.key == key), None)

    def load(self, items: Sequence[Item], parts: Sequence[Part]) -> tuple[Descriptors, list[int]]:
        """Everything but the full-resolution masks, for planning: descriptors, and their places in the listing.

        The maps lie in a file that is mapped into memory.

        Raises:
            DataError: A part is missing or damaged.
        """
        places: list[int] = []
        read: list[dict[str, NDArray[Any]]] = []
        with refusals_named(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as file:  # its map outlives it
            for part in parts:
                arrays = self._arrays(part.number)
                file.write(np.ascontiguousarray(arrays.pop("maps")).tobytes())
                read.append(arrays)
                places += (part.number * PART + arrays["places"]).tolist()
            file.flush()
            shape = (len(places), GRID, GRID)
            maps = np.memmap(file, np.uint8, "r", shape=shape) if places else np.empty(shape, np.uint8)
        joined = {name: np.concatenate([arrays[name] for arrays in read]) for name in _JOINED}
        return Descriptors([items[place] for place in places], maps, **joined, packed=[], sizes=[], digests=[]), places

    def describes(self, place: int) -> bool:
        """Whether an image could be used."""
        return self._row(place) is not None

    def mask(self, place: int) -> Tensor:
        """(H, W) bool foreground mask of an image."""
        part, row = self._known(place)
        start = int(part.ends[row - 1]) if row else 0
        name = f"{_name(place // PART)}.masks"
        packed = self.storage.read(name, start, int(part.ends[row]))
        try:
            return unpacked(packed, (int(part.sizes[row, 0]), int(part.sizes[row, 1])))
        except DataError as error:
            raise self._damaged(name) from error

    def sha256(self, place: int) -> bytes:
        """Of the file that an image was read from."""
        part, row = self._known(place)
        return bytes(part.digests[row])

    def agreement(self, place: int) -> float | None:
        """Of an image's mask with a better backend; None where nobody was asked, or it found nothing."""
        part, row = self._known(place)
        agreement = float(part.agreement[row])
        return None if math.isnan(agreement) else agreement

    def threshold(self, place: int) -> float:
        """The saliency above which a pixel of an image entered its mask."""
        part, row = self._known(place)
        return float(part.thresholds[row])

    def _known(self, place: int) -> tuple[_Execution, int]:
        found = self._row(place)
        if found is None:
            raise DataError(f"the bank in {self.storage.root} does not describe image {place}")
        return found

    def _row(self, place: int) -> tuple[_Execution, int] | None:
        part = self._part(place // PART)
        row = int(np.searchsorted(part.places, place % PART))
        return None if row == len(part.places) or part.places[row] != place % PART else (part, row)

    def _read_part(self, number: int) -> _Execution:
        arrays = self._arrays(number)
        return _Execution(*(arrays[name] for name in _Execution._fields))

    def _arrays(self, number: int) -> dict[str, NDArray[Any]]:
        name = f"{_name(number)}.npz"
        content = self.storage.read(name)
        try:
            arrays = _unpacked_arrays(content)
        except Exception as error:  # of any kind: zipfile and numpy raise a dozen for bytes of anyone's
            raise self._damaged(name) from error
        return arrays

    def _damaged(self, name: str) -> DataError:
        return DataError(f"{self.storage.path(name)} is damaged; remove {self.storage.root}, and it is made again")

    def __getstate__(self) -> dict[str, Any]:
        return {"storage": self.storage}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["storage"])  # type: ignore[misc]


def _unpacked_arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of a part.

    Raises:
        ValueError: One is not what a part has; nothing large was made of it.
        Exception: The file is no archive of arrays.
    """
    if len(content) > _LARGEST:
        raise ValueError(f"{len(content)} bytes")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        # Versions that asked no judge wrote no agreement.
        told = [name for name in _ARRAYS if name != "agreement" or "agreement.npy" in archive.namelist()]
        if sum(archive.getinfo(f"{name}.npy").file_size for name in told) > _LARGEST:
            raise ValueError("arrays that unpack to more than a part has")
        arrays = {name: _array(archive.read(f"{name}.npy")) for name in told}
    count = len(arrays["places"])
    arrays.setdefault("agreement", np.full(count, np.nan, np.float32))
    for name, (shape, kind) in _ARRAYS.items():
        if arrays[name].shape != (count, *shape) or arrays[name].dtype != kind:
            raise ValueError(f"{name} of shape {arrays[name].shape}")
    places, ends, sizes = arrays["places"], arrays["ends"], arrays["sizes"]
    rising = bool((np.diff(places) > 0).all() and (np.diff(ends) >= 0).all())
    inside = not count or (places[0] >= 0 and places[-1] < PART and ends[0] >= 0)
    if not rising or not inside or not ((sizes > 0).all() and (sizes.astype(np.int64).prod(1) <= MAX_PIXELS).all()):
        raise ValueError("places, ends or sizes that no part has")
    return arrays


def _array(content: bytes) -> NDArray[Any]:
    """An array from numpy's format; its header may claim any size."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"version {version} of numpy's format")
    shape, _, kind = np.lib.format.read_array_header_1_0(file)
    if math.prod(shape) * kind.itemsize != len(content) - file.tell() or kind.itemsize == 0:
        raise ValueError(f"a header of {shape} {kind}")
    return np.frombuffer(content, kind, offset=file.tell()).reshape(shape)


def _name(number: int) -> str:
    return f"part-{number:06d}"


def _write(storage: Storage, part: Part, described: Descriptors, skipped: Iterable[Skipped]) -> None:
    place_of = {key: place for place, (key, *_) in enumerate(part.images)}
    arrays: dict[str, Any] = {
        "maps": described.maps,
        "grid_masks": described.grid_masks,
        "thresholds": described.thresholds,
        "flat": described.flat,
        "empty": described.empty,
        "agreement": described.agreement,
        "sizes": np.array(described.sizes, np.int32).reshape(-1, 2),
        "digests": np.frombuffer(b"".join(described.digests), np.uint8).reshape(-1, 32),
        "places": np.array([place_of[item.key] for item in described.items], np.int32),
        "ends": np.cumsum([len(packed) for packed in described.packed], dtype=np.int64),
    }
    content = io.BytesIO()
    np.savez(content, **arrays)
    name = _name(part.number)
    storage.write(f"{name}.masks", b"".join(described.packed))
    storage.write(f"{name}.skipped", json.dumps([[one.key, one.reason] for one in skipped]).encode())
    storage.write(f"{name}.npz", content.getvalue())
