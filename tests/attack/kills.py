"""Commands that are stopped at any moment, in any way, and given again: nothing is lost, doubled or different."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from random import Random

from .bench import Bench
from .command import Running
from .tally import Tally

__all__ = ["attack"]

_SOONEST = 0.1  # seconds; before, Python is not in the command yet
_AT_ONCE = 8.0  # seconds until a second Ctrl-C has ended everything
_IN_ORDER = 60.0  # seconds until a first one has: what is begun is finished
# Way of stopping: the codes that a command may end with.
_CODES = {
    "SIGKILL": {-signal.SIGKILL},
    "SIGKILL of a worker": {0, 2},
    "SIGTERM": {-signal.SIGTERM},
    "Ctrl-C": {0, 130, -signal.SIGINT},  # the last: Python was ending already
    "Ctrl-C twice": {0, 130, -signal.SIGINT},
}


def attack(number: int, chance: Random, bench: Bench, tally: Tally) -> None:
    """Stop a command up to three times, let it finish, and compare."""
    task = chance.choices(bench.tasks, [task.weight for task in bench.tasks])[0]
    right, seconds = bench.undisturbed(task)
    out, fresh = bench.folder(), chance.random() < 0.1
    for _ in range(chance.randint(1, 3)):
        command = task.command(bench, out, fresh=fresh)
        way = chance.choice([way for way in _CODES if task.workers or way != "SIGKILL of a worker"])
        # A new Python takes as long again until it works.
        moment = chance.uniform(_SOONEST, seconds) + fresh * chance.uniform(0.5, 2.5)
        running = command.start(bench.notes)
        if not running.pause(moment):
            tally.count("finished before they could be stopped")
            tally.judge(running.wait(0), {0})
            break
        tally.count("interrupts")
        tally.count(f"interrupts: {task.name}, {way}")
        limit = _stop(running, way, chance)
        tally.judge(running.wait(limit), _CODES[way] | {0})
        tally.count(f"interrupts: {_stage(out)}")
    tally.count("resumes")
    tally.judge(task.command(bench, out).run(bench.notes), {0})
    tally.compare(right, out)
    bench.forget(out)


def _stop(running: Running, way: str, chance: Random) -> float:
    """Stop it; the seconds in which it must have ended."""
    if way == "SIGKILL of a worker":
        others = running.others()
        if others:
            chance.choice(others).kill()
        return _IN_ORDER
    if way == "Ctrl-C twice":
        running.signal(signal.SIGINT, group=True)
        time.sleep(chance.uniform(0, 0.4))
    number = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM}.get(way, signal.SIGINT)
    running.signal(number, group=number == signal.SIGINT)
    return _IN_ORDER if way == "Ctrl-C" else _AT_ONCE


def _stage(out: Path) -> str:
    """How far a command had come."""
    if (out / "metadata.jsonl").exists():
        return "after the manifest"
    if (out / ".sgdmix" / "done").exists() or any(out.glob("[!.]*")):
        return "while images were written"
    if (out / ".sgdmix-plan.jsonl").exists():
        return "after the plan"
    return "while describing" if out.exists() else "before the first file"
