"""Grids: what is run for a table, fixed before it is run.

One TOML file a table, ``grids/NN-name.toml``::

    title = "Four tasks"
    question = "Does it help, and where?"
    network = "tf_efficientnet_lite0"     # default
    pixels = 128                          # default
    baseline = "real images"              # the row that differences are taken to; default: the first
    rivals = ["CutMix"]                   # rows that are not ours; default: none
    bounds = ["true masks"]               # ours, but with what users have not: shown, never the best; default: none
    figures = ["accuracy"]                # what is shown; default: accuracy
    x = "candidates"                      # key of the rows that becomes the plot's x axis; default: none

    [tasks]                               # task = number of seeds
    shots-5 = 5

    [[row]]
    name = "real images"                  # shown; everything else is how to train
    mix = "none"
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgdmix_albu.errors import InvalidInputError

NETWORK, PIXELS = "tf_efficientnet_lite0", 128


@dataclass(frozen=True)
class GridRow:
    """One way to train.

    Attributes:
        name: Shown on the page, in Markdown.
        spec: How to train: the row's keys without ``name``. Its :func:`spec_key` is how results are found.
    """

    name: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """One table: every row is trained on every task, once a seed.

    Attributes:
        name: The file's, without ``.toml``.
        title: Headline of the table.
        question: What the table answers.
        network: Name of the architecture in timm.
        pixels: Side of the images.
        baseline: Name of the row that differences are taken to.
        rivals: Names of the rows that are not ours.
        bounds: Names of the rows that show how far it could go.
        figures: Which figures of a run are shown.
        x: Key of the rows' specs whose number is the plot's x axis.
        tasks: Number of seeds a task: the seeds are 0, 1, ...
        rows: In the order that is shown.
    """

    name: str
    title: str
    question: str
    network: str
    pixels: int
    baseline: str
    rivals: tuple[str, ...]
    bounds: tuple[str, ...]
    figures: tuple[str, ...]
    x: str | None
    tasks: dict[str, int]
    rows: tuple[GridRow, ...]


_SAID = {"p": 0.5, "candidates": 50, "fill": "inpaint", "place": "source"}  # what "sgdmix" does if nothing is said


def spec_key(spec: dict[str, Any]) -> str:
    """A row's spec as canonical JSON: equal for equal specs, whatever the order of their keys; 1.0 is 1.

    What a row of "sgdmix" says as it is without saying is left out.

    >>> spec_key({"p": 1.0, "mix": "sgdmix"}) == spec_key({"mix": "sgdmix", "p": 1, "candidates": 50})
    True
    """
    if spec.get("mix") == "sgdmix":
        spec = {name: value for name, value in spec.items() if name not in _SAID or value != _SAID[name]}
    return json.dumps(_plain(spec), sort_keys=True, separators=(",", ":"), allow_nan=False)


def read_grids(folder: Path) -> list[Grid]:
    """All grids of a folder, by name.

    Raises:
        InvalidInputError: A file that is no grid: it says which file, what was expected and what it got.
    """
    return [read_grid(path) for path in sorted(folder.glob("*.toml"))]


def read_grid(path: Path) -> Grid:
    """One grid.

    Raises:
        InvalidInputError: The file is no grid.
    """
    if not re.fullmatch(r"\d\d-[a-z0-9-]+", path.stem):
        raise InvalidInputError(f"a grid's file must be named like 01-tasks.toml, got {path.name}")
    try:
        return _grid(path.stem, tomllib.loads(path.read_text("utf-8")))
    except (InvalidInputError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path.name}: {error}") from error


def _grid(name: str, table: dict[str, Any]) -> Grid:
    taken = dict(table)
    rows = _rows(taken.pop("row", None))
    names = [row.name for row in rows]
    grid = Grid(
        name=name,
        title=_text("title", taken.pop("title", None)),
        question=_text("question", taken.pop("question", None)),
        network=_text("network", taken.pop("network", NETWORK)),
        pixels=_count("pixels", taken.pop("pixels", PIXELS)),
        baseline=_text("baseline", taken.pop("baseline", names[0])),
        rivals=_texts("rivals", taken.pop("rivals", [])),
        bounds=_texts("bounds", taken.pop("bounds", [])),
        figures=_texts("figures", taken.pop("figures", ["accuracy"])),
        x=None if "x" not in taken else _text("x", taken.pop("x")),
        tasks=_tasks(taken.pop("tasks", None)),
        rows=rows,
    )
    if taken:
        raise InvalidInputError(f"unknown keys: {', '.join(sorted(taken))}")
    for asked in (grid.baseline, *grid.rivals, *grid.bounds):
        if asked not in names:
            raise InvalidInputError(
                f"baseline, rivals and bounds must be names of rows ({', '.join(names)}), got {asked!r}"
            )
    if not grid.figures:
        raise InvalidInputError("figures must name at least one figure, got none")
    if grid.x is not None:
        _check_axis(grid.x, rows)
    return grid


def _check_axis(x: str, rows: tuple[GridRow, ...]) -> None:
    given = [row.spec[x] for row in rows if x in row.spec]
    wrong = [value for value in given if isinstance(value, bool) or not isinstance(value, int | float)]
    if wrong or len(set(given)) < 2:
        raise InvalidInputError(f"x must be a key of rows with two numbers or more, got {x!r} with {wrong or given}")


def _tasks(found: Any) -> dict[str, int]:
    if not isinstance(found, dict) or not found:
        raise InvalidInputError(f"[tasks] must give each task its number of seeds, got {found!r}")
    return {_text("a task's name", task): _count(f"the seeds of {task}", seeds) for task, seeds in found.items()}


def _rows(found: Any) -> tuple[GridRow, ...]:
    if not isinstance(found, list) or not found or not all(isinstance(row, dict) for row in found):
        raise InvalidInputError(f"[[row]] must be given at least once, got {found!r}")
    rows = tuple(
        GridRow(_text("a row's name", row.get("name")), {key: value for key, value in row.items() if key != "name"})
        for row in found
    )
    _check_once("rows of the same name", [row.name for row in rows])
    _check_once("rows that train alike", [_key(row) for row in rows])
    return rows


def _key(row: GridRow) -> str:
    if not row.spec:
        raise InvalidInputError(f"row {row.name!r} must say how to train, got a name only")
    try:
        return spec_key(row.spec)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"row {row.name!r} must be text, numbers, true, false and lists: {error}") from error


def _check_once(what: str, values: list[str]) -> None:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise InvalidInputError(f"{what}: {', '.join(twice)}")


def _text(what: str, found: Any) -> str:
    if not isinstance(found, str) or not found.strip() or "\n" in found:
        raise InvalidInputError(f"{what} must be one line of text, got {found!r}")
    return found


def _texts(what: str, found: Any) -> tuple[str, ...]:
    if not isinstance(found, list):
        raise InvalidInputError(f"{what} must be a list of names, got {found!r}")
    texts = [_text(f"each of {what}", each) for each in found]
    _check_once(f"{what} named twice", texts)
    return tuple(texts)


def _count(what: str, found: Any) -> int:
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise InvalidInputError(f"{what} must be a whole number above 0, got {found!r}")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
