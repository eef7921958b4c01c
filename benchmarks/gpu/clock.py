"""Time, memory and waits of calls on a device, in turns."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

Call = Callable[[], object]
_WARM_UP = 3  # cuDNN tries its algorithms, kernels are loaded, the allocator asks for memory


def measured(calls: Mapping[str, Call], device: torch.device, *, rounds: int) -> dict[str, dict[str, Any]]:
    """Medians over calls in turns, each begun with an idle device and ended when the device is done.

    Args:
        calls: What is measured, by name.
        device: Where it works.
        rounds: Calls of each, after three to warm up (on a CPU, one).

    Returns:
        For each: ``ms`` by the device's own events (on a CPU, the clock's), ``wall_ms``, and on a GPU ``peak_mib``, the
        memory that a call takes beyond what was there, and ``waits``, how often the host waits for the device in one.
    """
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(_WARM_UP if device.type == "cuda" else 1):
            call()
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(timed(call, device))
    rows = {}
    for name, times in found.items():
        device_ms, wall_ms, peak = (statistics.median(values) for values in zip(*times, strict=True))
        rows[name] = {"ms": device_ms, "wall_ms": wall_ms}
        if device.type == "cuda":
            rows[name] |= {"peak_mib": peak, "waits": waits(calls[name])}
    return rows


def timed(call: Call, device: torch.device) -> tuple[float, float, float]:
    """Milliseconds by the device's events and by the clock, and the MiB of a GPU's memory at the highest."""
    if device.type != "cuda":
        began = time.perf_counter()
        call()
        wall = 1000 * (time.perf_counter() - began)
        return wall, wall, 0.0
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    began = time.perf_counter()
    first.record()
    kept = call()
    last.record()
    torch.cuda.synchronize(device)
    wall = 1000 * (time.perf_counter() - began)
    peak = (torch.cuda.max_memory_allocated(device) - before) / 2**20
    del kept
    return first.elapsed_time(last), wall, peak


def waits(call: Call) -> int:
    """How often torch says that the host waits for the GPU during a call."""
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)
