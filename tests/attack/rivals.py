"""Two commands on one folder at the same time: one wins, the other is told, and what is there is one command's work."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from random import Random

from .bench import TASKS, Bench, Task
from .tally import Tally, differences

__all__ = ["attack"]

_LIMIT = 120.0  # seconds


def _seeds(name: str, more: str = "") -> list[Task]:
    (task,) = (task for task in TASKS if task.name == name)
    return [
        dataclasses.replace(task, name=f"{name}, seed {seed}", words=f"{task.words} --seed {seed} {more}")
        for seed in (0, 1)
    ]


_RIVALS = (
    *_seeds("threads"),
    *_seeds("threads", "--overwrite"),
    *_seeds("shards"),
    *_seeds("mix"),
    *_seeds("mix", "--overwrite"),
)
_BANK = next(task for task in TASKS if task.name == "bank")


def attack(number: int, chance: Random, bench: Bench, tally: Tally) -> None:
    """Start two commands, one a moment after the other."""
    pair = [_BANK, _BANK] if chance.random() < 0.15 else chance.choices(_RIVALS, k=2)
    if chance.random() < 0.3:
        pair[1] = pair[0]
    right = [bench.undisturbed(task) for task in pair]
    out = bench.folder()
    first = pair[0].command(bench, out).start(bench.notes)
    # Often at once: that is where locks are taken.
    first.pause(chance.choice([0, 0.05, chance.uniform(0, 1.2 * right[0][1])]))
    second = pair[1].command(bench, out).start(bench.notes)
    both = [running.wait(_LIMIT) for running in (first, second)]
    tally.where += f" ({pair[0].name} and {pair[1].name})"
    won = [task for task, ended in zip(pair, both, strict=True) if ended.code == 0]
    for ended in both:
        tally.judge(ended, {0, 2})
    tally.count(f"rivals: {len(won)} of 2 did their work")
    if not won:
        tally.fault("lost", f"neither did its work: {both[0].err} {both[1].err}")
    elif not any(_is_of(bench.undisturbed(task)[0], out) for task in won):
        found = list(differences(bench.undisturbed(won[-1])[0], out, results_only=True))
        tally.fault("differing", f"the folder is not the work of {' or '.join(task.name for task in won)}: {found[:5]}")
    bench.forget(out)


def _is_of(right: Path, out: Path) -> bool:
    return not any(differences(right, out, results_only=True))
