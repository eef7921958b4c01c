"""Ends the processes of a cluster that was started for a run, when the process that started it is gone.

Ray's own processes go with their parent, but some only look for it now and then, and report its loss to a cluster that
is gone too: after a kill they lived on for eight seconds. This file is run as a program by an interpreter of its own,
which waits for the end of its standard input. It imports nothing of the package, so as to start in an instant.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["Reaper"]

_MARK = "SGDMIX_CLUSTER"


class Reaper:
    """Kills what was started under :meth:`marking` once :meth:`end` is called, or this process is gone.

    Where there is no ``/proc`` it does nothing.
    """

    def __init__(self) -> None:
        self._name = uuid.uuid4().hex
        # A session of its own: Ctrl-C, or a kill of the process group, is not meant for it.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, self._name],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @contextmanager
    def marking(self) -> Iterator[None]:
        """Processes that are started meanwhile, and theirs, are the reaper's: their environment says so."""
        os.environ[_MARK] = self._name
        try:
            yield
        finally:
            del os.environ[_MARK]

    def end(self) -> None:
        """Kill what is left."""
        self._process.communicate()


def _reap(name: str) -> None:
    mark = f"{_MARK}={name}".encode()
    while True:
        found = [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if mark in _environment(folder)]
        if not found:
            return
        for process in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)


def _environment(folder: Path) -> list[bytes]:
    try:
        return (folder / "environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is somebody else's
        return []


if __name__ == "__main__":
    sys.stdin.read()  # ends when the other end of the pipe is closed, by a kill too
    _reap(sys.argv[1])
