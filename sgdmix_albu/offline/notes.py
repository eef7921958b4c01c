"""The note that a chunk is done: a row for each of its images, under a sum that shows whether it is whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["note_bytes", "read_note"]


def note_bytes(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A note.

    Example:
        >>> read_note(note_bytes([{"file_name": "owl/1.png"}]))
        [{'file_name': 'owl/1.png'}]
    """
    lines = b"".join(json.dumps(row, allow_nan=False).encode() + b"\n" for row in rows)
    return hashlib.sha256(lines).hexdigest().encode() + b"\n" + lines


def read_note(content: bytes) -> list[dict[str, Any]] | None:
    """The rows of a note; None where it is not what was written.

    Example:
        >>> read_note(note_bytes([{"file_name": "owl/1.png"}])[:-1]) is None
        True
    """
    digest, _, lines = content.partition(b"\n")
    if digest != hashlib.sha256(lines).hexdigest().encode():
        return None
    return [json.loads(line) for line in lines.splitlines()]
