"""Calls of the API, sane and wild (see ``calls.py``), in a new process: they start threads."""

from __future__ import annotations

import sys
from random import Random

from .bench import Bench
from .command import Command
from .tally import Tally

__all__ = ["attack"]

_LIMIT = 300.0  # seconds
_CALLS = "200"


def attack(number: int, chance: Random, bench: Bench, tally: Tally) -> None:
    """Two hundred calls."""
    seed = str(chance.randrange(2**31))
    ended = Command((seed, _CALLS), "tests.attack.api", fresh=True).run(bench.notes, _LIMIT)
    tally.judge(ended, {0})
    for fault in ended.out.splitlines():
        tally.fault("call", fault)


if __name__ == "__main__":
    from tests.attack.calls import run

    for fault in run(*map(int, sys.argv[1:])).faults:
        print(ascii(str(fault))[1:-1])
