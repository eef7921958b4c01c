"""``benchmarks/accuracy/grid.py``: a grid says what it means, or one error says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.accuracy.grid import GridRow, read_grid, read_grids, spec_key
from sgdmix_albu.errors import InvalidInputError

HEAD = 'title = "T"\nquestion = "Q?"\n'
TASKS = "[tasks]\nshots-5 = 5\nall = 3\n"
NONE = '[[row]]\nname = "real images"\nmix = "none"\n'
OURS = '[[row]]\nname = "`SGDMix()`"\nmix = "sgdmix"\np = 0.5\n'


def _written(folder: Path, text: str, name: str = "01-tasks.toml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_defaults(tmp_path: Path) -> None:
    _written(tmp_path, HEAD + TASKS + NONE + OURS)
    [grid] = read_grids(tmp_path)
    assert (grid.name, grid.title, grid.question) == ("01-tasks", "T", "Q?")
    assert (grid.network, grid.pixels, grid.x) == ("tf_efficientnet_lite0", 128, None)
    assert (grid.baseline, grid.rivals, grid.figures) == ("real images", (), ("accuracy",))
    assert grid.tasks == {"shots-5": 5, "all": 3}
    assert grid.rows[1] == GridRow("`SGDMix()`", {"mix": "sgdmix", "p": 0.5})


def test_grids_come_by_name(tmp_path: Path) -> None:
    for name in ("02-b.toml", "01-a.toml"):
        _written(tmp_path, HEAD + TASKS + NONE, name)
    assert [grid.name for grid in read_grids(tmp_path)] == ["01-a", "02-b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + "colour = 1\n" + TASKS + NONE, "unknown keys: colour"),
        (HEAD + TASKS + NONE + NONE, "rows of the same name: real images"),
        (HEAD + TASKS + OURS + OURS.replace("SGDMix()", "again"), "rows that train alike"),
        (HEAD + TASKS + '[[row]]\nname = "x"\n', "must say how to train"),
        (HEAD + TASKS + '[[row]]\nmix = "x"\n', "a row's name must be one line of text, got None"),
        (HEAD + TASKS + NONE + "when = 2020-01-01\n", "must be text, numbers"),
        (HEAD + TASKS, "must be given at least once"),
        (HEAD + NONE, "must give each task its number of seeds, got None"),
        (HEAD + "[tasks]\na = 0\n" + NONE, "the seeds of a must be a whole number above 0, got 0"),
        (HEAD + "[tasks]\na = true\n" + NONE, "got True"),
        (HEAD + 'baseline = "CutMix"\n' + TASKS + NONE, "must be names of rows (real images), got 'CutMix'"),
        (HEAD + 'rivals = ["CutMix"]\n' + TASKS + NONE, "must be names of rows (real images), got 'CutMix'"),
        (HEAD + 'bounds = ["true"]\n' + TASKS + NONE, "must be names of rows (real images), got 'true'"),
        (HEAD + "figures = []\n" + TASKS + NONE, "at least one figure"),
        (HEAD + 'figures = ["a", "a"]\n' + TASKS + NONE, "figures named twice: a"),
        (
            HEAD + 'x = "mix"\n' + TASKS + NONE,
            "a key of rows with two numbers or more, got 'mix' with ['none']",
        ),
        (HEAD + 'x = "p"\n' + TASKS + NONE, "'p' with []"),
        ("title = 3\n" + TASKS + NONE, "title must be one line of text, got 3"),
        ("title =\n", "Invalid value"),
    ],
)
def test_what_is_no_grid_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_grid(_written(tmp_path, text))
    assert said in str(refused.value)
    assert str(refused.value).startswith("01-tasks.toml: ")


def test_the_name_of_the_file_is_checked(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"named like 01-tasks.toml, got tasks.toml"):
        read_grid(_written(tmp_path, HEAD + TASKS + NONE, "tasks.toml"))


def test_one_key_a_spec() -> None:
    assert spec_key({"p": 1.0, "mix": "none"}) == '{"mix":"none","p":1}' == spec_key({"mix": "none", "p": 1})
    assert spec_key({"p": True}) != spec_key({"p": 1})
    assert spec_key({"a": [1.0, {"c": 2, "b": 0.5}]}) == '{"a":[1,{"b":0.5,"c":2}]}'
