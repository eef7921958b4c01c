"""Who does the work: this process, several of this machine, or a Ray cluster. All give the same results.

An engine is given how to make a worker and what to give it. A worker is made once for each process, since it may
load a model; results come as they are ready, in any order.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from typing import Any, Literal, Protocol, TypeVar

import torch

from sgdmix_albu.errors import SGDMixError
from sgdmix_albu.offline.parallel import one_thread_each

__all__ = ["Engine", "LocalEngine"]

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 2  # items that wait for each worker


class Engine(Protocol):
    """Does work."""

    def run(self, make: Callable[[], Callable[[T], R]], items: Sequence[T]) -> Generator[R, None, None]:
        """A result for each item, in any order.

        Args:
            make: Makes a worker; picklable.
            items: What the workers are given; picklable.

        Raises:
            SGDMixError: A worker's error, or one line on how a worker was lost.
        """
        ...

    def hands(self) -> int:
        """How many work at once."""
        ...

    def close(self) -> None:
        """Let go of what was started for the work."""
        ...


@dataclass(frozen=True)
class LocalEngine:
    """Works on this machine.

    Attributes:
        workers: How many at once.
        kind: "threads" share one worker and this process; "processes" have one each, which a model on the CPU needs
            to use several cores and still give the same bits.
    """

    workers: int
    kind: Literal["threads", "processes"] = "threads"

    def run(self, make: Callable[[], Callable[[T], R]], items: Sequence[T]) -> Generator[R, None, None]:
        """See :meth:`Engine.run`."""
        if not items:
            return
        if self.kind == "threads" or self.workers == 1:
            with one_thread_each():
                worker = make()
                pool: Executor = ThreadPoolExecutor(self.workers, thread_name_prefix="sgdmix")
                yield from _results(pool, worker, items, self.workers)
        else:
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(min(self.workers, len(items)), context, initializer=_begin, initargs=(make,))
            try:
                yield from _results(pool, _call, items, self.workers)
            except BrokenProcessPool as error:
                raise SGDMixError(
                    "a worker process died (killed, or out of memory); the same command goes on from what is done"
                ) from error

    def hands(self) -> int:
        """See :meth:`Engine.hands`."""
        return self.workers

    def close(self) -> None:
        """Nothing outlives :meth:`run`."""


def _results(pool: Executor, call: Callable[[T], R], items: Sequence[T], workers: int) -> Generator[R, None, None]:
    """What is begun is finished when the reader stops; what was not begun is dropped."""
    coming = iter(items)
    waiting: set[Future[R]] = set()
    try:
        while True:
            for item in coming:
                waiting.add(pool.submit(call, item))
                if len(waiting) >= _AHEAD * workers:
                    break
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker: Any = None  # of this process
_failure: SGDMixError | None = None  # why there is none


def _begin(make: Callable[[], Any]) -> None:
    """Of a worker process: one thread, the parent alone hears Ctrl-C, and nobody outlives the parent."""
    global _worker, _failure
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    try:
        _worker = make()
    except SGDMixError as error:
        _failure = error  # raised here, it would look as if the process had been killed


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)


def _call(item: Any) -> Any:
    if _failure is not None:
        raise _failure
    return _worker(item)
