"""Kill ``sgdmix generate`` again and again, let it finish, and compare with a run that nobody disturbed.

    python benchmarks/kills.py DATA [--kills 50] [--engine local|ray] [further arguments of sgdmix generate]

Each kill is a SIGKILL of the whole process group: between --soonest and --latest seconds after its start, or with
--within N as soon as a random number of images, up to N, was made, for engines that take long to start. Exits with 1 if
an image is lost, duplicated or differs.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--engine", default="local")
    parser.add_argument("--soonest", type=float, default=2.0, help="seconds")
    parser.add_argument("--latest", type=float, default=6.0, help="seconds")
    parser.add_argument("--within", type=int, help="images")
    parser.add_argument("--seed", type=int, default=0)
    arguments, further = parser.parse_known_args()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        quiet, disturbed = Path(folder, "quiet"), Path(folder, "disturbed")
        subprocess.run(_command(arguments.data, quiet, "local", further), check=True, capture_output=True)
        moments: Counter[str] = Counter()
        kills = 0
        while kills < arguments.kills:
            process = subprocess.Popen(
                _command(arguments.data, disturbed, arguments.engine, further),
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            if arguments.within is None:
                time.sleep(chance.uniform(arguments.soonest, arguments.latest))
            else:
                _wait_for(chance.randrange(arguments.within), disturbed, process)
            if process.poll() is not None:
                if process.returncode:
                    print(process.stderr.read().decode())
                    return 1
                print(f"finished after {kills} kills: take a larger --multiplier")
                break
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            moments[_state(disturbed)] += 1
            print(f"kill {kills}: {_state(disturbed)}, {sum(1 for _ in disturbed.rglob('*.png'))} images", flush=True)
        subprocess.run(_command(arguments.data, disturbed, arguments.engine, further), check=True)
        return _compare(quiet, disturbed, kills, moments)


def _command(data: str, out: Path, engine: str, further: list[str]) -> list[str]:
    where = ["--dataset", "aviary"] if data == "aviary" else [data]
    return [sys.executable, "-m", "sgdmix_albu", "generate", *where, str(out), "--engine", engine, *further]


def _wait_for(images: int, out: Path, process: subprocess.Popen[bytes]) -> None:
    """Until so many more files were made than there are, or the process is done."""
    before = _files(out)
    while process.poll() is None and _files(out) - before <= images:
        time.sleep(0.05)


def _files(out: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(out))


def _state(out: Path) -> str:
    if (out / "metadata.jsonl").exists():
        return "after the manifest"
    if (out / ".sgdmix" / "done").exists():
        return "while expanding"
    if (out / ".sgdmix-plan.jsonl").exists():
        return "after the plan"
    return "while describing" if (out / ".sgdmix").exists() else "before the first file"


def _compare(quiet: Path, disturbed: Path, kills: int, moments: Counter[str]) -> int:
    there = {
        path.relative_to(root).as_posix()
        for root in (quiet, disturbed)
        for path in root.rglob("*")
        if path.is_file() and path.name not in (".sgdmix-lock", ".sgdmix-run.json")
    }
    differing = filecmp.cmpfiles(quiet, disturbed, sorted(there), shallow=False)
    names = [json.loads(line)["file_name"] for line in (disturbed / "metadata.jsonl").open()]
    twice = len(names) - len(set(names))
    print(f"{kills} kills: {dict(moments)}")
    print(f"{len(names)} images; {len(differing[1])} differ, {len(differing[2])} lost or extra, {twice} named twice")
    return 1 if differing[1] or differing[2] or twice else 0


if __name__ == "__main__":
    sys.exit(main())
