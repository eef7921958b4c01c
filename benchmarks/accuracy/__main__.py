"""Will my accuracy rise? Grids of runs on photographs, resumable one by one.

    python -m benchmarks.accuracy run DATA MAPS ENCODER [--grids 01-tasks ...] [--device cuda --workers 4]
    python -m benchmarks.accuracy page

DATA is a tree ``train/CLASS/*.jpg`` and ``test/CLASS/*.jpg``; MAPS what ``benchmarks.accuracy.segment`` wrote of it;
ENCODER the state dict of the pretrained network. Runs that the results file has for this device are not made again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

RESULTS = Path(__file__).parent / "results.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="make the runs that are missing")
    for name in ("data", "maps", "encoder"):
        run.add_argument(name, type=Path)
    run.add_argument("--grids", nargs="+", help="names; default: all that can be run here")
    run.add_argument("--tasks", nargs="+", help="default: all of a grid")
    run.add_argument("--rows", nargs="+", help="names as in the grid; default: all")
    run.add_argument("--seeds", type=int, help="the most seeds of a row")
    run.add_argument("--results", type=Path, default=RESULTS)
    run.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    run.add_argument("--workers", type=int, default=1, help="processes side by side")
    run.add_argument("--work", type=Path, default=Path(".evidence"), help="folder for what is made on the way")
    run.add_argument("--commit", help="of this code, where git cannot tell")
    run.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after so long")
    commands.add_parser("page", help="draw docs/results.md from the results")
    options = parser.parse_args()
    if options.command == "page":
        from benchmarks.accuracy.page import main as page

        page()
    else:
        from benchmarks.accuracy.run import run as make

        make(options)


if __name__ == "__main__":
    main()
