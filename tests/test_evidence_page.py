"""``benchmarks/accuracy``: what the results page says is what the results file holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from benchmarks.accuracy import page as drawing
from benchmarks.accuracy.figures import Figure, figure
from benchmarks.accuracy.fit import fit, fit_task, sentence
from benchmarks.accuracy.grid import Grid, GridRow, read_grids
from benchmarks.accuracy.intervals import Estimate, estimate, paired
from benchmarks.accuracy.page import block, devices, verdict, write_page
from benchmarks.accuracy.plots import plot
from benchmarks.accuracy.results import Column, Table, read_runs
from sgdmix_albu.errors import InvalidInputError

NONE, CUTMIX, OURS, SOURCE, TRUTH = "real images", "CutMix", "`SGDMix()`", '`fill="source"`', "true masks"
MINUS = "\N{MINUS SIGN}"
SPECS: dict[str, dict[str, Any]] = {
    NONE: {"mix": "none"},
    CUTMIX: {"mix": "cutmix"},
    OURS: {"mix": "sgdmix"},
    SOURCE: {"mix": "sgdmix", "fill": "source"},
    TRUTH: {"mix": "sgdmix", "given": "true"},
}


def _grid(**changed: Any) -> Grid:
    settings: dict[str, Any] = {
        "name": "01-tasks",
        "title": "Four tasks",
        "question": "Does it help?",
        "network": "net",
        "pixels": 128,
        "baseline": NONE,
        "rivals": (CUTMIX,),
        "bounds": (TRUTH,),
        "figures": ("accuracy",),
        "x": None,
        "tasks": {"shots-5": 3},
        "rows": tuple(GridRow(name, spec) for name, spec in SPECS.items()),
    }
    return Grid(**{**settings, **changed})


def _line(row: str | dict[str, Any], seed: int, accuracy: float | None, **changed: Any) -> dict[str, Any]:
    return {
        "task": "shots-5",
        "network": "net",
        "pixels": 128,
        "row": SPECS[row] if isinstance(row, str) else row,
        "seed": seed,
        "steps": 324,
        "images": 225,
        "figures": {"accuracy": accuracy},
        "device": "CPU",
        "wall_seconds": 3.0,
        "cpu_seconds": 2.0,
        "commit": "abc1234",
        "data": "0123",
        **changed,
    }


def _table(folder: Path, lines: list[dict[str, Any]], **changed: Any) -> Table:
    path = folder / "results.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return Table.of(_grid(**changed), read_runs(path))


def _seeds(row: str, *values: float, **changed: Any) -> list[dict[str, Any]]:
    return [_line(row, seed, value, **changed) for seed, value in enumerate(values)]


WHOLE = [
    *_seeds(NONE, 0.60, 0.62, 0.64),
    *_seeds(CUTMIX, 0.61, 0.64, 0.64),
    *_seeds(OURS, 0.70, 0.73, 0.75),
    *_seeds(SOURCE, 0.62, 0.60, 0.66),
    *_seeds(TRUTH, 0.80, 0.80, 0.83),
]


# Intervals


@pytest.mark.parametrize("values", [[0.3, 0.9], [0.61, 0.6, 0.66, 0.7], list(np.linspace(0, 1, 30) ** 2)])
def test_the_interval_is_students(values: list[float]) -> None:
    found = estimate(values)
    assert found is not None
    assert found.half is not None
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high), rel=1e-12)


def test_one_seed_has_no_interval_and_is_not_apart() -> None:
    assert estimate([0.5]) == Estimate(0.5, None, 1)
    assert not Estimate(0.5, None, 1).apart
    assert estimate([]) is None


def test_differences_are_taken_seed_by_seed() -> None:
    found = paired({0: 0.5, 1: 0.7, 2: 0.9, 7: 0.1}, {2: 0.8, 0: 0.3, 1: 0.4})
    assert found is not None
    assert found.count == 3
    assert found.mean == pytest.approx((0.2 + 0.3 + 0.1) / 3)
    assert found.half == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-6)  # t(0.975, 2) from the tables; s = 0.1
    assert not found.apart


@pytest.mark.parametrize(
    ("value", "said"), [(0.0874, "+8.7 ± 1.0"), (-0.02, f"{MINUS}2.0 ± 1.0"), (-0.0001, "0.0 ± 1.0"), (0, "0.0 ± 1.0")]
)
def test_differences_carry_a_sign(value: float, said: str) -> None:
    assert Figure("accuracy %").difference(Estimate(value, 0.01, 5)) == said


# Which runs a table shows


def test_the_later_of_two_equal_runs_counts(tmp_path: Path) -> None:
    table = _table(tmp_path, [_line(OURS, 0, 0.1), _line({"mix": "sgdmix"}, 0, 0.9)])
    assert table.values(Column("shots-5", "accuracy"), OURS) == {0: 0.9}


def test_what_the_grid_does_not_ask_for_is_not_shown(tmp_path: Path) -> None:
    others = [{"network": "other"}, {"pixels": 224}, {"task": "all"}, {"seed": 3}, {"row": {"mix": "else"}}]
    table = _table(tmp_path, [_line(OURS, 0, 0.1) | other for other in others])
    assert table.runs == {}
    assert table.missing == 15


def test_a_run_is_from_the_device_with_the_most_runs(tmp_path: Path) -> None:
    gpu = [
        *_seeds(NONE, 0.1, 0.1, device="GPU"),
        _line(OURS, 2, 0.2, device="GPU"),
        _line(CUTMIX, 0, 0.2, device="GPU"),
    ]
    cpu = [_line(NONE, 1, 0.9), _line(NONE, 2, 0.3), _line(OURS, 0, 0.5)]
    alone = _line(OURS, 0, 0.7, task="tail")
    table = _table(tmp_path, [*cpu, *gpu[::-1], alone], tasks={"shots-5": 3, "tail": 1})
    assert table.values(Column("shots-5", "accuracy"), NONE) == {0: 0.1, 1: 0.1, 2: 0.3}  # seed 1 is there twice
    assert table.values(Column("shots-5", "accuracy"), OURS) == {0: 0.5, 2: 0.2}
    assert table.values(Column("tail", "accuracy"), OURS) == {0: 0.7}


def test_what_differs_between_devices_is_said(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    lines = [*_seeds(NONE, 0.5, 0.6), *_seeds(NONE, 0.4, 0.62, 0.7, device="GPU")]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = devices(read_runs(path))
    assert said.startswith("Runs made on both CPU and GPU: 2. The first minus the second is +4.0 ± 76.2 points")
    assert said.endswith(f"{MINUS}2.0 to +10.0.\n")
    assert devices(read_runs(tmp_path / "none.jsonl")) == "No run was made on two devices.\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"task": "shots-5", "net', 'results.jsonl, line 2 must be a JSON object, got \'{"task"'),
        ("[1]", "must have the keys commit, cpu_seconds"),
        (json.dumps(_line(OURS, 0, 0.1) | {"seed": "0"}), "seed must be"),
        (
            json.dumps(_line(OURS, 0, None, figures={"accuracy": "high"})),
            "accuracy must be a number, got 'high'",
        ),
    ],
)
def test_a_line_that_is_no_run_is_refused(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(_line(OURS, 0, 0.1)) + "\n" + line + "\n")
    with pytest.raises(InvalidInputError, match="line 2") as refused:
        read_runs(path)
    assert said in str(refused.value)


def test_what_is_no_number_was_not_measured(tmp_path: Path) -> None:
    lines = [_line(OURS, 0, None), _line(OURS, 1, float("nan")), _line(OURS, 2, 0.5)]
    assert _table(tmp_path, lines).values(Column("shots-5", "accuracy"), OURS) == {2: 0.5}
    assert read_runs(tmp_path / "nothing.jsonl") == []


# The page


def _row(text: str, name: str) -> list[str]:
    [line] = [line for line in text.splitlines() if line.startswith((f"| {name} |", f"| {name}<br>"))]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_a_cell_is_the_mean_and_the_difference(tmp_path: Path) -> None:
    text = block(_table(tmp_path, WHOLE))
    half = stats.t.ppf(0.975, 2) * np.std([70, 73, 75], ddof=1) / 3**0.5
    apart = stats.ttest_rel([70, 73, 75], [60, 62, 64]).confidence_interval(0.95)
    assert _row(text, OURS) == [f"**72.7 ± {half:.1f}**<br>+10.7 ± {(apart.high - apart.low) / 2:.1f}"]
    assert _row(text, NONE) == ["62.0 ± 5.0"]
    assert _row(text, TRUTH)[0].startswith("81.0 ± ")  # an upper bound is never the best
    assert "shots-5: 324 steps on 225 real images. 15 of 15 runs, a median of 3 s each (2 s of processor)." in text
    assert "Device: CPU. Commit: abc1234. Data: 0123." in text


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    text = block(_table(tmp_path, [*_seeds(NONE, 0.60, 0.62, 0.64), *_seeds(OURS, 0.70, 0.73)]))
    assert f"| {CUTMIX}" not in text
    assert CUTMIX in text.partition("\nNot run: ")[2].partition(".\n")[0].split("; ")
    assert f"| {OURS}<br>2 of 3 seeds | **71.5 ± " in text
    assert "`SGDMix()` is the best of ours, ahead of real images (+10.5 ± 6.4, 2 seeds); not yet compared with" in text
    assert "5 of 15 runs" in text
    alone = block(_table(tmp_path, [*_seeds(NONE, 0.60, 0.62), *_seeds(OURS, 0.70)]))
    assert "best of ours" not in alone
    assert "Not run yet" in block(_table(tmp_path, []))


def test_the_sentence_compares_with_each_rival(tmp_path: Path) -> None:
    column = Column("shots-5", "accuracy")
    assert verdict(_table(tmp_path, WHOLE), column) == (
        "`SGDMix()` is the best of ours, ahead of real images (+10.7 ± 1.4) and CutMix (+9.7 ± 2.9)."
    )
    close = [*_seeds(NONE, 0.80, 0.82, 0.84), *_seeds(CUTMIX, 0.69, 0.74, 0.75), *_seeds(OURS, 0.70, 0.73, 0.75)]
    assert verdict(_table(tmp_path, close), column) == (
        f"`SGDMix()` is the best of ours, behind real images ({MINUS}9.3 ± 1.4); "
        "not significantly different from CutMix (0.0 ± 2.5)."
    )


def test_less_may_be_better(tmp_path: Path) -> None:
    lines = [line | {"figures": {"gap": 1 - line["figures"]["accuracy"]}} for line in WHOLE]
    text = verdict(_table(tmp_path, lines, figures=("gap",)), Column("shots-5", "gap"))
    assert text is not None
    assert text.startswith(f"`SGDMix()` is the best of ours, ahead of real images ({MINUS}10.7 ± 1.4)")


def test_without_rivals_all_rows_are_compared(tmp_path: Path) -> None:
    text = verdict(_table(tmp_path, WHOLE, rivals=()), Column("shots-5", "accuracy"))
    assert text is not None
    assert SOURCE in text
    assert TRUTH not in text


def test_unequal_budgets_are_said(tmp_path: Path) -> None:
    text = block(_table(tmp_path, [*WHOLE[:-1], WHOLE[-1] | {"steps": 300}]))
    assert "shots-5: 300 to 324 steps on 225 real images, **not equal in all rows**" in text


def test_seeds_may_have_budgets_of_their_own(tmp_path: Path) -> None:
    runs = [line | {"images": 220 + line["seed"]} for line in WHOLE]
    text = block(_table(tmp_path, runs))
    assert "shots-5: 324 steps on 220 to 222 real images." in text


def test_many_columns_become_a_table_a_figure(tmp_path: Path) -> None:
    tasks = {"shots-5": 1, "all": 1, "tail": 1}
    lines = [
        _line(row, 0, None, task=task, figures={"accuracy": 0.5, "gap": 0.1} | ({"few": 0.2} if task == "tail" else {}))
        for task in tasks
        for row in SPECS
    ]
    text = block(_table(tmp_path, lines, tasks=tasks, figures=("accuracy", "gap", "few")))
    heads = [line for line in text.splitlines() if line.startswith(("**", "| trained on"))]
    by_task = "| trained on | shots-5<br>1 seed | all<br>1 seed | tail<br>1 seed |"
    assert heads == ["**accuracy %**", by_task, "**gap**", by_task, "**tail**", "| trained on | few %<br>1 seed |"]


PAGE = """# Results

