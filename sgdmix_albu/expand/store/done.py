"""The file that says that a chunk is done: a row for each of its images, under a sum that shows whether it is whole."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from typing import Any

from sgdmix_albu.expand.names import output_name
from sgdmix_albu.expand.store.manifest import ROW
from sgdmix_albu.io.records import UnsoundError, line, name_below, parse, record, text

_LARGEST = 2**26  # bytes; 512 rows of a shard have less than a million
_GAP = record({"file_name": output_name, "skipped": name_below, "reason": text()})


def done_bytes(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Its content.

    Example:
        >>> read_done(done_bytes([{"file_name": "owl/1.png", "skipped": "owl/1.jpg", "reason": "it is empty"}]))
        [{'file_name': 'owl/1.png', 'skipped': 'owl/1.jpg', 'reason': 'it is empty'}]
    """
    lines = b"".join(map(line, rows))
    return hashlib.sha256(lines).hexdigest().encode() + b"\n" + lines


def read_done(content: bytes) -> list[dict[str, Any]] | None:
    """Its rows: of the manifest, or of an output that could not be made. None where it is no such file.

    Example:
        >>> read_done(done_bytes([{"file_name": "owl/1.png"}])) is None
        True
    """
    digest, _, lines = content.partition(b"\n")
    if len(content) > _LARGEST or digest != hashlib.sha256(lines).hexdigest().encode():
        return None
    try:
        return [parse(one, _row) for one in io.BytesIO(lines)]
    except UnsoundError:
        return None


def _row(value: Any) -> Any:
    return _GAP(value) if isinstance(value, dict) and "skipped" in value else ROW(value)
