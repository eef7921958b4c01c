"""``sgdmix verify``: is everything there that the manifest names, and is it what was written?"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from sgdmix_albu.errors import DataError
from sgdmix_albu.images import IMAGE_SUFFIXES
from sgdmix_albu.offline.files import METADATA
from sgdmix_albu.offline.progress import Progress
from sgdmix_albu.offline.run import RUN, manifest_rows
from sgdmix_albu.offline.shards import member_name
from sgdmix_albu.offline.storage import Storage

__all__ = ["Verified", "verify"]


@dataclass(frozen=True)
class Verified:
    """What was found; ``str()`` of it is what the command prints.

    Attributes:
        images: Rows of the manifest.
        wrong: Names and what is wrong with them.
        strangers: Images that the manifest does not name.
    """

    images: int
    wrong: list[str]
    strangers: list[str]

    @property
    def good(self) -> bool:
        """Whether everything is as it was written, and nothing besides."""
        return not self.wrong and not self.strangers

    def __str__(self) -> str:
        lines = [f"wrong    {one}" for one in self.wrong]
        lines += [f"stranger {one}: not in {METADATA}" for one in self.strangers]
        lines.append(f"verified {self.images - len(self.wrong)} of {self.images} images")
        return "\n".join(lines)


def verify(out: str | os.PathLike[str], *, progress: Progress | None = None) -> Verified:
    """Compare a folder that :func:`sgdmix_albu.offline.pipeline` wrote with its manifest, byte by byte.

    Args:
        out: The folder or its URL.
        progress: Where to report; None for stderr.

    Raises:
        DataError: No such folder, not finished, or a damaged manifest.
    """
    storage, progress = Storage(out), progress or Progress()
    if not storage.has(METADATA):
        begun = storage.has(RUN)
        raise DataError(
            f"{out} is not finished: run the same `sgdmix generate` again" if begun else f"{out} has no {METADATA}"
        )
    rows = list(manifest_rows(storage.lines(METADATA)))
    wrong = [
        f"{row['file_name']}: {fault}"
        for row, fault in progress.over(_checked(storage, rows), "verifying", len(rows))
        if fault is not None
    ]
    named = {row.get("shard", row["file_name"]) for row in rows}
    there = [name for name in storage.sizes() if PurePosixPath(name).suffix.lower() in {*IMAGE_SUFFIXES, ".tar"}]
    return Verified(len(rows), wrong, sorted(set(there) - named))


def _checked(storage: Storage, rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str | None]]:
    shard, members = None, {}
    for row in rows:
        if "shard" not in row:
            yield row, _fault(row, _read(storage, row["file_name"]))
            continue
        if row["shard"] != shard:
            shard, members = row["shard"], _members(storage, row["shard"])
        yield row, _fault(row, members.get(member_name(row["file_name"])))


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


def _members(storage: Storage, shard: str) -> dict[str, bytes]:
    content = _read(storage, shard)
    if content is None:
        return {}
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None:
                    found[member.name] = file.read()
    except (tarfile.TarError, OSError, EOFError):
        pass  # what could not be read is missing, and said to be
    return found
