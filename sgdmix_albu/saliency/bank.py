"""The saliency bank: maps of a whole image folder, computed once and read back by memory map.

A bank is a folder of three files: ``maps.u8``, the maps one after the other; ``index.jsonl``, a line for each
image; and ``bank.json``, the settings, written last.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgdmix_albu.errors import DataError, InvalidInputError

__all__ = ["FORMAT", "HEADER", "INDEX", "MAPS", "IndexLine", "SaliencyBank", "file_digest", "read_header"]

FORMAT = 1
HEADER, INDEX, MAPS = "bank.json", "index.jsonl", "maps.u8"


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
        self.shape: tuple[int, int] = tuple(header["shape"])
        self.skipped: dict[str, str] = header["skipped"]
        self._lines = _read_index(self.folder, header["index_sha256"])
        self.keys = [line.key for line in self._lines]
        self._by_key = {line.key: place for place, line in enumerate(self._lines)}
        self._by_content = {line.sha256: place for place, line in enumerate(self._lines)}
        self._rows: np.memmap[Any, np.dtype[np.uint8]] | None = None
        needed = (max(line.row for line in self._lines) + 1) * self.shape[0] * self.shape[1]
        maps = self.folder / MAPS
        if not maps.is_file() or maps.stat().st_size < needed:
            raise _damaged(self.folder, f"{MAPS} is missing or shorter than {needed} bytes")

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, key: str) -> Tensor:
        """The map of an image, (h, w) uint8, by its path below the folder."""
        if key not in self._by_key:
            raise DataError(f"the saliency bank in {self.folder} has no image {key!r}")
        return self.maps([self._by_key[key]])[0]

    def of_file(self, path: str | os.PathLike[str]) -> Tensor:
        """The map of an image file, (h, w) uint8, by its content, wherever the file now lies.

        Raises:
            DataError: No image with this content is in the bank, or the file cannot be read.
        """
        digest = file_digest(Path(path))
        if digest not in self._by_content:
            raise DataError(f"the saliency bank in {self.folder} has no image with the content of {path}")
        return self.maps([self._by_content[digest]])[0]

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
                raise _damaged(self.folder, f"the map of {line.key!r} is not what was written")
        return torch.from_numpy(np.ascontiguousarray(found))

    def __repr__(self) -> str:
        return f"SaliencyBank({str(self.folder)!r}, {len(self)} maps of {self.shape[0]} x {self.shape[1]})"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_rows": None}  # a memory map would be sent as the whole file

    def _line(self, index: int) -> IndexLine:
        if not 0 <= index < len(self):
            raise InvalidInputError(f"expected numbers from 0 to {len(self) - 1}, got {index}")
        return self._lines[index]

    def _open(self) -> np.memmap[Any, np.dtype[np.uint8]]:
        if self._rows is None:
            height, width = self.shape
            path = self.folder / MAPS
            rows = path.stat().st_size // (height * width)
            self._rows = np.memmap(path, np.uint8, "r", shape=(rows, height, width))
        return self._rows


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def read_header(folder: Path) -> dict[str, Any]:
    """The settings of the bank in ``folder``.

    Raises:
        DataError: There is none, or it is not one that this version reads.
    """
    path = folder / HEADER
    if not path.is_file():
        raise DataError(f"no saliency bank in {folder}: there is no {HEADER}")
    try:
        header: dict[str, Any] = json.loads(path.read_text("utf-8"))
        version = header["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{HEADER} cannot be read") from error
    if version != FORMAT:
        raise DataError(f"the saliency bank in {folder} has format {version}, this version reads {FORMAT}")
    return header


def _read_index(folder: Path, digest: str) -> list[IndexLine]:
    path = folder / INDEX
    if not path.is_file() or file_digest(path) != digest:
        raise _damaged(folder, f"{INDEX} is missing or not what was written")
    return [IndexLine(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def _damaged(folder: Path, why: str) -> DataError:
    return DataError(f"the saliency bank in {folder} is damaged: {why}; run build_bank again")
