"""A command in a session of its own: started, stopped, watched. Linux only.

Most commands are forked off this process, which has torch imported and has no threads: a new Python takes three
seconds until it begins to work, and a forked one does at once, so that an hour holds ten times the runs. What a forked
one does from then on is what a new one does. Those that must be new (``fresh``) are.
"""

from __future__ import annotations

import atexit
import importlib
import itertools
import os
import runpy
import shlex
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Command", "Ended", "Running", "warm_up"]

ROOT = Path(__file__).parents[2]
MARK = "SGDMIX_ATTACK"  # in the environment of what we start: Ray's processes leave their session
MEMORY = 2 * 2**30  # bytes of one process; one that works on our small images has 0.5
_LOOK = 0.02  # seconds
_LEFT = 20.0  # seconds that a command's other processes may outlive it; Ray's have agents that end one by one
_numbers = itertools.count()


@dataclass(frozen=True)
class Ended:
    """What became of a command."""

    command: Command
    code: int  # negative: the signal
    out: str
    err: str
    seconds: float
    hung: bool  # it had to be killed
    swollen: bool  # it had to be killed, because of its memory
    left: tuple[str, ...]  # processes of it that did not end with it


@dataclass(frozen=True)
class Command:
    """Words after ``python -m MODULE``."""

    words: tuple[str, ...]
    module: str = "sgdmix_albu"
    fresh: bool = False

    def __str__(self) -> str:
        return shlex.join(["python", "-m", self.module, *self.words])

    def start(self, notes: Path) -> Running:
        """Begin; ``notes`` is a folder for what the command says."""
        return Running(self, notes)

    def run(self, notes: Path, limit: float = 120) -> Ended:
        """From beginning to end."""
        return self.start(notes).wait(limit)


class Running:
    """A command that was started."""

    def __init__(self, command: Command, notes: Path) -> None:
        self.command = command
        self.mark = f"{os.getpid()}-{next(_numbers)}"
        self._files = [notes / f"{self.mark}.{name}" for name in ("out", "err")]
        for file in self._files:
            file.touch()  # it may be stopped before it has opened them
        self._code: int | None = None
        self._swollen = False
        self._began = time.monotonic()
        self.pid = self._new() if command.fresh else self._forked()

    def _environment(self) -> dict[str, str]:
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return {**os.environ, MARK: self.mark, "PYTHONPATH": paths}

    def _new(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", self.command.module, *self.command.words],
            self._environment(),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                *((os.POSIX_SPAWN_OPEN, place, file, flags, 0o600) for place, file in enumerate(self._files, 1)),
            ],
            setsid=True,
        )

    def _forked(self) -> int:
        threads = psutil.Process().num_threads()
        if threads != 1:
            raise RuntimeError(f"a process that is forked must have one thread, this one has {threads}")
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            os.setsid()
            os.environ.update(self._environment())  # of the processes that it starts
            handles = [os.open(os.devnull, os.O_RDONLY)]
            handles += [os.open(file, os.O_WRONLY | os.O_CREAT, 0o600) for file in self._files]
            for place, handle in enumerate(handles):
                os.dup2(handle, place)
            sys.argv = ["sgdmix", *self.command.words]
            runpy.run_module(self.command.module, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        # As Python ends; but the stack, with this process's folders to remove, is the parent's.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def ended(self) -> bool:
        """Whether it has, by itself or through a signal."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code is not None

    def pause(self, seconds: float) -> bool:
        """Let it work for so long; whether it is still at it. It is killed when it takes too much memory."""
        end = time.monotonic() + seconds
        while not self.ended() and time.monotonic() < end:
            time.sleep(min(_LOOK, max(end - time.monotonic(), 0)))
            self._weigh()
        return not self.ended()

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send it a signal; to its whole group, as a terminal does."""
        if not self.ended():
            (os.killpg if group else os.kill)(self.pid, number)

    def others(self) -> list[psutil.Process]:
        """The processes that it started, or that those did, as far as they live."""
        return [process for process in psutil.process_iter() if process.pid != self.pid and self._is_ours(process)]

    def wait(self, limit: float) -> Ended:
        """Until it ends, or for so many seconds; nothing of it is left."""
        hung = self.pause(limit) and not self._swollen
        if hung:
            self.signal(signal.SIGABRT)
            self.pause(1)
            self.signal(signal.SIGKILL)
        while not self.ended():
            time.sleep(_LOOK)
        seconds = time.monotonic() - self._began
        left = self._left()
        out, err = (file.read_bytes().decode(errors="surrogateescape") for file in self._files)
        assert self._code is not None
        return Ended(self.command, self._code, out, err, seconds, hung, self._swollen, left)

    def _left(self) -> tuple[str, ...]:
        end = time.monotonic() + _LEFT
        while (others := self.others()) and time.monotonic() < end:
            time.sleep(5 * _LOOK)
        for process in others:
            process.kill()
        return tuple(process.name() for process in others if process.is_running())

    def _weigh(self) -> None:
        try:
            heavy = psutil.Process(self.pid).memory_info().rss > MEMORY
        except psutil.Error:
            return
        if heavy:
            self._swollen = True
            self.signal(signal.SIGKILL)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return os.getsid(process.pid) == self.pid or process.environ().get(MARK) == self.mark
        except (psutil.Error, OSError):  # it has ended, or is someone else's
            return False


_USED = (
    *(f"sgdmix_albu.expand.{name}" for name in ("pipeline", "asked", "mix", "store.verify", "execute.worker")),
    *("sgdmix_albu.cli", "sgdmix_albu.bank.build", "sgdmix_albu.saliency.spectral_residual", "torch"),
)


def warm_up(*more: str) -> None:
    """Import what commands import, and ``more``, so that forked ones need not."""
    for name in (*_USED, *more):
        importlib.import_module(name)
