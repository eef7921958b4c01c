"""One process at a time writes into a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sgdmix_albu.errors import DataError
from sgdmix_albu.io.files import TEMPORARY, check_own, read_regular, refusals_named, write_whole
from sgdmix_albu.printable import printable

LOCK, HOLDER = ".sgdmix-lock", ".sgdmix-holder"
_LONGEST = 200  # bytes of what a holder says of itself


@contextmanager
def locked(folder: Path, command: str) -> Iterator[None]:
    """Nobody else writes into the folder meanwhile; a process that is killed holds no lock.

    Args:
        folder: The folder; made if it is not there.
        command: What others are told of this process, ``"sgdmix mix"``.

    Raises:
        DataError: Somebody does, and who; or the folder cannot be written.
    """
    lock, holder = folder / LOCK, folder / HOLDER
    with refusals_named(lock):
        folder.mkdir(parents=True, exist_ok=True)
        for path in (lock, holder):
            check_own(path)
        held = FileLock(lock, timeout=0)
        try:
            held.acquire()
        except Timeout:
            raise DataError(
                f"another sgdmix process is working on {folder}{_told(holder)}; wait until it ends"
            ) from None
    try:
        with refusals_named(folder):
            for path in folder.glob(f"{TEMPORARY}*.tmp"):  # what a killed holder had not finished
                if not path.is_dir():
                    path.unlink()
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        write_whole(holder, lambda file: file.write(f"process {os.getpid()}, {command}, since {since}".encode()))
        yield
    finally:
        holder.unlink(missing_ok=True)
        held.release()


def _told(holder: Path) -> str:
    """Who it is; nothing in the moment before it has said so."""
    try:
        return f" ({printable(read_regular(holder, _LONGEST).decode(errors='replace'))})"
    except DataError:
        return ""
