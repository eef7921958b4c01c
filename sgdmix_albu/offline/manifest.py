"""``metadata.jsonl``: a row for each image that was written, in the plan's order."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sgdmix_albu.errors import DataError
from sgdmix_albu.offline.files import METADATA
from sgdmix_albu.offline.tasks import check_below

__all__ = ["is_there", "manifest_row", "manifest_rows"]

_FIELDS = {
    "file_name": str,
    "label": str,
    "label_index": int,
    "source": str,
    "target": str,
    "sha256": str,
    "bytes": int,
}


def manifest_row(line: bytes) -> dict[str, Any] | None:
    """A line of a manifest; None where it is not one.

    Example:
        >>> manifest_row(b'{"file_name": "../1.png"}') is None
        True
    """
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError, DataError):
        row = json.loads(line)
        check_below(row["file_name"], row.get("shard", row["file_name"]))
        sound = all(isinstance(row[name], kind) for name, kind in _FIELDS.items())
        if sound and ("shard" not in row or isinstance(row["shard_bytes"], int)):
            return row  # type: ignore[no-any-return]
    return None


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


def is_there(row: Mapping[str, Any], sizes: Mapping[str, int]) -> bool:
    """Whether a row's file is among those of the folder, with the size that was written.

    Example:
        >>> is_there({"file_name": "owl/1.png", "bytes": 9}, {"owl/1.png": 9})
        True
    """
    if "shard" in row:
        return bool(sizes.get(row["shard"]) == row["shard_bytes"])
    return bool(sizes.get(row["file_name"]) == row["bytes"])
