"""``sgdmix verify``: is everything there that the manifest names, and is it what was written?"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from sgdmix_albu.errors import DataError
from sgdmix_albu.expand.names import METADATA, RUN
from sgdmix_albu.expand.store.manifest import manifest_rows
from sgdmix_albu.expand.store.run_file import read_run
from sgdmix_albu.expand.store.shards import image_places, inside, same_shard
from sgdmix_albu.io.files import read_part
from sgdmix_albu.io.images import IMAGE_SUFFIXES
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.io.sums import Summed
from sgdmix_albu.printable import printable


@dataclass(frozen=True)
class Verified:
    """What was found; ``str()`` of it is what the command prints.

    Attributes:
        images: Rows of the manifest.
        wrong: What is wrong: an image or the manifest, and how.
        strangers: Images that the manifest does not name.
        right: Images that are as they were written.
    """

    images: int
    wrong: list[str]
    strangers: list[str]
    right: int

    @property
    def good(self) -> bool:
        """Whether everything is as it was written, and nothing besides."""
        return not self.wrong and not self.strangers

    def to_json(self) -> dict[str, Any]:
        """The same as JSON has it."""
        return {**asdict(self), "good": self.good}

    def __repr__(self) -> str:  # a notebook shows it as the command does
        return str(self)

    def __str__(self) -> str:
        lines = [f"wrong    {one}" for one in self.wrong]
        lines += [f"unlisted {one}: not in {METADATA}" for one in self.strangers]
        lines.append(f"verified {self.right} of {self.images} images")
        return "\n".join(map(printable, lines))


def verify(out: str | os.PathLike[str], *, progress: Progress | None = None) -> Verified:
    """Compare a folder that ``sgdmix generate`` or ``sgdmix mix`` wrote with its manifest, byte by byte.

    Args:
        out: The folder or its URL.
        progress: Where to report progress; None for a bar on a terminal, and the log elsewhere.

    Raises:
        DataError: No such folder, not finished, or a damaged manifest.
    """
    storage, progress = Storage(out), progress or Progress()
    if not storage.has(METADATA):
        unfinished = f"{storage.root} is not finished: run the same command again"
        raise DataError(
            unfinished
            if storage.has(RUN)
            else f"expected a folder that sgdmix mix or generate wrote; {storage.root} has no {METADATA}"
        )
    if storage.has(".sgdmix-mixed.json"):
        raise DataError(f"{storage.root} was written by sgdmix mix of an earlier version, so use that version's verify")
    if not storage.has(RUN):
        raise DataError(
            f"{storage.root} has {METADATA} but no {RUN}, which says what the manifest must be: if it is a copy, copy "
            "hidden files too (cp -a)"
        )
    written = read_run(storage).manifest
    wrong = _manifest_faults(storage, written)
    named: set[str] = set()
    images = right = 0
    for row, fault in progress.over(_checked(storage), "verifying", written["rows"] if written else 0):
        images += 1
        if row["file_name"] in named:
            fault = "it is listed twice"
        named |= {row["file_name"], row.get("shard", row["file_name"])}
        if fault is None:
            right += 1
        else:
            wrong.append(f"{row['file_name']}: {fault}")
    there = [name for name in storage.sizes() if PurePosixPath(name).suffix.lower() in {*IMAGE_SUFFIXES, ".tar"}]
    return Verified(images, wrong, sorted(set(there) - named), right)


def _manifest_faults(storage: Storage, written: dict[str, Any] | None) -> list[str]:
    """Whether the manifest is what its run says that it wrote."""
    lines = Summed(storage.lines(METADATA)).all()
    if written is not None and written["sha256"] == lines.sha256:
        return []
    return [f"{METADATA}: it was changed: {lines.rows} rows, {written['rows'] if written else 'none'} were written"]


def _checked(storage: Storage) -> Iterator[tuple[dict[str, Any], str | None]]:
    sizes = storage.sizes()
    rows = manifest_rows(storage.lines(METADATA))
    for shard, those in groupby(rows, lambda row: row.get("shard")):
        for row in those if shard is None else ():
            yield row, _fault_of_file(storage, row, sizes)
        if shard is not None:
            yield from _checked_shard(storage, shard, list(those), sizes)


def _fault_of_file(storage: Storage, row: dict[str, Any], sizes: dict[str, int]) -> str | None:
    if row["file_name"] not in sizes:
        return "it is missing"
    try:
        return _fault(row, storage.read(row["file_name"]))
    except DataError as error:
        return str(error)


def _checked_shard(
    storage: Storage, shard: str, rows: list[dict[str, Any]], sizes: dict[str, int]
) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Each image of a shard; and where all are right, whether the shard is what follows from rows and images."""
    if shard not in sizes:
        yield from ((row, "it is missing") for row in rows)
        return
    faults: list[str | None]
    try:
        with storage.opened(shard) as file:
            places = list(image_places(rows))
            faults = [_fault(row, _part(file, place)) for row, place in zip(rows, places, strict=True)]
            samples = ((inside(row), _part(file, place)) for row, place in zip(rows, places, strict=True))
            if not any(faults) and not same_shard(file, samples):
                faults = [f"its labels or metadata in {shard} were changed" for row in rows]
    except DataError as error:
        faults = [str(error) for row in rows]
    yield from zip(rows, faults, strict=True)


def _part(file: BinaryIO, place: tuple[int, int]) -> bytes:
    """A part of a file; what reads on from where it was goes on there."""
    before = file.tell()
    content = read_part(file, *place)
    file.seek(before)
    return content


def _fault(row: dict[str, Any], content: bytes) -> str | None:
    if hashlib.sha256(content).hexdigest() != row["sha256"]:
        return f"it was changed: {len(content)} bytes, {row['bytes']} were written"
    return None
