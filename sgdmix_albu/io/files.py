"""Files that appear whole or not at all, and what the operating system refuses, said in one line."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from sgdmix_albu.errors import DataError

TEMPORARY = ".sgdmix-"  # how the names of unfinished files begin
LARGEST = 2**30  # bytes that are read into memory at once; an image of the most pixels that are read has half of it
# Permissions that new files of this process do not get; read by setting it, which no other thread may see.
_UMASK = os.umask(0)
os.umask(_UMASK)


def write_whole(
    path: str | os.PathLike[str],
    content: Callable[[BinaryIO], object],
    *,
    unfinished_in: str | os.PathLike[str] | None = None,
) -> None:
    """Let ``content`` write a file that appears under its name when it is complete and on disk.

    Args:
        path: The file; its folder is made if it is not there. What lies there is replaced.
        content: Writes into the open binary file that it is given.
        unfinished_in: Folder on the same file system for the file while it is written; None for its own.

    Raises:
        DataError: The operating system refused.

    Example:
        >>> file = Path(tempfile.mkdtemp()) / "note.txt"
        >>> write_whole(file, lambda out: out.write(b"whole"))
        >>> file.read_text()
        'whole'
    """
    path = Path(path)
    with refusals_named(path):
        make_folder(path.parent)
        handle, temporary = tempfile.mkstemp(prefix=TEMPORARY, suffix=".tmp", dir=unfinished_in or path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                content(file)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o666 & ~_UMASK)  # mkstemp makes files that only their owner can read
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def check_new(folder: Path) -> None:
    """Refuse to fill what is neither absent nor an empty folder.

    Raises:
        DataError: It holds something, or is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: expected an empty folder or a new one")


@contextmanager
def beside(folder: Path) -> Iterator[Path]:
    """A new folder beside ``folder``, to be filled and then moved to its name; what is left of it is removed.

    Raises:
        DataError: The operating system refused.
    """
    with refusals_named(folder):
        make_folder(folder.parent)
        unfinished = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder.parent))
        try:
            unfinished.chmod(0o777 & ~_UMASK)  # mkdtemp makes folders that only their owner can read
            yield unfinished
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def move_folder(filled: Path, folder: Path) -> None:
    """Give a filled folder its name, which an empty folder may have: Windows replaces none, so that one goes first.

    Raises:
        OSError: The folder is not empty, or the operating system refused.
    """
    with suppress(FileNotFoundError):
        folder.rmdir()
    filled.replace(folder)


def make_folder(folder: Path) -> None:
    """A folder and those that it lies in, if they are not there.

    ``mkdir(parents=True)`` calls itself for each of them, and a data set may have a thousand in each other.
    """
    missing = list(takewhile(lambda one: not one.is_dir(), (folder, *folder.parents)))
    for one in reversed(missing):
        one.mkdir(exist_ok=True)


def stays_below(name: str) -> bool:
    """Whether a name with forward slashes lies in the folder that it is relative to.

    Example:
        >>> stays_below("owl/1.png"), stays_below("../owl/1.png"), stays_below("/owl/1.png")
        (True, False, False)
    """
    path = PurePosixPath(name)
    return not (
        not path.parts
        or ".." in path.parts
        or path.is_absolute()
        or (os.name == "nt" and PureWindowsPath(name).anchor)
        or "\0" in name
    )


def path_inside(folder: Path, name: str) -> Path:
    """Where a file with a name of forward slashes is written in a folder.

    Raises:
        DataError: It would lie outside, by ``..``, an absolute name or a link.
    """
    if not stays_below(name):
        raise DataError(f"refused to write {name!r}: it is not inside {folder}")
    path = folder.joinpath(*PurePosixPath(name).parts)
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"refused to write {path}: a link leads out of {folder}")
    return path


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a file for reading, if it is a file: a pipe would be waited for, and a device may never end.

    Raises:
        DataError: It is a folder, a pipe, a socket or a device, or a link to one; is not there; cannot be read.

    Example:
        >>> open_regular("/dev/zero")
        Traceback (most recent call last):
        ...
        sgdmix_albu.errors.DataError: cannot read /dev/zero: it is a device, not a file
    """
    path = Path(path).expanduser()
    try:
        _check_regular(path, path.stat())  # asked first: to open a device may do something already
        # Not to wait for the other end of a pipe, should one have taken the file's place meanwhile.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        file: io.BufferedReader = os.fdopen(handle, "rb")
    except DataError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        _check_regular(path, os.fstat(file.fileno()))
    except DataError:
        file.close()
        raise
    return file


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """A file's content.

    Args:
        path: The file.
        most: Bytes that it may have: the file may be anyone's, and larger than the memory.

    Raises:
        DataError: As of :func:`open_regular`; or the file is larger.
    """
    with open_regular(path) as file, refusals_named(path, "read"):
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise DataError(f"cannot read {path}: it has {size} bytes, the limit is {most}")
        return file.read(size)


def read_part(file: BinaryIO, start: int, size: int) -> bytes:
    """Bytes of an open file from ``start`` on: ``size``, which may be anyone's claim, or those that are there."""
    there = file.seek(0, os.SEEK_END)
    file.seek(min(start, there))
    return file.read(max(min(size, LARGEST, there - start), 0))


def kind_of_file(mode: int) -> str | None:
    """What a file is by its mode, where it is not a regular one; None where it is.

    Example:
        >>> kind_of_file(os.stat("/dev/null").st_mode)
        'a device'
    """
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        DataError: The file cannot be read.
    """
    with open_regular(path) as file, refusals_named(path, "read"):
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_regular(path: Path, status: os.stat_result) -> None:
    kind = kind_of_file(status.st_mode)
    if kind is not None:
        raise DataError(f"cannot read {path}: it is {kind}, not a file")


def check_own(path: Path) -> None:
    """Refuse to write into a file in place where a link, which may lead to a file of the user's, or no file lies.

    Raises:
        DataError: One does.
    """
    if os.path.lexists(path) and kind_of_file(path.lstat().st_mode) is not None:
        raise DataError(f"{path} is not a file that sgdmix wrote; remove it")


@contextmanager
def refusals_named(path: str | os.PathLike[str], action: str = "write") -> Iterator[None]:
    """What the operating system refuses while ``path`` is written, or read, as one line."""
    try:
        yield
    except OSError as error:
        named = os.fsdecode(error.filename or path)
        if Path(named).name.startswith(TEMPORARY) and named.endswith(".tmp"):  # it was to become ``path``
            named = str(path)
        raise DataError(f"cannot {action} {named}: {error.strerror or error}") from error
