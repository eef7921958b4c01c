"""Work in threads, results in order: Pillow and torch let go of the interpreter while they work."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def default_jobs() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Inside, torch computes each operation with the thread that asks for it.

    The operations of the offline stage are small and many, and others run beside them: torch's own threads
    would spend their time waiting for each other (on two busy cores, a plan took forty times as long).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def ordered_map(function: Callable[[T], R], items: Iterable[T], jobs: int) -> Iterator[R]:
    """``map(function, items)`` by ``jobs`` threads that run at most 2 ``jobs`` items ahead of the reader.

    When the reader stops, or a call raises, what was not begun is dropped and what was begun is finished.

    Example:
        >>> list(ordered_map(abs, [-3, 2, -1], jobs=2))
        [3, 2, 1]
    """
    with ThreadPoolExecutor(jobs, thread_name_prefix="sgdmix") as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
