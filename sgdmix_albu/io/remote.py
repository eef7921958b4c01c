"""What lies behind a URL: parts of objects, read by their places, and patience with networks that fail for a moment."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sgdmix_albu.errors import SGDMixError

T = TypeVar("T")

_WAITS = (0.2, 1.0, 5.0)  # seconds before the second, third and fourth try
_BLOCK = 4 * 2**20  # bytes that are fetched at once of what is read on
# An answer, and not a failure to get one: asked again, it would be the same.
_ANSWERS = (
    SGDMixError,
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    ImportError,
    NotImplementedError,
)


class TruncatedError(OSError):
    """Fewer bytes came than were asked for."""


def patiently(ask: Callable[[], T]) -> T:
    """What a store says, asked up to four times while it does not answer: timeouts, 503, connections that break off.

    What is asked must mean the same however often it is done: reading, listing, removing, writing a whole object.

    Args:
        ask: Asks it.

    Raises:
        Exception: What the last try raised.
    """
    for wait in _WAITS:
        try:
            return ask()
        except _ANSWERS:
            raise
        except Exception:  # drivers have errors of their own
            time.sleep(wait)
    return ask()


def fetched(store: Any, path: str, start: int, end: int) -> bytes:
    """Bytes of an object from ``start`` to ``end``, which it must have.

    Args:
        store: fsspec's file system.
        path: The object.
        start: Where to begin.
        end: Where to stop.
    """

    def ask() -> bytes:
        content: bytes = store.cat_file(path, start=start, end=end) if end > start else b""
        if len(content) != end - start:
            raise TruncatedError(f"got {len(content)} bytes, expected {end - start}")
        return content

    return patiently(ask)


class Opened(io.RawIOBase):
    """An object to read from any place of it, a block at a time: no more of it is fetched than what is looked at.

    Args:
        store: fsspec's file system.
        path: The object.
    """

    def __init__(self, store: Any, path: str) -> None:
        self._store, self._path = store, path
        self._size = int(patiently(lambda: store.info(path))["size"])
        self._at = 0
        self._block, self._block_at = b"", 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Nothing is fetched for it."""
        self._at = max(offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence], 0)
        return self._at

    def tell(self) -> int:
        """Where it is."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """As much as there is in the block that is at hand; another is fetched where none is."""
        inside = self._at - self._block_at
        if not 0 <= inside < len(self._block):
            end = min(self._at + _BLOCK, self._size)
            self._block, self._block_at, inside = b"", self._at, 0
            self._block = fetched(self._store, self._path, self._at, max(end, self._at))
        part = self._block[inside : inside + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)
