"""The saliency bank: maps of a whole image folder, computed once and read back by memory map.

A bank is a folder of three files: ``maps.u8``, the maps one after the other; ``index.jsonl``, a line for each
image; and ``bank.json``, the settings, written last.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.io.files import open_regular, read_regular
from sgdmix_albu.io.images import MAX_BYTES
from sgdmix_albu.io.records import (
    UnsoundError,
    flag,
    items,
    mapping,
    name_below,
    optional,
    parse,
    record,
    sha256,
    text,
    whole,
)

__all__ = [
    "FORMAT",
    "HEADER",
    "INDEX",
    "LARGEST_SIDE",
    "MAPS",
    "IndexLine",
    "SaliencyBank",
    "damaged",
    "header_sum",
    "parsed_line",
    "read_header",
    "read_index",
]

FORMAT = 1
HEADER, INDEX, MAPS = "bank.json", "index.jsonl", "maps.u8"
LARGEST_SIDE = 8192  # of a map, in pixels

# Without its header a bank cannot be told from somebody's own files, which build_bank leaves alone.
_ANEW = "remove the folder and run build_bank again"

_MOST_HEADER = 2**28  # bytes: with the reasons for a million images that could not be read
_MOST_INDEX = 2**30  # bytes: some five million images

_HEADER = record(
    {
        "format": whole(),
        "settings": record({"backend": sha256, "size": items(whole(1), least=2, most=2), "version": text()}),
        "shape": optional(items(whole(1, LARGEST_SIDE), least=2, most=2)),
        "complete": flag,
    },
    # The first three are there when it is complete; the sum is not in banks of the first versions.
    may={
        "index_sha256": sha256,
        "made_by": text(2**20),
        "skipped": mapping(text(2**20), most=10_000_000),
        "sha256": sha256,
    },
)
_LINE = record(
    {"key": name_below, "sha256": sha256, "label": whole(-1), "row": whole(), "crc32": whole(0, 2**32 - 1)},
)


@dataclass(frozen=True)
class IndexLine:
    """One image of a bank.

    Attributes:
        key: The image's path below its folder, with forward slashes.
        sha256: Of the file's content.
        label: The class index that the map explains; -1 where the backend asks for none.
        row: The map's place in the file of maps.
        crc32: Of the map's bytes.
    """

    key: str
    sha256: str
    label: int
    row: int
    crc32: int


class SaliencyBank:
    """Saliency maps that :func:`build_bank` has computed, by image.

    Nothing is read before it is asked for, and the object is cheap to send to loader workers.

    Args:
        folder: The bank's folder.

    Attributes:
        keys: The images' paths below their folder, sorted: ``"warbler/0001.jpg"``.
        skipped: Image files that could not be read, and why.
        shape: (h, w) of every map.
        settings_sha256: SHA-256 of what the maps were made with: the backend, its options and weights, the images' size
            and this package's version.

    Raises:
        DataError: There is no bank, it was not finished, or it is damaged.

    Example:
        >>> import tempfile
        >>> SaliencyBank(tempfile.mkdtemp())  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        sgdmix_albu.errors.DataError: no saliency bank in ...: there is no bank.json
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).expanduser()
        header = read_header(self.folder)
        if not header["complete"]:
            raise DataError(f"the saliency bank in {self.folder} is not finished; run build_bank again")
        if header["shape"] is None or "skipped" not in header or "index_sha256" not in header:
            raise damaged(self.folder, f"{HEADER} cannot be read: it is complete, and lacks a field", _ANEW)
        self.shape: tuple[int, int] = tuple(header["shape"])
        self.skipped: dict[str, str] = header["skipped"]
        self.settings_sha256 = _sum(header["settings"])
        self._lines = _checked_index(self.folder, header["index_sha256"])
        self.keys = [line.key for line in self._lines]
        self._by_key = {line.key: place for place, line in enumerate(self._lines)}
        if len(self._by_key) < len(self._lines):
            raise damaged(self.folder, f"{INDEX} names an image twice")
        self._by_content: dict[str, dict[int, int]] = {}
        for place, line in enumerate(self._lines):
            self._by_content.setdefault(line.sha256, {})[line.label] = place
        self._rows: np.memmap[Any, np.dtype[np.uint8]] | None = None
        self._check_length()

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, key: str) -> Tensor:
        """The map of an image, (h, w) uint8, by its path below the folder."""
        if key not in self._by_key:
            raise DataError(f"the saliency bank in {self.folder} has no image {key!r}")
        return self.maps([self._by_key[key]])[0]

    def of_file(self, path: str | os.PathLike[str], label: int | None = None) -> Tensor:
        """The map of an image file, (h, w) uint8, by its content, wherever the file now lies.

        Args:
            path: The file.
            label: Its class, which matters where the maps explain classes and the bank has the file in several.

        Raises:
            DataError: No image with this content and class is in the bank, or the file cannot be read.
        """
        digest = hashlib.sha256(read_regular(path, MAX_BYTES)).hexdigest()
        return self.maps([self._place_of(digest, label, f"the content of {path}")])[0]

    def of_contents(self, digests: Sequence[str], labels: Sequence[int]) -> Tensor:
        """The maps of image files that have been read: what a backend's ``coarse`` gives for them.

        Args:
            digests: SHA-256 of each file, in hexadecimal.
            labels: The class of each.

        Returns:
            (n, h, w) float32 in [0, 1]. Each covers its whole image, whatever size that was brought to.

        Raises:
            DataError: An image is not in the bank, or under another class.
        """
        pairs = zip(digests, labels, strict=True)
        places = [self._place_of(digest, label, f"this content ({digest[:12]}...)") for digest, label in pairs]
        return self.maps(places).float() / 255

    def maps(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Maps by number, in the order of ``keys``.

        Args:
            indices: n numbers from 0 to ``len(bank) - 1``.

        Returns:
            (n, h, w) uint8, 255 the most salient: what ``SaliencyMap`` and ``saliency="given"`` take.

        Raises:
            InvalidInputError: A number out of range.
            DataError: A map's bytes are not those that were written.
        """
        lines = [self._line(int(index)) for index in indices]
        found = self._open()[[line.row for line in lines]] if lines else np.zeros((0, *self.shape), np.uint8)
        for line, values in zip(lines, found, strict=True):
            if zlib.crc32(values.tobytes()) != line.crc32:
                raise damaged(self.folder, f"the map of {line.key!r} is not what was written in {MAPS}")
        return torch.from_numpy(np.ascontiguousarray(found))

    def noted(self) -> dict[str, Any]:
        """What a run writes down of it, as of a backend: what its maps were made with."""
        return {"sha256": self.settings_sha256}

    def __repr__(self) -> str:
        return f"SaliencyBank({str(self.folder)!r}, {len(self)} maps of {self.shape[0]} x {self.shape[1]})"

    def _place_of(self, digest: str, label: int | None, what: str) -> int:
        """The number of an image; -1 is the class of maps that explain none."""
        known = self._by_content.get(digest)
        if known is None:
            raise DataError(
                f"the saliency bank in {self.folder} has no image with {what}: it is new or was changed; "
                "run sgdmix bank again"
            )
        if label is None:
            return max(known.values())
        if not known.keys() & {label, -1}:
            raise DataError(
                f"the saliency bank in {self.folder} explains class {' and '.join(map(str, known))} of the image with "
                f"{what}, and class {label} is asked for: it was made of other class folders"
            )
        return known[label] if label in known else known[-1]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_rows": None}  # a memory map would be sent as the whole file

    def _line(self, index: int) -> IndexLine:
        if not 0 <= index < len(self):
            raise InvalidInputError(f"expected numbers from 0 to {len(self) - 1}, got {index}")
        return self._lines[index]

    def _open(self) -> np.memmap[Any, np.dtype[np.uint8]]:
        if self._rows is None:
            count = self._check_length()
            with open_regular(self.folder / MAPS) as file:
                self._rows = np.memmap(file, np.uint8, "r", shape=(count, *self.shape))
        return self._rows

    def _check_length(self) -> int:
        """The number of maps that the index speaks of, if the file is long enough for them."""
        count = max(line.row for line in self._lines) + 1
        needed = count * self.shape[0] * self.shape[1]
        maps = self.folder / MAPS
        if not maps.is_file() or maps.stat().st_size < needed:
            raise damaged(self.folder, f"{MAPS} is missing or shorter than {needed} bytes")
        return count


def read_header(folder: Path) -> dict[str, Any]:
    """The settings of the bank in ``folder``.

    Raises:
        DataError: There is none, or it is not one that this version reads.
    """
    path = folder / HEADER
    if not os.path.lexists(path):
        raise DataError(f"no saliency bank in {folder}: there is no {HEADER}")
    try:
        found = parse(_content(folder, HEADER, _MOST_HEADER), record({"format": whole()}, others=True))
        if found["format"] != FORMAT:
            raise DataError(f"the saliency bank in {folder} has format {found['format']}, this version reads {FORMAT}")
        header: dict[str, Any] = _HEADER(found)
    except UnsoundError as error:
        raise damaged(folder, f"{HEADER} cannot be read: {error}", _ANEW) from error
    if header.get("sha256", header_sum(header)) != header_sum(header):
        raise damaged(folder, f"{HEADER} cannot be read: it is not what was written", _ANEW)
    return header


def header_sum(header: Mapping[str, Any]) -> str:
    """The checksum of a header: of all its fields but ``complete``, and itself."""
    return _sum({name: value for name, value in header.items() if name not in ("complete", "sha256")})


def _sum(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def read_index(folder: Path) -> bytes:
    """The lines of the index, not looked at."""
    return _content(folder, INDEX, _MOST_INDEX)


def parsed_line(content: bytes) -> IndexLine:
    """A line of the index.

    Raises:
        UnsoundError: It is none.
    """
    return IndexLine(**parse(content, _LINE))


def damaged(folder: Path, why: str, todo: str = "run build_bank again") -> DataError:
    """The error for a bank whose files are not what was written."""
    return DataError(f"the saliency bank in {folder} is damaged: {why}; {todo}")


def _content(folder: Path, name: str, most: int) -> bytes:
    try:
        return read_regular(folder / name, most)
    except DataError as error:
        raise damaged(folder, str(error), _ANEW) from error


def _checked_index(folder: Path, digest: str) -> list[IndexLine]:
    content = read_index(folder) if os.path.lexists(folder / INDEX) else b""
    if hashlib.sha256(content).hexdigest() != digest:
        raise damaged(folder, f"{INDEX} is missing or not what was written")
    lines = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            lines.append(parsed_line(line))
        except UnsoundError as error:
            raise damaged(folder, f"line {number} of {INDEX}: {error}") from error
    if not lines:
        raise damaged(folder, f"{INDEX} names no image")
    return lines
