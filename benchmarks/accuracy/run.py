"""The runs that are missing, made by processes side by side; each is appended to the results as it ends."""

from __future__ import annotations

import argparse
import json
import math
import os
import queue
import time
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing

from benchmarks.accuracy.data import aviary, read
from benchmarks.accuracy.grid import Grid, read_grids, spec_key
from benchmarks.accuracy.results import commit, stored_lines
from benchmarks.accuracy.tasks import TASKS
from sgdmix_albu.errors import InvalidInputError

GRIDS = Path(__file__).parent / "grids"
_KEPT = {128: 160, 224: 227}  # side of the network's images: side that crops are taken from
_FORAUG = {"background_robustness", "foreground_focus", "centre_bias", "size_bias"}


def run(options: argparse.Namespace) -> None:
    """Make what is missing; what fails is said, and ends no other run."""
    begun = time.monotonic()
    grids = read_grids(GRIDS)
    _check(options, grids)
    wanted = _missing(grids, options)
    sets = {(grid_data(job["task"]), job["pixels"]) for job in wanted}
    options.work.mkdir(parents=True, exist_ok=True)
    stored = {}
    for name, size in sorted(sets):
        stored[name, size] = options.work / f"{name}-{size}.pt"
        if not stored[name, size].exists():
            jobs = max(1, os.cpu_count() or 1)
            data = aviary(_KEPT[size]) if name == "aviary" else read(options.data, options.maps, _KEPT[size], jobs)
            partial = stored[name, size].with_suffix(".partial")
            torch.save(data, partial)
            partial.rename(stored[name, size])  # what is cut short is not taken for whole the next time
    print(f"{len(wanted)} runs are missing; data read after {time.monotonic() - begun:.0f} s", flush=True)
    code = options.commit or commit()
    context = multiprocessing.get_context("spawn")
    todo, done = context.Queue(), context.Queue()
    for job in wanted:
        todo.put(job)
    end = time.time() + options.seconds - (time.monotonic() - begun)
    arguments = (todo, done, stored, options.encoder, options.device, options.work, end)
    workers = [context.Process(target=_work, args=arguments, daemon=True) for _ in range(options.workers)]
    for worker in workers:
        worker.start()
    count = failed = 0
    with options.results.open("a") as file:
        while any(worker.is_alive() for worker in workers) or not done.empty():
            try:
                row = done.get(timeout=1)
            except queue.Empty:
                continue
            if "error" in row:
                print(f"{row['job']}: {row['error']}", flush=True)
                failed += 1
                continue
            file.write(json.dumps({**row, "commit": code}) + "\n")
            file.flush()
            count += 1
            line = f"{count}/{len(wanted)} after {time.monotonic() - begun:.0f} s: {row['task']} {spec_key(row['row'])}"
            print(f"{line} seed {row['seed']}: {100 * row['figures']['accuracy']:.1f}%", flush=True)
    print(f"{count} runs made, {failed} failed, {len(wanted) - count - failed} not begun or lost with their process")


def grid_data(task: str) -> str:
    """Name of the data set of a task."""
    return TASKS[task].data


def _check(options: argparse.Namespace, grids: list[Grid]) -> None:
    """Refuse a name that no grid has: nothing would be run, and nothing said."""
    known = {
        "grids": {grid.name for grid in grids},
        "rows": {row.name for grid in grids for row in grid.rows},
        "tasks": {task for grid in grids for task in grid.tasks},
    }
    for what, names in known.items():
        if unknown := {*(getattr(options, what) or ())} - names:
            raise InvalidInputError(f"expected {what} from {sorted(names)}, got {sorted(unknown)}")


def _missing(grids: list[Grid], options: argparse.Namespace) -> list[dict[str, Any]]:
    """What is to be run: what takes long by itself, then the first seed of all rows, the second, ...

    Tables share runs, and no run is made twice, so each gets the figures that any grid shows, asked for now or not.
    """
    device = _device_name(options.device)
    have = {_key(row) for row in stored_lines(options.results) if row["device"] == device}
    found: dict[str, dict[str, Any]] = {}
    asked = set()
    for grid in grids:
        for task, row in product([task for task in grid.tasks if task in TASKS], grid.rows):
            for seed in range(grid.tasks[task]):
                job = {"task": task, "network": grid.network, "pixels": grid.pixels, "row": row.spec, "seed": seed}
                which = ("mixed", "foraug") if _FORAUG & set(grid.figures) else ("mixed",)
                old = found.setdefault(_key(job), {**job, "which": which})
                old["which"] = max(old["which"], which, key=len)
                if _is_asked(options, grid.name, row.name, task, seed):
                    asked.add(_key(job))
    left = [job for key, job in found.items() if key in asked and key not in have]
    first = {(job["task"], job["seed"]): job for job in reversed(left) if job["row"].get("mix") == "expanded"}
    slow = [job for job in left if job["row"].get("given") == "distilled"] + _by_seed(first.values())
    return slow + _by_seed(job for job in left if job not in slow)


def _by_seed(jobs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(jobs, key=lambda job: job["seed"])


def _is_asked(options: argparse.Namespace, grid: str, row: str, task: str, seed: int) -> bool:
    chosen = ((options.grids, grid), (options.rows, row), (options.tasks, task))
    return all(not names or name in names for names, name in chosen) and seed < (options.seeds or math.inf)


def _key(run: dict[str, Any]) -> str:
    return spec_key({name: run[name] for name in ("task", "network", "pixels", "row", "seed")})


def _device_name(device: str) -> str:
    return "CPU" if device == "cpu" else torch.cuda.get_device_name()


def _work(todo: Any, done: Any, stored: dict[Any, Path], encoder: Path, device: str, work: Path, end: float) -> None:
    """A process: takes jobs until there are none, or no time is left."""
    from benchmarks.accuracy.train import Trainer

    torch.set_num_threads(1)
    trainers: dict[Any, Trainer] = {}
    name = _device_name(device)
    while time.time() < end:
        try:
            job = todo.get(timeout=1)
        except queue.Empty:
            return
        which = job.pop("which")
        try:
            key = (grid_data(job["task"]), job["pixels"])
            if (*key, job["network"]) not in trainers:
                data = torch.load(stored[key], weights_only=False, mmap=True)
                trainers[*key, job["network"]] = Trainer(data, encoder, job["network"], job["pixels"], device, work)
            trainer = trainers[*key, job["network"]]
            found = trainer.run(job["task"], job["row"], job["seed"], which)
            done.put({**job, **found, "device": name, "data": trainer.data.sha})
            if device != "cpu":
                torch.cuda.empty_cache()  # the processes share one memory
        except Exception as error:  # one row that fails must not end the others
            done.put({"job": job, "error": f"{type(error).__name__}: {error}"})
