"""Time and memory of calls: rivals in turns, so that a slow minute hits all alike; memory in processes of their own.

Memory is the growth of the process's peak resident set (``VmHWM``) over one call that is not its first. Torch does not
count what it allocates on a CPU, and Python's tracemalloc does not see it. The child gives every block of 64 KiB or
more back to the system as soon as it is freed (``M_MMAP_THRESHOLD``), so the peak is that of live memory and not of
what the allocator holds in reserve.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Call = Callable[[], object]
_M_MMAP_THRESHOLD = -3  # malloc.h
_LEAST = 7  # calls of each: quartiles of fewer say little


@dataclass(frozen=True)
class Row:
    """One rival of a table: what it is called, and what it does."""

    name: str
    call: Call


def timed(rows: Sequence[Row], *, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Milliseconds of a call of each, of the processor and of the clock on the wall.

    Args:
        rows: The rivals; each is called once before, to warm up.
        rounds: The most calls of each.
        seconds: No round is begun after so long, but for the first seven; ``rounds`` may ask for fewer.
    """
    for row in rows:
        row.call()
    order, shuffle = list(range(len(rows))), random.Random(0).shuffle
    cpu: list[list[float]] = [[] for _ in rows]
    wall: list[list[float]] = [[] for _ in rows]
    end = time.monotonic() + seconds
    for turn in range(rounds):
        if turn >= _LEAST and time.monotonic() > end:
            break
        shuffle(order)  # nobody always follows the same rival, whose memory is warm or gone
        for place in order:
            began, began_cpu = time.perf_counter(), time.process_time()
            rows[place].call()
            cpu[place].append(1000 * (time.process_time() - began_cpu))
            wall[place].append(1000 * (time.perf_counter() - began))
    return [{"cpu_ms": spread(c), "wall_ms": spread(w), "calls": len(c)} for c, w in zip(cpu, wall, strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "low": low, "high": high}


def peak_mib(call: Call) -> float | None:
    """MiB by which one call raises the memory of a process at its highest; None where that cannot be told.

    It is Linux that tells. Measure before the parent has run a backward pass, after which autograd forbids to fork.
    """
    if sys.platform != "linux":
        return None
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_peak, args=(call, send))
    child.start()
    send.close()
    try:
        found: float = receive.recv()
    except EOFError:
        return None
    finally:
        child.join()
    return found


def _peak(call: Call, send: Connection) -> None:
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc; where there is none, freed memory may be used again unseen
        libc.mallopt(_M_MMAP_THRESHOLD, 65536)
    for _ in range(2):  # pages of files, and memories that fill up
        call()
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    kept = call()
    send.send(_status("VmHWM") - before)
    del kept


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024