By hand.

## Four tasks

Before.

<!-- table 01-tasks: begin. Written by make evidence-page; do not edit by hand. -->
old
<!-- table 01-tasks: end -->

After.

## What was not measured

Much.
"""


def test_prose_is_kept_and_tables_are_replaced(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text(PAGE)
    later = Table.of(_grid(name="02-later", title="Later"), [])
    said = write_page([_table(tmp_path, WHOLE), later], page, tmp_path / "plots")
    assert said == ["01-tasks: 15 of 15 runs", "02-later: 0 of 15 runs"]
    text = page.read_text()
    assert "old" not in text
    kept = ["By hand.", "Before.", "**72.7", "After.", "## Later", "Not run yet", "## What was not measured", "Much."]
    assert [text.index(each) for each in kept] == sorted(text.index(each) for each in kept)
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["01-tasks.svg"]
    write_page([_table(tmp_path, WHOLE), later], page, tmp_path / "plots")
    assert page.read_text() == text


def test_markers_without_a_grid_are_refused(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text(PAGE)
    with pytest.raises(InvalidInputError, match=r"markers of tables without a grid: 01-tasks"):
        write_page([], page, tmp_path)


def test_the_page_is_drawn_from_the_results(repository: Path, tmp_path: Path) -> None:
    """``make evidence-page`` would change nothing."""
    page = repository / "docs" / "results.md"
    runs = read_runs(drawing.HERE / "results.jsonl")
    tables = [Table.of(grid, runs) for grid in read_grids(drawing.HERE / "grids")]
    drawn = Path(shutil.copy(page, tmp_path / "results.md"))
    write_page(tables, drawn, tmp_path / "plots", devices(runs))
    assert drawn.read_text("utf-8") == page.read_text("utf-8")
    for plotted in (tmp_path / "plots").iterdir():
        assert (repository / "docs" / "assets" / "results" / plotted.name).read_text() == plotted.read_text()


# The fit


def _made() -> tuple[dict[str, np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    generator = np.random.default_rng(5)
    properties = {name: generator.uniform(size=(9, 1)) * np.ones(4) for name in ("coverage", "spill", "leak")}
    return properties, 0.5 + 0.2 * properties["coverage"] - 0.1 * properties["spill"] + np.array([0, 0.02, 0.01, 0.05])


def test_the_fit_finds_what_was_put_in() -> None:
    properties, accuracy = _means(*_made())
    found = fit(properties, accuracy)
    assert found is not None
    wanted = {"coverage": 0.2 * properties["coverage"].std(), "spill": -0.1 * properties["spill"].std(), "leak": 0.0}
    for name, (value, low, high) in found.coefficients.items():
        assert [value, low, high] == pytest.approx([wanted[name] / accuracy.std()] * 3, abs=1e-9)
    assert found.explained == pytest.approx(1)
    assert found.rows == 9
    for name, values in properties.items():
        assert found.ranks[name] == pytest.approx(stats.spearmanr(values, accuracy).statistic)


def test_ranks_share_ties() -> None:
    coverage, accuracy = np.array([0.1, 0.5, 0.5, 0.5, 0.9, 0.9]), np.array([0.2, 0.2, 0.4, 0.3, 0.6, 0.5])
    found = fit({"coverage": coverage}, accuracy)
    assert found is not None
    assert found.ranks["coverage"] == pytest.approx(stats.spearmanr(coverage, accuracy).statistic)


def test_rows_off_the_line_widen_the_interval() -> None:
    properties, accuracy = _means(*_made())
    found = fit(properties, accuracy + np.random.default_rng(1).normal(0, 0.05, accuracy.shape))
    assert found is not None
    assert all(low < value < high for value, low, high in found.coefficients.values())
    assert found.explained < 1


def test_what_cannot_be_fitted_is_left_out() -> None:
    properties, accuracy = _means(*_made())
    found = fit(properties | {"spill": np.full(9, 0.2)}, accuracy)
    assert found is not None
    assert found.coefficients.keys() == {"coverage", "leak"}
    assert fit({name: values[:4] for name, values in properties.items()}, accuracy[:4]) is None


def _means(properties: dict[str, Any], accuracy: Any) -> tuple[dict[str, Any], Any]:
    return {name: values.mean(1) for name, values in properties.items()}, accuracy.mean(1)


def test_the_fit_is_said(tmp_path: Path) -> None:
    properties, accuracy = _made()
    properties["leak"] = 1 - properties["coverage"] + 0.1 * properties["leak"]
    rows = [GridRow(NONE, SPECS[NONE])] + [GridRow(f"masks {i}", {"mix": "sgdmix", "given": i}) for i in range(9)]
    lines = [
        _line(
            {"mix": "sgdmix", "given": i},
            seed,
            None,
            figures={"accuracy": accuracy[i, seed]} | {name: each[i, seed] for name, each in properties.items()},
        )
        for i in range(9)
        for seed in range(3)
    ]
    names = ("accuracy", "coverage", "spill", "leak")
    table = _table(tmp_path, [*_seeds(NONE, 0.5), *lines], figures=names, rows=tuple(rows), rivals=(), bounds=())
    found = fit_task(table, "shots-5")
    assert found is not None
    text = sentence(found, "shots-5")
    assert text.startswith("Over the 9 rows with masks on shots-5, accuracy rises with coverage (+")
    assert f" and falls with spill ({MINUS}" in text
    together = abs(np.corrcoef(properties["coverage"][:, 0], properties["leak"][:, 0])[0, 1])
    assert f"Coverage and leak are correlated (r {MINUS}{together:.2f})" in text
    assert text in block(table)
    assert fit_task(_table(tmp_path, WHOLE), "shots-5") is None


# The plots


def _drawn(table: Table) -> ElementTree.Element:
    return ElementTree.fromstring(plot(table))


def _told(root: ElementTree.Element) -> dict[str, ElementTree.Element]:
    """What is drawn, by the text that the pointer brings up, up to the colon."""
    svg = "{http://www.w3.org/2000/svg}"
    return {str(group[0].text).rpartition(":")[0]: group for group in root.iter(f"{svg}g")}


def test_dots_stand_where_the_means_are(tmp_path: Path) -> None:
    groups = _told(_drawn(_table(tmp_path, WHOLE)))
    assert [*groups] == ["real images", "CutMix", "SGDMix()", 'fill="source"', "true masks"]
    ours, source = (float(groups[name][2].attrib["cx"]) for name in ("SGDMix()", 'fill="source"'))
    low, high = (float(groups["SGDMix()"][1].attrib[end]) for end in ("x1", "x2"))
    half = stats.t.ppf(0.975, 2) * np.std([70, 73, 75], ddof=1) / 3**0.5
    per_point = (ours - source) / (218 / 3 - 188 / 3)
    assert (ours - low, high - ours) == pytest.approx((half * per_point, half * per_point), abs=0.2)
    assert ours > source
    start, end = (float(groups['fill="source"'][1].attrib[key]) for key in ("x1", "x2"))  # the lowest of all
    whole = 2 * stats.t.ppf(0.975, 2) * stats.sem([62, 60, 66]) * per_point
    assert end - start == pytest.approx(whole, abs=0.2)
    assert 600 < float(groups["true masks"][1].attrib["x2"]) - start < 880  # the panel is used


def test_numbers_become_lines(tmp_path: Path) -> None:
    rows = [GridRow(NONE, SPECS[NONE])] + [
        GridRow(f"{fill}, {count}", {"mix": "sgdmix", "fill": fill, "candidates": count})
        for fill in ("inpaint", "source")
        for count in (100, 1, 10)
    ]
    lines = [_line(row.spec, seed, 0.5 + 0.01 * seed) for row in rows for seed in range(3)]
    root = _drawn(_table(tmp_path, lines, rows=tuple(rows), rivals=(), bounds=(), x="candidates"))
    paths = [line.attrib["points"] for line in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert len(paths) == 2
    for path in paths:
        across = [float(point.split(",")[0]) for point in path.split()]
        assert across[1] - across[0] == pytest.approx(across[2] - across[1], abs=0.2)  # 1, 10, 100: a log scale
        assert across == sorted(across)
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"fill=inpaint", "fill=source", "real images", "candidates"} <= {*texts}


def test_names_are_escaped_and_two_seeds_do_not_flatten_the_rest(tmp_path: Path) -> None:
    rows = (GridRow("a < b & c", {"mix": "none"}), GridRow("wild", {"mix": "sgdmix"}))
    lines = [_line({"mix": "none"}, seed, 0.5 + 0.01 * seed) for seed in range(3)]
    wild = [_line({"mix": "sgdmix"}, seed, value) for seed, value in enumerate((0.2, 0.8))]
    groups = _told(_drawn(_table(tmp_path, lines + wild, rows=rows, baseline="a < b & c", rivals=(), bounds=())))
    start, end = (float(groups["wild"][1].attrib[key]) for key in ("x1", "x2"))
    assert 0 <= start < end <= 880
    narrow = groups["a < b & c"][1].attrib
    assert float(narrow["x2"]) - float(narrow["x1"]) > 0.5 * (end - start)
    assert "a < b & c" in groups


def test_a_figure_that_is_not_described_is_shown_and_not_judged(tmp_path: Path) -> None:
    assert figure("warm_glow") == Figure("warm glow", 1, 3, 0)
    lines = [line | {"figures": {"warm_glow": 0.5}} for line in WHOLE]
    text = block(_table(tmp_path, lines, figures=("warm_glow",)))
    assert _row(text, OURS) == ["0.500 ± 0.000"]
    assert "best of ours" not in text
