"""``python -m tests.attack``: run the campaigns, and say what was found."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TypeAlias

# Before numpy is imported, whose threads a fork would lose. It is asked for little here.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

from . import api, damage, kills, refiners, rivals, sets
from .bench import Bench
from .command import warm_up
from .tally import Tally

Attack: TypeAlias = Callable[[int, Random, Bench, Tally], None]

# Campaign: its share of the runs.
CAMPAIGNS: dict[str, tuple[Attack, float]] = {
    "kills": (kills.attack, 3),
    "damage": (damage.attack, 4),
    "sets": (sets.attack, 2),
    "rivals": (rivals.attack, 2),
    "refiners": (refiners.attack, 1),
    "calls": (api.attack, 0.2),
}
_QUICK = ("kills", "damage", "sets", "rivals")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description="Run the fault campaign.")
    parser.add_argument("--runs", type=int, default=300, metavar="N", help="of all campaigns (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--only", choices=CAMPAIGNS, help="one campaign")
    parser.add_argument("--short", action="store_true", help="leave out what takes long: refiners, processes, Ray")
    parser.add_argument("--number", type=int, metavar="N", help="one run of it")
    arguments = parser.parse_args()
    chosen = (
        [arguments.only] if arguments.only else [name for name in CAMPAIGNS if not arguments.short or name in _QUICK]
    )
    shares = {name: CAMPAIGNS[name][1] for name in chosen}
    tally = Tally()
    warm_up()
    folder = tempfile.mkdtemp(prefix="sgdmix-attack-")  # no TemporaryDirectory: forked commands would remove it
    try:
        for name in chosen:
            runs = max(1, round(arguments.runs * shares[name] / sum(shares.values())))
            numbers = range(runs) if arguments.number is None else [arguments.number]
            _campaign(name, arguments.seed, numbers, Bench(Path(folder, name), short=arguments.short), tally)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(tally)
    return 1 if tally.faults else 0


def _campaign(name: str, seed: int, numbers: range | list[int], bench: Bench, tally: Tally) -> None:
    began = said = time.monotonic()
    for done, number in enumerate(numbers):
        if time.monotonic() - said > 10:
            said = time.monotonic()
            print(
                f"{name}: {done} of {len(numbers)} runs, {said - began:.0f} s, {len(tally.faults)} faults", flush=True
            )
        tally.begin(f"python -m tests.attack --only {name} --seed {seed} --number {number}")
        CAMPAIGNS[name][0](number, Random(f"{seed} {name} {number}"), bench, tally)
    print(f"{name}: {len(numbers)} runs, {time.monotonic() - began:.0f} s, {len(tally.faults)} faults", flush=True)


if __name__ == "__main__":
    sys.exit(main())
