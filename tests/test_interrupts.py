"""Ctrl-C: the first ends the work in good order and says so, a second at once; workers go with their parent."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from sgdmix_albu.errors import SGDMixError
from sgdmix_albu.expand.execute import pools as working
from sgdmix_albu.expand.execute.local import LocalEngine
from sgdmix_albu.io.interrupts import Interrupts
from sgdmix_albu.io.progress import Progress

Kind = Literal["threads", "processes"]
both = pytest.mark.parametrize("kind", ["threads", "processes"])


class Worker:
    """Says in a folder what it began and ended; takes its time in short steps, as real work does."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds

    def __call__(self, item: int) -> int:
        (self.folder / f"begun {item} by {os.getpid()}").touch()
        if item < 0:
            raise SGDMixError(f"item {item}")
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            time.sleep(0.01)
        (self.folder / f"ended {item}").touch()
        return item


def numbers(folder: Path, what: str) -> list[int]:
    return sorted(int(path.name.split()[1]) for path in folder.glob(f"{what} *"))


def press(folder: Path, begun: int, times: int) -> threading.Thread:
    """Ctrl-C, so many times, once so many items are begun."""

    def wait_and_press() -> None:
        while len(numbers(folder, "begun")) < begun:
            time.sleep(0.01)
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)

    thread = threading.Thread(target=wait_and_press)
    thread.start()
    return thread


