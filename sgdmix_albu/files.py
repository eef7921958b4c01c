"""Files that appear whole or not at all, and what the operating system refuses, said in one line."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from sgdmix_albu.errors import DataError

__all__ = ["TEMPORARY", "refusals_named", "sha256_of", "stays_below", "umask", "write_whole"]

TEMPORARY = ".sgdmix-"  # how the names of unfinished files begin
# It can only be read by setting it, which no other thread may see.
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
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=TEMPORARY, suffix=".tmp", dir=unfinished_in or path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                content(file)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o666 & ~umask())  # mkstemp makes files that only their owner can read
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


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


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with Path(path).expanduser().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


@contextmanager
def refusals_named(path: Path) -> Iterator[None]:
    """What the operating system refuses while ``path`` is written, as one line."""
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot write {error.filename or path}: {error.strerror or error}") from error


def umask() -> int:
    """The permissions that new files of this process do not get, as they were when this module was loaded."""
    return _UMASK
