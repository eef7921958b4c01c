"""A folder of files, on this machine or behind a URL that fsspec understands: read, write whole, list, remove."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from fsspec.core import url_to_fs

from sgdmix_albu.errors import DataError, SGDMixError
from sgdmix_albu.io.files import LARGEST, TEMPORARY, open_regular, path_inside, read_part, refusals_named, write_whole
from sgdmix_albu.io.places import is_url, local_path
from sgdmix_albu.io.remote import Opened, fetched, patiently

_LONGEST = 2**20  # bytes of a line; ours have about a thousand


class Storage:
    """One folder; names in it have forward slashes. Cheap to pickle.

    On this machine a file appears when it is complete and on disk. An object store shows an object when its upload
    has ended, which is the same promise; other remote file systems give what their driver gives.

    Args:
        root: A folder, made when the first file is written, or a URL.

    Raises:
        DataError: fsspec has no driver for the URL.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        # A file:// URL has locks and whole files too.
        self.root = os.fspath(local_path(root) or root).rstrip("/") or "/"
        self._remote: Any = None
        if not self.local:
            try:
                self._remote, self._top = url_to_fs(self.root)
            # Of any kind: there is no such driver, or it wants arguments that the URL does not have.
            except Exception as error:
                raise DataError(f"cannot open {self.root}: {' '.join(str(error).split())}") from error

    @property
    def local(self) -> bool:
        """Whether the folder is on this machine."""
        return not is_url(self.root)

    def below(self, name: str) -> Storage:
        """A folder in this folder."""
        return Storage(f"{self.root}/{name}")

    def path(self, name: str) -> str:
        """The whole path or URL of a file."""
        return f"{self.root}/{name}"

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """A file's content, or its bytes from ``start`` to ``end``.

        Raises:
            DataError: There is no such file, or it cannot be read: it is a pipe or a device, or too large for memory.
        """
        start = start or 0
        with self._told("read", name):
            if self._remote is not None:
                size = int(patiently(lambda: self._remote.info(self._inside(name)))["size"])
                stop = size if end is None else min(end, size)
                self._check_part(name, start, stop)
                return fetched(self._remote, self._inside(name), start, max(start, stop))
            with open_regular(self.path(name)) as file:
                size = os.fstat(file.fileno()).st_size
                stop = size if end is None else min(end, size)
                self._check_part(name, start, stop)
                return read_part(file, start, stop - start)

    def write(self, name: str, content: bytes) -> None:
        """A file, whole or not at all; what lies there is replaced.

        Raises:
            DataError: It was refused: no room, no permission.
        """
        if self._remote is None:
            write_whole(self._own(name), lambda file: file.write(content))
        else:
            with self._told("write", name):
                patiently(lambda: self._remote.pipe_file(self._inside(name), content))

    def write_lines(self, name: str, lines: Iterable[bytes]) -> None:
        """A file of lines that need not fit into memory together; whole or not at all.

        Raises:
            DataError: It was refused: no room, no permission.
        """
        if self._remote is None:
            write_whole(self._own(name), lambda file: file.writelines(lines))
            return
        # An upload that is given up halfway would be closed, which makes an object of it: upload when all is here.
        with tempfile.TemporaryDirectory(prefix=TEMPORARY) as folder:
            path = Path(folder) / "lines"
            with refusals_named(path), path.open("wb") as file:
                file.writelines(lines)
            with self._told("write", name):  # closed by now: Windows reads no file that is open elsewhere
                patiently(lambda: self._remote.put_file(str(path), self._inside(name)))

    def lines(self, name: str) -> Iterator[bytes]:
        """A file's lines, one after the other, each with its end.

        Raises:
            DataError: There is no such file, or it cannot be read; or a line is longer than any of ours.
        """
        with self.opened(name) as file:
            while line := file.readline(_LONGEST):
                if len(line) == _LONGEST:
                    raise DataError(f"cannot read {self.path(name)}: a line is longer than {_LONGEST} bytes")
                yield line

    def sha256(self, name: str) -> str:
        """SHA-256 of a file that need not fit into memory.

        Raises:
            DataError: There is no such file, or it cannot be read.
        """
        digest = hashlib.sha256()
        with self.opened(name) as file:
            while block := file.read(2**20):
                digest.update(block)
        return digest.hexdigest()

    @contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        """A file to read from any place of it.

        Raises:
            DataError: There is no such file, or it cannot be read: it is a pipe, or a device.
        """
        with self._told("read", name):
            if self._remote is None:
                with open_regular(self.path(name)) as file:
                    yield file
            else:
                with io.BufferedReader(Opened(self._remote, self._inside(name))) as file:
                    yield file

    def has(self, name: str) -> bool:
        """Whether there is such a file or folder.

        Raises:
            DataError: Nobody could say.
        """
        with self._told("read", name):
            if self._remote is None:
                return os.path.lexists(self.path(name))
            try:
                patiently(lambda: self._remote.info(self._inside(name)))  # exists() takes every fault for a no
            except FileNotFoundError:
                return False
            return True

    def files(self) -> Iterator[tuple[str, int]]:
        """Every file at any depth, by name, with its size in bytes; unfinished ones are not among them.

        Raises:
            DataError: A folder cannot be read.
        """
        with self._told("list", ""):
            sizes: Iterator[tuple[str, int]]
            if self._remote is not None:
                top, found = self._inside(""), patiently(self._found)
                sizes = ((path[len(top) :].lstrip("/"), int(about["size"])) for path, about in found.items())
            else:
                sizes = _walk(Path(self.root))
            for name, size in sizes:
                if not _unfinished(name):
                    yield name, size

    def sizes(self) -> dict[str, int]:
        """The same, all together."""
        return dict(self.files())

    def remove(self, name: str) -> None:
        """Remove a file, or a folder and all that is in it; nothing happens where it is not there.

        Raises:
            DataError: It was refused.
        """
        with self._told("remove", name):
            if self._remote is not None:
                with suppress(FileNotFoundError):
                    patiently(lambda: self._remote.rm(self._inside(name), recursive=True))
                return
            path = self._own(name)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def prune(self) -> None:
        """Remove empty folders. An object store has none."""
        if self.local:
            with self._told("remove", ""):
                folders = [folder for folder, _ in _scanned(Path(self.root))]
                for folder in reversed(folders[1:]):  # the inner first
                    if not os.listdir(folder):  # noqa: PTH208
                        Path(folder).rmdir()

    def sweep(self) -> None:
        """Remove what interrupted writers left. Nobody else may be writing."""
        if self.local:
            with self._told("list", ""):
                top = len(os.fspath(Path(self.root)))
                folders = _scanned(Path(self.root))
                found = [_slashed(entry.path[top:]) for _, those in folders for entry in those if _ours(entry)]
            for name in found:
                self.remove(name)

    def _found(self) -> dict[str, Any]:
        self._remote.invalidate_cache()  # what a driver has listed may have changed
        found: dict[str, Any] = self._remote.find(self._inside(""), detail=True)
        return found

    def _own(self, name: str) -> Path:
        """Where a file of this machine is written or removed: in the folder, and not through a link out of it."""
        return path_inside(Path(self.root), name)

    def _check_part(self, name: str, start: int, stop: int) -> None:
        if start < 0 or stop - start > LARGEST:
            raise DataError(
                f"cannot read {self.path(name)}: bytes {start} to {stop} of it, and {LARGEST} is the most at once"
            )

    @contextmanager
    def _told(self, action: str, name: str) -> Iterator[None]:
        """What is refused, in one line. Drivers have errors of their own for networks and stores, of every kind."""
        refusals = (OSError, RecursionError) if self._remote is None else (Exception,)  # shutil.rmtree calls itself
        try:
            yield
        except SGDMixError:
            raise
        except refusals as error:
            said = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"cannot {action} {self.path(name) if name else self.root}: {said}") from error

    def __reduce__(self) -> tuple[type[Storage], tuple[str]]:
        return Storage, (self.root,)

    def _inside(self, name: str) -> str:
        return f"{self._top.rstrip('/')}/{name}" if name else str(self._top)


