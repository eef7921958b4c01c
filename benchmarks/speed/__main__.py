"""What mixing costs beside its peers, in one run: a table in docs/speed.md and the figures that it is made of.

    make bench                                          # all of it, peers in an environment of their own
    OMP_NUM_THREADS=1 python -m benchmarks.speed [PHOTOGRAPHS] [--only mixing-uint8 saliency] [--write docs/speed.md]

PHOTOGRAPHS is a folder of images, to any depth; without it, the embedded birds are drawn at the size asked for.
Everything runs on one thread. Rivals of a table take turns; medians and quartiles of the processor's time, medians of
the wall's, and the peak of memory in processes of their own.
"""

from __future__ import annotations

import os

# numpy's threads are made when it is imported, and a process of several threads cannot be forked safely.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import argparse
from pathlib import Path
from typing import Any

import cv2
import torch

from benchmarks.speed.about import about
from benchmarks.speed.groups import Group, groups
from benchmarks.speed.measure import peak_mib, timed
from benchmarks.speed.photographs import photographs
from benchmarks.speed.table import keep, page_of


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, nargs="?", help="a folder; default: the embedded birds")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224, help="of the images, in pixels")
    parser.add_argument("--candidates", type=int, nargs="+", default=[50, 200, 500])
    parser.add_argument("--gradcam-batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=21, help="the most calls of each row")
    parser.add_argument("--seconds", type=float, default=60, help="begin no round after so long, but seven")
    parser.add_argument("--only", nargs="+", help="names of tables")
    parser.add_argument("--results", type=Path, help="JSON file of the figures; default: printed only")
    parser.add_argument("--write", type=Path, help="page with the markers 'speed'")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)

    photos = photographs(options.photographs, options.batch, options.size)
    results = {**about(options.photographs is not None, options.batch, options.size), "groups": []}
    for group in groups(photos, options.candidates, min(options.gradcam_batch, options.batch)):
        if options.only and group.name not in options.only:
            continue
        results["groups"].append(measured(group, options.rounds, options.seconds))
        print(page_of({**results, "groups": results["groups"][-1:]}).partition("\n\n")[2], end="\n\n", flush=True)
    keep(results, options.results, options.write, "speed", page_of(results))


def measured(group: Group, rounds: int, seconds: float) -> dict[str, Any]:
    """A group's figures, as they are stored."""
    peaks = [peak_mib(row.call) for row in group.rows]  # first: see peak_mib
    times = timed(group.rows, rounds=rounds, seconds=seconds)
    rows = [
        {"name": row.name, **found, "peak_mib": peak} for row, found, peak in zip(group.rows, times, peaks, strict=True)
    ]
    kept = {name: getattr(group, name) for name in ("name", "title", "images", "output_mib", "missing")}
    return {**kept, "yardsticks": list(group.yardsticks), "rows": rows}


if __name__ == "__main__":
    main()
