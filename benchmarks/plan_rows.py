"""Seconds and peak memory of a plan for a set of synthetic maps; nothing is read or written but the plan.

python benchmarks/plan_rows.py [--images 200000] [--multiplier 5] [--candidates 50]
"""

from __future__ import annotations

import argparse
import mmap
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from sgdmix_albu.bank.descriptors import Descriptors
from sgdmix_albu.bank.parts import GRID
from sgdmix_albu.datasets.source import Item
from sgdmix_albu.expand.plan.rows import row_line
from sgdmix_albu.expand.plan.targets import plan_rows
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.settings import Settings

BLOCK = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--multiplier", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=50)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        known = synthetic(arguments.images, Path(folder))
        before = peak()
        began, spent = time.perf_counter(), time.process_time()
        settings = Settings(multiplier=arguments.multiplier, candidates=arguments.candidates)
        planned = plan_rows(known, range(len(known)), settings, Counter())
        Storage(folder).write_lines("plan.jsonl", map(row_line, planned))
        seconds, spent = time.perf_counter() - began, time.process_time() - spent
        file = Path(folder, "plan.jsonl")
        rows = sum(1 for _ in file.open("rb"))
        print(
            f"{rows} rows from {arguments.images} images: {seconds:.1f} s ({spent:.1f} s of a core), "
            f"{1e6 * spent / rows:.0f} us a row; peak memory {peak():.0f} MB ({before:.0f} MB before); "
            f"plan {file.stat().st_size / 1e6:.0f} MB"
        )


def synthetic(count: int, folder: Path) -> Descriptors:
    """Smooth blobs of random place and size, as saliency has them, in a mapped file."""
    rng = np.random.default_rng(0)
    maps = np.memmap(folder / "maps", np.uint8, "w+", shape=(count, GRID, GRID))
    masks = np.empty((count, GRID * GRID // 8), np.uint8)
    axis = np.linspace(0, 1, GRID, dtype=np.float32)
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        place, width = rng.uniform(0.25, 0.75, (2, size, 1)), rng.uniform(0.05, 0.25, (2, size, 1))
        rows, columns = (np.exp(-(((axis - place[i]) / width[i]) ** 2)).astype(np.float32) for i in (0, 1))
        block = (255 * rows[:, :, None] * columns[:, None, :]).astype(np.uint8)
        maps[start : start + size] = block
        masks[start : start + size] = np.packbits((block > 100).reshape(size, -1), axis=1)
        maps._mmap.madvise(mmap.MADV_DONTNEED)  # or the peak would be of what is made here
    items = [Item(f"class {i % 1000}/{i:07d}.jpg", f"class {i % 1000}", i % 1000, NotImplemented) for i in range(count)]
    nothing = np.zeros(count, bool)
    return Descriptors(items, maps, masks, nothing, nothing, np.full(count, np.nan, np.float32))


def peak() -> float:
    """Peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
