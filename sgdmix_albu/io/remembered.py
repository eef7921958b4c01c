"""Files of another machine, kept for a while: a target is looked at for many outputs, a source for each of its own."""

from __future__ import annotations

import threading
from collections import OrderedDict

from sgdmix_albu.io.storage import Storage

MOST = 256 * 2**20  # bytes that a worker keeps


class Remembered:
    """A folder behind a URL whose files are fetched once, as long as there is room; safe to share between threads.

    Args:
        storage: The folder.
        most: Bytes that are kept; those that were used longest ago go first.

    Example:
        >>> import tempfile
        >>> folder = Storage(tempfile.mkdtemp())
        >>> folder.write("owl.jpg", b"an owl")
        >>> images = Remembered(folder)
        >>> before = images.read("owl.jpg")
        >>> folder.remove("owl.jpg")
        >>> images.read("owl.jpg")
        b'an owl'
    """

    def __init__(self, storage: Storage, most: int = MOST) -> None:
        self._storage, self._most = storage, most
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def read(self, key: str) -> bytes:
        """A file's content; errors as of :meth:`Storage.read`."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        content = self._storage.read(key)
        with self._lock:
            if key not in self._kept and len(content) <= self._most:
                self._kept[key] = content
                self._size += len(content)
            while self._size > self._most:
                self._size -= len(self._kept.popitem(last=False)[1])
        return content

    def path(self, key: str) -> str:
        """What messages call it."""
        return self._storage.path(key)
