"""Sums that show whether a file is what was written: of lines, by the way, and of what a JSON file says."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


class Summed:
    r"""Lines as they pass; what is known of them is known once all have passed.

    Args:
        lines: The lines, each with its end.

    Attributes:
        rows: How many have passed.

    Example:
        >>> lines = Summed([b"owl\n", b"tit\n"])
        >>> list(lines), lines.rows, lines.sha256[:8]
        ([b'owl\n', b'tit\n'], 2, 'cef9769d')
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines, self._digest = lines, hashlib.sha256()
        self.rows = 0

    def __iter__(self) -> Iterator[bytes]:
        for line in self._lines:
            self._digest.update(line)
            self.rows += 1
            yield line

    def all(self) -> Summed:
        """Itself, when all have passed."""
        deque(self, maxlen=0)
        return self

    @property
    def sha256(self) -> str:
        """Of the lines that have passed, in hexadecimal."""
        return self._digest.hexdigest()


def sum_of(fields: Mapping[str, Any]) -> str:
    """SHA-256 of an object as JSON, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