@both
def test_the_first_lets_them_finish_what_is_begun(kind: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    got = deque[int]()
    results = LocalEngine(2, kind).run(partial(Worker, tmp_path, 2.0), range(9))
    thread = press(tmp_path, begun=2, times=1)
    with pytest.raises(KeyboardInterrupt):
        got.extend(results)
    thread.join()
    assert sorted(got) == numbers(tmp_path, "begun") == numbers(tmp_path, "ended")
    assert len(got) == 2
    assert "waiting for 2 workers to finish their images; Ctrl-C again stops at once" in caplog.text
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@both
def test_the_second_stops_them_at_once(kind: Kind, tmp_path: Path) -> None:
    engine = LocalEngine(2, kind, Progress(quiet=True))
    thread = press(tmp_path, begun=2, times=2)
    with pytest.raises(KeyboardInterrupt):
        list(engine.run(partial(Worker, tmp_path, 600.0), range(9)))  # longer than the suite may take
    thread.join()
    assert len(numbers(tmp_path, "begun")) == 2
    assert numbers(tmp_path, "ended") == []
    gone(int(path.name.split()[-1]) for path in tmp_path.glob("begun *"))


@both
def test_an_error_of_one_item_lets_the_others_finish(kind: Kind, tmp_path: Path) -> None:
    with pytest.raises(SGDMixError, match="item -1"):
        list(LocalEngine(2, kind).run(partial(Worker, tmp_path, 0.5), [1, -1]))
    assert numbers(tmp_path, "ended") == [1]


def test_a_worker_that_takes_long_to_make_is_not_waited_for(tmp_path: Path) -> None:
    """Threads share one, which is made in the main thread: a model that loads for a minute."""

    def slow() -> Any:
        (tmp_path / "begun 0").touch()
        time.sleep(600)

    thread = press(tmp_path, begun=1, times=1)
    with pytest.raises(KeyboardInterrupt):
        list(LocalEngine(2).run(slow, [1, 2]))
    thread.join()


def test_an_error_while_a_worker_is_made(tmp_path: Path) -> None:
    with pytest.raises(SGDMixError, match="no such weights"):
        list(LocalEngine(2, "processes").run(refuse, [1, 2]))


def refuse() -> Any:
    raise SGDMixError("no such weights")


def test_a_fault_while_a_worker_is_made(tmp_path: Path) -> None:
    """It is not called a process that was killed."""
    with pytest.raises(ZeroDivisionError) as caught:
        list(LocalEngine(2, "processes").run(partial(divide, 0), [1, 2]))  # type: ignore[arg-type]
    assert "in divide" in caught.value.__notes__[0]


def test_a_fault_of_ours_shows_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        list(LocalEngine(2, "processes").run(partial(partial, divide), [0, 0]))
    assert "in divide" in caught.value.__notes__[0]


@pytest.mark.parametrize("gpus", [0, 1])  # a process for each item, and one with two threads
def test_a_worker_that_leaves(gpus: int) -> None:
    """Nobody waits for what it will never send."""
    with pytest.raises(SGDMixError, match="a worker process died"):
        list(LocalEngine(2, "processes", gpus=gpus).run(partial(partial, sys.exit), [3, 3]))


def divide(item: int) -> float:
    return 1 / item


PARENT = """
import sys
sys.path.insert(0, sys.argv[2])
from functools import partial
from pathlib import Path
from sgdmix_albu.expand.execute.local import LocalEngine
from test_interrupts import Worker

if __name__ == "__main__":
    list(LocalEngine(2, "processes").run(partial(Worker, Path(sys.argv[1]), 600.0), range(9)))
"""


def test_workers_go_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program, folder = tmp_path / "program.py", tmp_path / "begun"
    program.write_text(PARENT)
    folder.mkdir()
    parent = subprocess.Popen([sys.executable, program, folder, Path(__file__).parent], stderr=subprocess.PIPE)
    while len(numbers(folder, "begun")) < 2:
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    said = parent.communicate()[1]
    gone(int(path.name.split()[-1]) for path in folder.glob("begun *"))
    assert said == b""  # nobody complains of what was left behind


def gone(processes: Iterator[int]) -> None:
    """All have ended, or do so within a moment; this process is not meant."""
    deadline = time.monotonic() + 20  # on a machine that is busy; it takes some milliseconds
    for process in set(processes) - {os.getpid()}:
        while Path(f"/proc/{process}/cmdline").exists() and Path(f"/proc/{process}/cmdline").read_bytes():
            assert time.monotonic() < deadline, f"process {process} lives on"
            time.sleep(0.01)


CHILD = """
import signal, sys, threading, time
from functools import partial
sys.path.insert(0, sys.argv[1])
from sgdmix_albu.expand.execute.pools import Processes
from test_interrupts import divide

if __name__ == "__main__":
    workers = Processes(2, partial(partial, divide))
    print("started", flush=True)
    sys.stdin.readline()
    for item in (1, 2):
        workers.give(item)
    done = []
    while len(done) < 2:
        done += workers.results(0.1)
    print(sorted(done), signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()), flush=True)
    workers.end(at_once=False)
"""


def test_ctrl_c_while_workers_start_is_the_parents_alone(tmp_path: Path) -> None:
    """A terminal sends it to all processes; Python, which is being started, would print a traceback for each."""
    program = tmp_path / "program.py"
    program.write_text(CHILD)
    parent = subprocess.Popen(
        [sys.executable, program, Path(__file__).parent],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "started\n"
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent.pid:
                os.kill(int(folder.name), signal.SIGINT)
    out, err = parent.communicate("\n")
    assert (out, err) == ("[0.5, 1.0] False\n", "")


ENDING = """
import atexit, os, signal, sys
from sgdmix_albu import cli

cli.main = lambda: int(sys.argv[1])
atexit.register(lambda: (os.kill(os.getpid(), signal.SIGINT), print("never seen", flush=True)))
cli.run()
"""


@pytest.mark.parametrize("code", [0, 2, 130])
def test_ctrl_c_while_python_ends(code: int) -> None:
    done = subprocess.run([sys.executable, "-c", ENDING, str(code)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


TWICE = """
import os, signal, time
from sgdmix_albu.io.interrupts import Interrupts

try:
    with Interrupts(raising=True):
        with Interrupts() as held:
            os.kill(os.getpid(), signal.SIGINT)
            print(held.count, flush=True)
        os.kill(os.getpid(), signal.SIGINT)
finally:
    print("never seen", flush=True)
"""


def test_a_command_ends_at_the_second() -> None:
    """One that was held back counts."""
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "1\n", "\nsgdmix: stopped\n")


STUCK = """
import io, os, signal, sys, threading, time
from sgdmix_albu.io.interrupts import Interrupts
from sgdmix_albu.expand.execute.local import LocalEngine

def press():
    for _ in range(2):
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=press).start()
with Interrupts(raising=True):
    list(LocalEngine(1).run(lambda: time.sleep, [600]))  # one instruction, as a read that a network never answers
"""


def test_a_command_ends_at_the_second_whatever_its_threads_are_in() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (130, "sgdmix: stopped")


@both
def test_one_while_the_workers_are_let_go(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is done, and yet it was pressed."""
    of_kind = working.Threads if kind == "threads" else working.Processes
    end = of_kind.end

    def slow(self: Any, *, at_once: bool) -> None:
        signal.raise_signal(signal.SIGINT)
        end(self, at_once=at_once)

    monkeypatch.setattr(of_kind, "end", slow)
    with pytest.raises(KeyboardInterrupt):
        list(LocalEngine(2, kind).run(partial(Worker, tmp_path, 0.0), [1, 2]))
    assert numbers(tmp_path, "ended") == [1, 2]


def test_a_handler_of_the_callers_own_is_left_alone() -> None:
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (heard, interrupts.count) == ([1], 0)


def test_other_threads_have_no_handler() -> None:
    entered = []

    def enter() -> None:
        with Interrupts():
            entered.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [signal.default_int_handler]


CLUSTER = """
import subprocess, sys, time

AGENT = "import os, time; time.sleep(1); print(1, flush=True); os.execve('/bin/sleep', ['ray::Agent', '600'], {})"
from sgdmix_albu.expand.execute.reaper import Reaper

reaper = Reaper()
with reaper.marking():
    one = subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=subprocess.DEVNULL)
    # As Ray's agents do, it bears its mark at first only: its environment becomes a title.
    agent = subprocess.Popen([sys.executable, "-c", AGENT], stdout=subprocess.PIPE, start_new_session=True, text=True)
agent.stdout.readline()
other = subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=subprocess.DEVNULL)
print(one.pid, agent.pid, other.pid, flush=True)
if sys.argv[1] == "ends":
    reaper.end()
    print(one.wait(), other.poll(), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the reaper looks for processes in /proc")
@pytest.mark.parametrize("how", ["ends", "is killed"])
def test_a_cluster_goes_with_the_run_that_started_it(how: str) -> None:
    """Ray's agents do so by themselves, but took eight seconds."""
    parent = subprocess.Popen([sys.executable, "-c", CLUSTER, how], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    one, agent, other = map(int, parent.stdout.readline().split())
    try:
        if how == "ends":
            assert parent.stdout.readline() == f"{-signal.SIGKILL} None\n"
        parent.kill()
        gone(iter([one, agent]))
        assert Path(f"/proc/{other}/cmdline").read_bytes()  # not the run's
    finally:
        parent.communicate()
        os.kill(other, signal.SIGKILL)
