"""``metadata.jsonl``: a row for each image that was written, in the plan's order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sgdmix_albu.errors import DataError
from sgdmix_albu.expand.names import METADATA, output_name
from sgdmix_albu.expand.plan.rows import UNMIXED
from sgdmix_albu.expand.store.shards import is_shard
from sgdmix_albu.io.records import UnsoundError, name_below, one_of, optional, parse, record, sha256, text, whole


def _shard(value: Any) -> str:
    if not isinstance(value, str) or not is_shard(value):
        raise UnsoundError(f"expected the name of a shard, got {value!r:.60}")
    return value


ROW = record(
    {
        "file_name": output_name,
        "label": text(),
        "label_index": whole(),
        "source": name_below,
        "target": optional(name_below),
        "source_sha256": sha256,
        "target_sha256": optional(sha256),
        "bytes": whole(),
        "sha256": sha256,
    },
    may={"shard": _shard, "shard_bytes": whole(), "unmixed_because": optional(one_of(*UNMIXED))},
    others=True,
)


def manifest_row(line: bytes) -> dict[str, Any] | None:
    """A line of a manifest; None where it is not one.

    Example:
        >>> manifest_row(b'{"file_name": "../1.png"}') is None
        True
    """
    try:
        row: dict[str, Any] = parse(line, ROW)
    except UnsoundError:
        return None
    return row if ("shard" in row) == ("shard_bytes" in row) else None


def manifest_rows(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Rows of a manifest.

    Raises:
        DataError: A line is not one.
    """
    for number, line in enumerate(lines, start=1):
        row = manifest_row(line)
        if row is None:
            raise DataError(f"line {number} of {METADATA} is damaged")
        yield row


class Inventory:
    """How many files there are, and a sum over their names and sizes: two sets of files are told apart by it.

    The order does not matter, and nothing of a file is kept: a run may have ten million.

    Example:
        >>> one, other = Inventory(), Inventory()
        >>> one.add("owl/1.png", 9), one.add("owl/2.png", 7), other.add("owl/2.png", 7), other.add("owl/1.png", 9)
        (None, None, None, None)
        >>> one.said() == other.said(), one.said()["files"]
        (True, 2)
    """

    def __init__(self) -> None:
        self._count, self._sum = 0, 0

    def add(self, name: str, size: int) -> None:
        """One more file."""
        digest = hashlib.blake2b(f"{size} {name}".encode("utf-8", "surrogateescape"), digest_size=16).digest()
        self._count += 1
        self._sum = (self._sum + int.from_bytes(digest, "little")) % 2**128

    def said(self) -> dict[str, Any]:
        """As it is noted."""
        return {"files": self._count, "sum": f"{self._sum:032x}"}


def file_of(row: Mapping[str, Any]) -> tuple[str, int]:
    """The file that a row's image is in, and that file's size."""
    return (row["shard"], row["shard_bytes"]) if "shard" in row else (row["file_name"], row["bytes"])


def is_there(row: Mapping[str, Any], sizes: Mapping[str, int]) -> bool:
    """Whether a row's file is among those of the folder, with the size that was written.

    Example:
        >>> is_there({"file_name": "owl/1.png", "bytes": 9}, {"owl/1.png": 9})
        True
    """
    name, size = file_of(row)
    return sizes.get(name) == size
