"""The results file, and which of its runs a table shows.

The file is only ever appended to, one JSON object a line; see :class:`Run`.
"""

from __future__ import annotations

import json
import math
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from benchmarks.accuracy.grid import Grid, spec_key
from sgdmix_albu.errors import InvalidInputError

_HERE = Path(__file__).parent
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "task": str,
    "network": str,
    "pixels": int,
    "row": dict,
    "seed": int,
    "steps": int,
    "images": int,
    "figures": dict,
    "device": str,
    "wall_seconds": (int, float),
    "cpu_seconds": (int, float),
    "commit": str,
    "data": str,
}


@dataclass(frozen=True)
class Run:
    """One network, trained and judged.

    Attributes:
        task: Name of the task.
        network: Name of the architecture.
        pixels: Side of the images.
        row: How it was trained, by :func:`~benchmarks.accuracy.grid.spec_key`.
        seed: The run's.
        steps: Gradient steps that were made.
        images: Real images that were trained on.
        figures: What was measured, by name; what is not a number was not measured and is not here.
        device: Name of the processor.
        wall_seconds: How long it took.
        cpu_seconds: How long the processor worked on it.
        commit: Of the code.
        data: First digits of the data's hash.
    """

    task: str
    network: str
    pixels: int
    row: str
    seed: int
    steps: int
    images: int
    figures: dict[str, float]
    device: str
    wall_seconds: float
    cpu_seconds: float
    commit: str
    data: str


def stored_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a results file as they are, for what is missing; none if there is no such file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def commit(*, check: bool = False) -> str:
    """Of this code, for the results; empty where git cannot tell, or an error with ``check``."""
    words = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=check, cwd=_HERE).stdout.strip()


def read_runs(path: Path) -> list[Run]:
    """All runs of a results file; none if there is no such file.

    Raises:
        InvalidInputError: A line that is no run: which, what was expected and what it got.
    """
    if not path.exists():
        return []
    lines = enumerate(path.read_text("utf-8").splitlines(), start=1)
    return [_run(f"{path.name}, line {number}", line) for number, line in lines if line.strip()]


def _run(where: str, line: str) -> Run:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"{where} must be a JSON object, got {line[:60]!r}") from error
    if not isinstance(found, dict) or not found.keys() >= _FIELDS.keys():
        keys = ", ".join(sorted(found)) if isinstance(found, dict) else found
        raise InvalidInputError(f"{where} must have the keys {', '.join(sorted(_FIELDS))}, got {keys}")
    for key, kind in _FIELDS.items():
        if not isinstance(found[key], kind) or isinstance(found[key], bool):
            raise InvalidInputError(f"{where}: {key} must be {kind}, got {found[key]!r}")
    figures = {name: float(value) for name, value in found["figures"].items() if _is_measured(where, name, value)}
    return Run(**{key: found[key] for key in _FIELDS} | {"row": spec_key(found["row"]), "figures": figures})


def _is_measured(where: str, name: str, value: Any) -> bool:
    if value is None:
        return False
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInputError(f"{where}: figure {name} must be a number, got {value!r}")
    return math.isfinite(value)


Kind = Literal["ours", "other", "bound"]


@dataclass(frozen=True)
class Column:
    """What one column shows: a figure on a task."""

    task: str
    figure: str


@dataclass(frozen=True)
class Table:
    """A grid and its runs.

    Attributes:
        grid: What is to be run.
        runs: What was run, by task, name of the row and seed.
    """

    grid: Grid
    runs: dict[tuple[str, str, int], Run]

    @classmethod
    def of(cls, grid: Grid, runs: Iterable[Run]) -> Table:
        """The runs that the grid asks for.

        A run that was made on several devices is taken from the one with the most runs of its task, then of the grid;
        of two runs that are the same, the later one. What differs between devices is said by :func:`repeated`.
        """
        names = {spec_key(row.spec): row.name for row in grid.rows}
        asked = {
            (run.task, names[run.row], run.seed, run.device): run
            for run in runs
            if run.row in names and (run.network, run.pixels) == (grid.network, grid.pixels)
            if run.seed in range(grid.tasks.get(run.task, 0))
        }
        here = Counter((task, device) for task, _, _, device in asked)
        all_over = Counter(device for *_, device in asked)
        ranked = sorted(asked, key=lambda key: (here[key[0], key[3]], all_over[key[3]], key[3]))
        return cls(grid, {(task, name, seed): asked[task, name, seed, d] for task, name, seed, d in ranked})

    def kind(self, row: str) -> Kind:
        """Whose a row is; real images alone are nobody's."""
        if row in self.grid.bounds:
            return "bound"
        spec = next(each.spec for each in self.grid.rows if each.name == row)
        return "other" if row in self.grid.rivals or spec.get("mix") == "none" else "ours"

    @property
    def missing(self) -> int:
        """How many of the grid's runs are not there."""
        return len(self.grid.rows) * sum(self.grid.tasks.values()) - len(self.runs)

    def values(self, column: Column, row: str) -> dict[int, float]:
        """A row's figure, by seed."""
        found = {seed: self.runs.get((column.task, row, seed)) for seed in range(self.grid.tasks[column.task])}
        return {seed: run.figures[column.figure] for seed, run in found.items() if run and column.figure in run.figures}

    def has_runs(self, task: str, row: str) -> bool:
        """Whether a row was run on a task at all."""
        return any((task, row, seed) in self.runs for seed in range(self.grid.tasks[task]))

    def columns(self) -> list[Column]:
        """The grid's figures on each task, without those that no run has: a long tail has groups, other tasks none."""
        return [
            Column(task, figure)
            for task in self.grid.tasks
            for figure in self.grid.figures
            if any(figure in run.figures for (of, *_), run in self.runs.items() if of == task)
        ]


def repeated(runs: Iterable[Run], figure: str = "accuracy") -> dict[tuple[str, str], list[float]]:
    """By two devices, the first minus the second in a figure, of each run that was made on both."""
    made: dict[tuple[str, str, int, str, int], dict[str, float]] = {}
    for run in runs:
        key = (run.task, run.network, run.pixels, run.row, run.seed)
        made.setdefault(key, {})[run.device] = run.figures[figure]
    found: dict[tuple[str, str], list[float]] = {}
    for of in made.values():
        for one, other in combinations(sorted(of), 2):
            found.setdefault((one, other), []).append(of[one] - of[other])
    return found
