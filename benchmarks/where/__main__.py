"""Images a second of every way to mix while training, at several numbers of workers, into docs/speed.md.

    OMP_NUM_THREADS=1 python -m benchmarks.where [PHOTOGRAPHS] [--workers 1 4 8] [--write docs/speed.md]

Each worker, and the main process, has one thread. Reading a JPEG, crop and flip are part of every way. On a GPU a
ResNet-50 trains on the batches; without one a sleep stands for it, at ``--rate`` images a second. The processor's time
is counted too, for all processes: it does not suffer from other work on the machine.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import argparse
import math
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import psutil
import torch

from benchmarks.speed.about import about
from benchmarks.speed.table import keep
from benchmarks.where.consumer import Consume, sleeper, trainer
from benchmarks.where.table import page_of
from benchmarks.where.ways import CLASSES, Way, loader_of, ways, write_photographs

_BATCHES = 8  # of each worker, at least: fewer are made before the first is asked for


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.where", description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, nargs="?", help="a folder; default: the embedded birds")
    parser.add_argument("--images", type=int, default=1024, help="of an epoch")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224, help="of the crops, in pixels")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--rate", type=float, default=1200, help="images a second of the GPU that a sleep stands for")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--results", type=Path, help="JSON file of the figures; default: printed only")
    parser.add_argument("--write", type=Path, help="page with the markers 'where'")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)

    device = torch.device(options.device)
    consume = sleeper(options.rate) if device.type == "cpu" else trainer(device, CLASSES)
    consumer = f"a sleep as long as a GPU takes that trains on {options.rate:.0f} images a second"
    if device.type != "cpu":
        consumer = f"ResNet-50 in training on {torch.cuda.get_device_name(device)}"
    results = {**about(options.photographs is not None, options.images, options.size), "consumer": consumer}
    results |= {"batch": options.batch, "workers": options.workers, "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        photos = write_photographs(options.photographs, Path(folder) / "photos", options.images, options.size * 8 // 7)
        for way in ways(photos, Path(folder), options.size):
            runs = [measured(way, count, options.batch, device, consume) for count in options.workers]
            results["rows"].append({"name": way.name, "runs": runs})
            print(way.name, *(f"{run['images_per_s']:.0f}/s" for run in runs), flush=True)
    print(page_of(results))
    keep(results, options.results, options.write, "where", page_of(results))


def measured(way: Way, workers: int, batch: int, device: torch.device, consume: Consume) -> dict[str, float]:
    """Epochs after the first, until each worker has made eight batches.

    Images a second, and milliseconds of the processor for an image, in workers and in the main process.
    """
    loader = loader_of(way, batch, workers, pinned=device.type == "cuda")
    _epoch(way, loader, device, consume)
    children = [psutil.Process(child.pid) for child in multiprocessing.active_children()]
    before = _seconds(children)
    began, began_cpu = time.perf_counter(), time.process_time()
    epochs = math.ceil(_BATCHES * max(1, workers) / len(loader))
    images = sum(_epoch(way, loader, device, consume) for _ in range(epochs))
    wall, main_s = time.perf_counter() - began, time.process_time() - began_cpu
    spent = _seconds(children) - before
    return {"images_per_s": images / wall, "worker_ms": 1000 * spent / images, "main_ms": 1000 * main_s / images}


def _epoch(way: Way, loader: Any, device: torch.device, consume: Consume) -> int:
    images = 0
    for batch in loader:
        found = tuple(part.to(device, non_blocking=True) for part in batch)
        found = found if way.after is None else way.after(*found)
        consume(*found)
        images += len(found[0])
    return images


def _seconds(processes: list[psutil.Process]) -> float:
    return float(sum(sum(process.cpu_times()[:2]) for process in processes))


if __name__ == "__main__":
    main()
