"""All that only a GPU can tell, in one command of less than eight minutes, into one JSON and one Markdown table.

    make gpu [WHEELS=DIR]                                   # on a machine with a GPU; no network is needed
    python -m benchmarks.gpu [--device cuda] [--size full] [--only refining strict] [--out FOLDER]
    python -m benchmarks.gpu --device cpu --size toy        # a rehearsal, without a GPU

Each part runs in a process of its own, with a time of its own: one that fails, hangs or takes the driver down is told
in the results, with what it had found, and the others run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks.gpu.report import Report
from benchmarks.gpu.sizes import SIZES

PARTS = ("machine", "contracts", "strict", "mixing", "gradcam", "refining")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", default="full", choices=sorted(SIZES))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--together", action="store_true", help="all parts in this process, without limits of time")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder for results.json and results.md")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # the child's: one part, into --out
    options = parser.parse_args(arguments)
    if options.part:
        return work(options.part, options.device, options.size, options.out)

    began = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"device": options.device, "size": options.size, "date": time.strftime("%Y-%m-%d")}
    results["parts"] = {}
    for part in ["machine", *(name for name in PARTS[1:] if name in options.only)]:
        print(f"{part} ...", flush=True)
        results["parts"][part] = found = ended(part, options)
        results["seconds"] = time.monotonic() - began
        print(f"{part}: {found['status']} after {found['seconds']:.0f} s {found['error'] or ''}", flush=True)
        _write(options.out, results)
    print(f"{options.out / 'results.md'}, {options.out / 'results.json'}")
    return 0 if all(part["status"] == "done" for part in results["parts"].values()) else 1


def ended(part: str, options: argparse.Namespace) -> dict[str, Any]:
    """A part's rows and how it ended: done, failed or out of time."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        if options.together:
            code = work(part, options.device, options.size, path)
        else:
            command = ["--part", part, "--device", options.device, "--size", options.size, "--out", str(path)]
            limit = SIZES[options.size].seconds[part]
            code = run_limited([sys.executable, "-m", "benchmarks.gpu", *command], limit)
        error = path.with_suffix(".error")
        why = error.read_text("utf-8") if error.exists() else None if code == 0 else f"it ended with {code}"
        if code is None:
            why = f"it was ended after {SIZES[options.size].seconds[part]:.0f} s"
        status = "done" if code == 0 else "failed" if code is not None else "out of time"
        return {"status": status, "seconds": time.monotonic() - began, "error": why, "rows": Report.read(path)}


def run_limited(command: list[str], seconds: float) -> int | None:
    """The exit code of a command; None where it took too long, and was ended with all that it had started."""
    child = subprocess.Popen(command, start_new_session=True)
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return None


def work(part: str, device: str, size: str, path: Path) -> int:
    """One part in this process: 0 when it is done, 1 when it failed, with the reason beside its rows."""
    try:
        import torch

        importlib.import_module(f"benchmarks.gpu.{part}").run(Report(path), SIZES[size], torch.device(device))
    except Exception as error:  # told in the results; the other parts run
        traceback.print_exc()
        path.with_suffix(".error").write_text(f"{type(error).__name__}: {error}"[:1000], "utf-8")
        return 1
    return 0


def _write(out: Path, results: dict[str, Any]) -> None:
    from benchmarks.gpu.table import page_of

    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    (out / "results.md").write_text(page_of(results), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