def _unfinished(name: str) -> bool:
    last = name.rpartition("/")[2]
    return last.startswith(TEMPORARY) and last.endswith(".tmp")


def _ours(entry: os.DirEntry[str]) -> bool:
    """Whether it is what an interrupted writer left; asked of its name first, for there may be millions of files."""
    return _unfinished(entry.name) and not entry.is_dir(follow_symlinks=False)


def _slashed(below: str, separator: str = os.sep) -> str:
    r"""A path below the folder as a name in it, with forward slashes.

    Example:
        >>> _slashed("/owl/1.png"), _slashed("\\owl\\1.png", "\\")
        ('owl/1.png', 'owl/1.png')
    """
    return below.replace(separator, "/").lstrip("/")


def _walk(root: Path) -> Iterator[tuple[str, int]]:
    """Names and sizes of all files."""
    top = os.fspath(root)
    for _, entries in _scanned(root):
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                yield _slashed(entry.path.removeprefix(top)), entry.stat(follow_symlinks=False).st_size


def _scanned(root: Path) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Every folder, the outer first, and what is in it; without recursion, which a thousand in each other exhaust."""
    left = [os.fspath(root)] if root.is_dir() else []
    while left:
        folder = left.pop()
        with os.scandir(folder) as found:
            entries = list(found)
        yield folder, entries
        left += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
