"""Workers of this machine: threads, or processes. Both finish what they have begun, or are stopped at once.

The processes are not a :class:`concurrent.futures.ProcessPoolExecutor`: that waits for ever after a second Ctrl-C
(bpo-45274), begins more than it can be made to drop, and leaves semaphores behind that Python complains of when the
parent was killed. Each is at the end of a pipe: one that is killed is noticed, and none outlives the parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import Any, NamedTuple, Protocol

import torch

from sgdmix_albu.errors import SGDMixError
from sgdmix_albu.expand.execute.guard import with_guard

if sys.platform == "win32":
    from multiprocessing.connection import PipeConnection as Connection
else:
    from multiprocessing.connection import Connection

_NOT_STARTED = 1  # Python's exit code after an error that nobody caught: here, before there was a worker
_LEFT = 3
_MOMENT = 5.0  # seconds


class Workers(Protocol):
    """Do one item at a time each."""

    @property
    def busy(self) -> int:
        """How many have something."""
        ...

    def give(self, item: Any) -> None:
        """Let an idle one do an item."""
        ...

    def results(self, seconds: float) -> Iterator[Any]:
        """What was done, waiting so many seconds at most.

        Raises:
            SGDMixError: A process died.
            Exception: What an item's work raised.
        """
        ...

    def end(self, *, at_once: bool) -> None:
        """Let them go, when those that have something have finished it, or at once."""
        ...


class Threads:
    """Threads that share one worker; see :class:`Workers`.

    Args:
        count: How many.
        worker: Does an item.
    """

    def __init__(self, count: int, worker: Callable[[Any], Any]) -> None:
        self._worker = worker
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="sgdmix")
        self._waiting: set[Future[Any]] = set()
        self._lock = threading.Lock()
        self._at_work: set[int] = set()

    @property
    def busy(self) -> int:
        """See :attr:`Workers.busy`."""
        return len(self._waiting)

    def give(self, item: Any) -> None:
        """See :meth:`Workers.give`."""
        self._waiting.add(self._pool.submit(self._do, item))

    def results(self, seconds: float) -> Iterator[Any]:
        """See :meth:`Workers.results`."""
        done, self._waiting = wait_for(self._waiting, timeout=seconds, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()

    def end(self, *, at_once: bool) -> None:
        """See :meth:`Workers.end`."""
        if at_once:
            with self._lock:
                for thread in self._at_work:
                    # Between two of the thread's instructions; what it writes appears whole or not at all.
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_Stopped))
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _do(self, item: Any) -> Any:
        thread = threading.get_ident()
        with self._lock:
            self._at_work.add(thread)
        try:
            return self._worker(item)
        finally:
            with self._lock:
                self._at_work.discard(thread)


class _Stopped(BaseException):
    """The end of a thread's work in the midst of it."""


class Processes:
    """Processes that have a worker each; see :class:`Workers`.

    Args:
        count: How many items at once.
        make: Makes a worker, once in each process; picklable.
        gpus: GPUs to share out: a process for each, in which several threads share its worker. 0 for none: a process
            for each item.
    """

    def __init__(self, count: int, make: Callable[[], Callable[[Any], Any]], gpus: int = 0) -> None:
        context = multiprocessing.get_context("spawn")
        self._busy: list[Connection] = []
        self._processes: dict[Connection, Any] = {}
        processes = min(count, gpus) or count
        threads = -(-count // processes)
        for number in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, make, threads), daemon=True)
            with _deaf(), _seeing(number if gpus else None):
                process.start()
            theirs.close()  # or its end would not be noticed
            self._processes[ours] = process
        self._idle = [*self._processes] * threads  # the work goes round

    @property
    def busy(self) -> int:
        """See :attr:`Workers.busy`."""
        return len(self._busy)

    def give(self, item: Any) -> None:
        """See :meth:`Workers.give`."""
        connection = self._idle.pop(0)
        try:
            connection.send(item)
        except OSError:
            raise self._lost(connection) from None
        self._busy.append(connection)

    def results(self, seconds: float) -> Iterator[Any]:
        """See :meth:`Workers.results`."""
        for connection in wait(set(self._busy), timeout=seconds):
            assert isinstance(connection, Connection)
            self._busy.remove(connection)
            try:
                outcome: _Outcome = connection.recv()
            except (EOFError, OSError):
                raise self._lost(connection) from None
            self._idle.append(connection)
            if outcome.error is not None:
                raise outcome.error
            yield outcome.result

    def end(self, *, at_once: bool) -> None:
        """See :meth:`Workers.end`."""
        for connection, process in self._processes.items():
            if at_once:
                process.kill()
            connection.close()  # which tells the process
        for process in self._processes.values():
            process.join()

    def _lost(self, connection: Connection) -> SGDMixError:
        process = self._processes[connection]
        process.join(_MOMENT)  # its pipe may be noticed before its end
        if process.exitcode == _NOT_STARTED:
            return with_guard(
                SGDMixError(
                    "a worker process could not start; its own error stands above. Python imports the main script in "
                    "each worker process again: what the script does must stand under 'if __name__ == \"__main__\":'"
                )
            )
        return SGDMixError("a worker process died (killed, or out of memory); run the same command to resume")


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are started meanwhile do not hear Ctrl-C, from their first moment on; this one hears it after."""
    if sys.platform == "win32":  # where it cannot be held back
        yield
    else:
        resource_tracker.ensure_running()  # multiprocessing's own process, which unblocks signals when it is started
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _seeing(gpu: int | None) -> Iterator[None]:
    """Processes that are started meanwhile see one of the GPUs that this one sees, and call it the first."""
    name, before = "CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES")
    if gpu is None:
        yield
        return
    os.environ[name] = before.split(",")[gpu].strip() if before else str(gpu)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class _Outcome(NamedTuple):
    """What became of an item in a process: a result, or an error."""

    result: Any
    error: BaseException | None


def _work(connection: Connection, make: Callable[[], Callable[[Any], Any]], threads: int) -> None:
    """The life of a worker process: the parent alone hears Ctrl-C, and nobody outlives the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.filterwarnings("ignore", module="PIL")  # as in the command; the parent has said nothing of them either
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    worker, failure = None, None
    try:
        worker = make()
    except Exception as error:
        failure = _carried(error)  # each item's outcome: raised here, it would look as if the process had been killed
    sending = threading.Lock()

    def do(item: Any) -> None:
        try:
            outcome = _Outcome(None, failure) if worker is None else _outcome(worker, item)
            with sending:
                connection.send(outcome)
        except BaseException:  # of a thread, such as sys.exit: nobody would know that this item is lost
            os._exit(_LEFT)

    # EOFError: nobody gives us anything more.
    with ThreadPoolExecutor(threads) as pool, contextlib.suppress(EOFError, OSError):
        while True:
            pool.submit(do, connection.recv())


def _outcome(worker: Callable[[Any], Any], item: Any) -> _Outcome:
    try:
        return _Outcome(worker(item), None)
    except Exception as error:
        return _Outcome(None, _carried(error))


def _carried(error: Exception) -> Exception:
    """An error as the parent is told it: a fault with the place where it was."""
    if isinstance(error, SGDMixError):
        return error
    where = f"in a worker process:\n{''.join(traceback.format_exception(error))}"
    error.add_note(where)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an error of another package, which need not be picklable
        return RuntimeError(where)
    return error


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
