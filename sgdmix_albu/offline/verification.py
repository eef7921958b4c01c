"""``sgdmix verify``: is everything there that the manifest names, and is it what was written?"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

from sgdmix_albu.errors import DataError
from sgdmix_albu.images import IMAGE_SUFFIXES
from sgdmix_albu.offline.files import METADATA
from sgdmix_albu.offline.manifest import manifest_rows
from sgdmix_albu.offline.progress import Progress
from sgdmix_albu.offline.run import RUN, read_run
from sgdmix_albu.offline.shards import member_name, shard_bytes
from sgdmix_albu.offline.storage import Storage

__all__ = ["Verified", "verify"]


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

    def __str__(self) -> str:
        lines = [f"wrong    {one}" for one in self.wrong]
        lines += [f"stranger {one}: not in {METADATA}" for one in self.strangers]
        lines.append(f"verified {self.right} of {self.images} images")
        return "\n".join(lines)


def verify(out: str | os.PathLike[str], *, progress: Progress | None = None) -> Verified:
    """Compare a folder that :func:`sgdmix_albu.offline.generate` wrote with its manifest, byte by byte.

    Args:
        out: The folder or its URL.
        progress: Where to report; None for stderr.

    Raises:
        DataError: No such folder, not finished, or a damaged manifest.
    """
    storage, progress = Storage(out), progress or Progress()
    begun = storage.has(RUN)
    if not storage.has(METADATA):
        raise DataError(
            f"{out} is not finished: run the same `sgdmix generate` again" if begun else f"{out} has no {METADATA}"
        )
    if not begun:
        raise DataError(f"{out} has no {RUN}, which says what the manifest must be; copy hidden files too")
    written = read_run(storage)["manifest"]
    wrong = _manifest_faults(storage, written)
    named: set[str] = set()
    images = right = 0
    total = written["rows"] if written else 0
    for row, fault in progress.over(_checked(storage), "verifying", total):
        images += 1
        if row["file_name"] in named:
            fault = "it is named twice"
        named |= {row["file_name"], row.get("shard", row["file_name"])}
        if fault is None:
            right += 1
        else:
            wrong.append(f"{row['file_name']}: {fault}")
    there = [name for name in storage.sizes() if PurePosixPath(name).suffix.lower() in {*IMAGE_SUFFIXES, ".tar"}]
    return Verified(images, wrong, sorted(set(there) - named), right)


def _manifest_faults(storage: Storage, written: dict[str, Any] | None) -> list[str]:
    digest, rows = hashlib.sha256(), 0
    for line in storage.lines(METADATA):
        digest.update(line)
        rows += 1
    if written is not None and written["sha256"] == digest.hexdigest():
        return []
    return [f"{METADATA}: it was changed: {rows} rows, {written['rows'] if written else 'none'} were written"]


def _checked(storage: Storage) -> Iterator[tuple[dict[str, Any], str | None]]:
    rows = manifest_rows(storage.lines(METADATA))
    for shard, those in groupby(rows, lambda row: row.get("shard")):
        if shard is None:
            for row in those:
                yield row, _fault(row, _read(storage, row["file_name"]))
        else:
            yield from _checked_shard(_read(storage, shard), list(those))


def _checked_shard(content: bytes | None, rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Each image of a shard; and where all are right, whether the shard is what follows from rows and images."""
    members = {} if content is None else _members(content)
    found = [members.get(member_name(row["file_name"])) for row in rows]
    faults = [_fault(row, image) for row, image in zip(rows, found, strict=True)]
    if not any(faults):
        inside = [{name: value for name, value in row.items() if name != "shard_bytes"} for row in rows]
        if content != shard_bytes(zip(inside, (image or b"" for image in found), strict=True)):
            faults = [f"its labels or metadata in {row['shard']} were changed" for row in rows]
    yield from zip(rows, faults, strict=True)


def _fault(row: dict[str, Any], content: bytes | None) -> str | None:
    if content is None:
        return "it is not there"
    if hashlib.sha256(content).hexdigest() != row["sha256"]:
        return f"it was changed: {len(content)} bytes, {row['bytes']} were written"
    return None


def _read(storage: Storage, name: str) -> bytes | None:
    try:
        return storage.read(name)
    except DataError:
        return None


def _members(content: bytes) -> dict[str, bytes]:
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None:
                    found[member.name] = file.read()
    except (tarfile.TarError, OSError, EOFError, ValueError):
        pass  # what could not be read is missing, and said to be
    return found
