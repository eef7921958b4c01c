"""Ends the processes of a cluster that was started for a run, when the process that started it is gone.

Ray's own processes go with their parent, but some only look for it now and then, and report its loss to a cluster that
is gone too: after a kill they lived on for eight seconds. This file is run as a program by an interpreter of its own,
which waits for the end of its standard input. It imports nothing of the package, so as to start in an instant.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PROCESSES = Path("/proc")
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
_MARK = "SGDMIX_CLUSTER"
_IN_ORDER = b"in order"  # what is told to it; of one that was killed it hears nothing
# Seconds: a process that was being forked when its parent was killed bears no mark yet.
_PATIENCE = 5.0


class Reaper:
    """Kills what was started under :meth:`marking` once :meth:`end` is called, or this process is gone.

    Where there is no ``/proc`` (macOS, Windows) it does nothing.
    """

    def __init__(self) -> None:
        self._name = uuid.uuid4().hex
        self._process: subprocess.Popen[bytes] | None = None
        if not _PROCESSES.is_dir():
            return
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
        if self._process is not None:
            self._process.communicate(_IN_ORDER)


class _Marked:
    """The processes that bear a mark, and those that did: Ray's agents overwrite their environment with a title."""

    def __init__(self, name: str) -> None:
        self._mark = f"{_MARK}={name}".encode()
        self._seen: dict[int, bytes] = {}

    def look(self) -> None:
        """Remember who bears it now."""
        for folder in _PROCESSES.glob("[0-9]*"):
            if self._mark in _content(folder / "environ").split(b"\0"):
                self._seen[int(folder.name)] = _began(int(folder.name))

    def kill(self) -> bool:
        """Kill them; whether there was one."""
        self.look()
        alive = [process for process, began in self._seen.items() if began and _began(process) == began]
        for process in alive:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, _KILL)
        return bool(alive)


def _began(process: int) -> bytes:
    """When a process began, which tells it from a later one of its number; nothing where it has ended."""
    _, _, fields = _content(_PROCESSES / str(process) / "stat").rpartition(b")")
    state, *others = fields.split() or [b"X"]
    return b"" if state in b"XZ" else others[18]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process has ended, or is somebody else's
        return b""


def _watch(name: str) -> None:
    """Look who there is, until the other end of the pipe is closed, by a kill too; then kill them."""
    marked, began = _Marked(name), time.monotonic()
    # Agents bear their mark for the second in which they are starting, which is mostly when the cluster does.
    while not select.select([sys.stdin], [], [], 0.2 if time.monotonic() - began < 60 else 1)[0]:
        marked.look()
    patience = 0 if sys.stdin.buffer.read() == _IN_ORDER else _PATIENCE
    seen = time.monotonic()
    while marked.kill() or time.monotonic() - seen < patience:
        time.sleep(0.02)


if __name__ == "__main__":
    _watch(sys.argv[1])
