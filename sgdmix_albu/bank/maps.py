"""The saliency bank: maps of a whole image folder, computed once and read back image by image.

A bank is a folder: its parts (:mod:`sgdmix_albu.bank.parts`) have the maps, by the content of the images' files;
``index.jsonl`` has a line for each image; and ``bank.json``, written last, the settings.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgdmix_albu.bank.parts import LARGEST_SIDE, Parts
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.io.files import read_regular
from sgdmix_albu.io.images import MAX_BYTES
from sgdmix_albu.io.records import UnsoundError, flag, items, mapping, name_below, parse, record, sha256, text, whole
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.io.sums import sum_of

FORMAT = 2
HEADER, INDEX = "bank.json", "index.jsonl"
AGAIN = "run build_bank again"

# Without its header a bank cannot be told from somebody's own files, which build_bank leaves alone.
_ANEW = f"remove the folder and {AGAIN}"

_MOST_HEADER = 2**28  # bytes: with the reasons for a million images that could not be read
_MOST_INDEX = 2**30  # bytes: some five million images

_HEADER = record(
    {
        "format": whole(),
        "settings": record({"backend": sha256, "size": items(whole(1), least=2, most=2), "version": text()}),
        "complete": flag,
        "sha256": sha256,  # of the other fields
    },
    # All are there when it is complete.
    may={
        "shape": items(whole(1, LARGEST_SIDE), least=2, most=2),
        "parts": items(whole(0, 10**9 - 1), least=1),
        "index_sha256": sha256,
        "made_by": text(2**20),
        "skipped": mapping(text(2**20), most=10_000_000),
    },
)
# The label is the class that the map explains, -1 where it explains none.
_LINE = record({"key": name_below, "sha256": sha256, "label": whole(-1, 2**31 - 1)})


class SaliencyBank:
    """Saliency maps that :func:`build_bank` has computed, by image.

    Reads files on demand; cheap to pickle for loader workers.

    Args:
        folder: The bank's folder.

    Attributes:
        keys: The images' paths below their folder, sorted: ``"warbler/0001.jpg"``.
        skipped: Image files that could not be read, and why.
        shape: (h, w) of every map.
        settings_sha256: SHA-256 of the settings of the maps: the backend, its options and weights, the images' size
            and this package's version.

    Raises:
        DataError: No bank, or one that is unfinished or damaged.

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
            raise DataError(f"the saliency bank in {self.folder} is not finished; {AGAIN}")
        if not {"shape", "parts", "skipped", "index_sha256"} <= header.keys():
            raise damaged(self.folder, f"{HEADER} cannot be read: it is complete, and lacks a field", _ANEW)
        self.shape: tuple[int, int] = tuple(header["shape"])
        self.skipped: dict[str, str] = header["skipped"]
        self.settings_sha256 = sum_of(header["settings"])
        self._parts = Parts(Storage(self.folder), AGAIN, self.shape)
        stored: dict[tuple[str, int], tuple[int, int]] = {}
        for number in header["parts"]:
            rows = self._parts.read(number).rows
            for row, (digest, label) in enumerate(zip(rows["sha256"], rows["label"].tolist(), strict=True)):
                stored[bytes(digest).hex(), label] = number, row
        self.keys: list[str] = []
        self._places: list[tuple[int, int]] = []  # of each key's map: the part, and the row there
        self._by_content: dict[str, dict[int, int]] = {}
        for line in _checked_index(self.folder, header["index_sha256"]):
            if (line["sha256"], line["label"]) not in stored:
                raise damaged(self.folder, f"{INDEX} names {line['key']!r}, of which no part has the map")
            self._by_content.setdefault(line["sha256"], {})[line["label"]] = len(self.keys)
            self._places.append(stored[line["sha256"], line["label"]])
            self.keys.append(line["key"])
        self._by_key = {key: place for place, key in enumerate(self.keys)}
        if len(self._by_key) < len(self.keys):
            raise damaged(self.folder, f"{INDEX} names an image twice")

    def __len__(self) -> int:
        return len(self.keys)

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
        numbers = [int(index) for index in indices]
        wrong = [number for number in numbers if not 0 <= number < len(self)]
        if wrong:
            raise InvalidInputError(f"expected numbers from 0 to {len(self) - 1}, got {wrong[0]}")
        found = [self._parts.maps(part, [row])[0] for part, row in (self._places[number] for number in numbers)]
        return torch.from_numpy(np.concatenate(found) if found else np.zeros((0, *self.shape), np.uint8))

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
                f"{what}, and class {label} was requested: it was made from other class folders"
            )
        return known[label] if label in known else known[-1]


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
            raise DataError(
                f"the saliency bank in {folder} has format {found['format']}, this version reads {FORMAT}; {_ANEW}"
            )
        header: dict[str, Any] = _HEADER(found)
    except UnsoundError as error:
        raise damaged(folder, f"{HEADER} cannot be read: {error}", _ANEW) from error
    if header["sha256"] != header_sum(header):
        raise damaged(folder, f"{HEADER} cannot be read: its checksum does not match", _ANEW)
    return header


def header_sum(header: Mapping[str, Any]) -> str:
    """The checksum of a header: of all its fields but ``complete``, and itself."""
    return sum_of({name: value for name, value in header.items() if name not in ("complete", "sha256")})


def damaged(folder: Path, why: str, todo: str = AGAIN) -> DataError:
    """The error for a bank whose files are not what was written."""
    return DataError(f"the saliency bank in {folder} is damaged: {why}; {todo}")


def _content(folder: Path, name: str, most: int) -> bytes:
    try:
        return read_regular(folder / name, most)
    except DataError as error:
        raise damaged(folder, str(error), _ANEW) from error


def _checked_index(folder: Path, digest: str) -> list[dict[str, Any]]:
    content = _content(folder, INDEX, _MOST_INDEX) if os.path.lexists(folder / INDEX) else b""
    if hashlib.sha256(content).hexdigest() != digest:
        raise damaged(folder, f"{INDEX} is missing or its checksum does not match")
    lines = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            lines.append(parse(line, _LINE))
        except UnsoundError as error:
            raise damaged(folder, f"line {number} of {INDEX}: {error}") from error
    if not lines:
        raise damaged(folder, f"{INDEX} names no image")
    return lines
