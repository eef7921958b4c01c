"""Draw docs/results.md: the tables, what they say, and the plots, from the results file.

What stands around the markers is written by hand and kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks.accuracy import fit
from benchmarks.accuracy.figures import figure, listed, minus
from benchmarks.accuracy.grid import Grid, read_grids
from benchmarks.accuracy.intervals import Estimate, estimate, paired
from benchmarks.accuracy.plots import plot
from benchmarks.accuracy.results import Column, Run, Table, read_runs, repeated
from sgdmix_albu.errors import InvalidInputError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
_MOST_COLUMNS = 5  # more are one table a task
_MOST_NAMED = 6
_UNTOLD, _UNKNOWN = "not significantly different from", "not yet compared with"
_REST = "## What was not measured"  # new tables go before it
_MARKED = re.compile(r"(<!-- table ([\w-]+): begin\.[^>]*-->\n)(.*?)(<!-- table \2: end -->)", re.DOTALL)


def main() -> None:
    """Draw the repository's page."""
    page, plots = ROOT / "docs" / "results.md", ROOT / "docs" / "assets" / "results"
    runs = read_runs(HERE / "results.jsonl")
    tables = [Table.of(grid, runs) for grid in read_grids(HERE / "grids")]
    for line in write_page(tables, page, plots, devices(runs)):
        print(line)


def write_page(tables: Sequence[Table], page: Path, plots: Path, also: str = "") -> list[str]:
    """Write every table between its markers, and its plot.

    A table without markers gets a section of its own.

    Args:
        tables: What is shown.
        page: A Markdown file that is there; it is written anew.
        plots: Folder of the SVG files.
        also: What stands between the markers "devices", if the page has them.

    Returns:
        A line for each table: how much of it was run.

    Raises:
        InvalidInputError: Markers of a table that is not given.
    """
    text = page.read_text("utf-8")
    for table in tables:
        text = _with_markers(text, table.grid)
    blocks = {table.grid.name: block(table) for table in tables} | {"devices": also}
    strange = [name for _, name, *_ in _MARKED.findall(text) if name not in blocks]
    if strange:
        raise InvalidInputError(f"{page.name} has markers of tables without a grid: {', '.join(strange)}")
    plots.mkdir(parents=True, exist_ok=True)
    for table in tables:
        if table.columns():
            (plots / f"{table.grid.name}.svg").write_text(plot(table), "utf-8")
    page.write_text(_MARKED.sub(lambda found: f"{found[1]}\n{blocks[found[2]]}\n{found[4]}", text), "utf-8")
    return [f"{t.grid.name}: {len(t.runs)} of {len(t.runs) + t.missing} runs" for t in tables]


def _with_markers(text: str, grid: Grid) -> str:
    if f"<!-- table {grid.name}: begin." in text:
        return text
    section = (
        f"## {grid.title}\n\n<!-- table {grid.name}: begin. Written by make evidence-page; do not edit by hand. -->\n"
        f"<!-- table {grid.name}: end -->\n\n"
    )
    before, rest, after = text.partition(_REST)
    return f"{before}{section}{rest}{after}" if rest else f"{text.rstrip()}\n\n{section}"


def block(table: Table) -> str:
    """What a table says, the table and its plot, in Markdown."""
    question = f"*{table.grid.question}*\n"
    columns = table.columns()
    if not columns:
        return f"{question}\nNot run yet.\n"
    parts = [question, *_verdicts(table, columns), *_tables(table, columns), _picture(table.grid)]
    if set(fit.PREDICTORS) <= set(table.grid.figures):
        parts += [f"{fit.sentence(found, task)}\n" for task in table.grid.tasks if (found := fit.fit_task(table, task))]
    return "\n".join([*parts, _footer(table)])


def _picture(grid: Grid) -> str:
    return f'<div markdown="0">\n--8<-- "docs/assets/results/{grid.name}.svg"\n</div>\n'


# Tables


def _tables(table: Table, columns: Sequence[Column]) -> Iterable[str]:
    """One table; with many columns one a figure, and one a task for the figures that it alone has."""
    if len(columns) <= _MOST_COLUMNS:
        yield _markdown(table, {f"{c.task}<br>{figure(c.figure).title}": c for c in columns})
        return
    groups: dict[str, dict[str, Column]] = {}
    for column in columns:
        title = figure(column.figure).title
        alone = [other.figure for other in columns].count(column.figure) == 1
        caption, head = (column.task, title) if alone else (title, column.task)
        groups.setdefault(caption, {})[head] = column
    for caption, own in groups.items():
        yield f"**{caption}**\n"
        yield _markdown(table, own)


def _markdown(table: Table, columns: Mapping[str, Column]) -> str:
    """A cell is the mean and, on a line of its own, the difference to the baseline. Rows without runs come last."""
    head = [f"{head}<br>{_seeds(table, column)}" for head, column in columns.items()]
    lines = [["trained on", *head], ["---"] * (1 + len(columns))]
    absent = []
    for row in table.grid.rows:
        if not any(table.has_runs(column.task, row.name) for column in columns.values()):
            absent.append(row.name)
            continue
        few = [_few(table, column, row.name) for column in columns.values()]
        alike = len(set(few) - {None}) == 1  # said once
        cells = [
            _cell(table, column, row.name, "" if alike else n) for n, column in zip(few, columns.values(), strict=True)
        ]
        name = row.name.replace("|", "\\|")
        lines.append([f"{name}<br>{max(n or '' for n in few)}" if alike and any(few) else name, *cells])
    drawn = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    missing = f"\nNot run: {'; '.join(absent)}.\n" if absent else ""
    if len(absent) == len(table.grid.rows):
        return "Not run.\n"
    return f'<div class="figures" markdown>\n\n{drawn}{missing}\n</div>\n'


def _few(table: Table, column: Column, row: str) -> str | None:
    """Such as "2 of 5 seeds"; empty where all are there, None where there is nothing to count."""
    count, planned = len(table.values(column, row)), table.grid.tasks[column.task]
    return None if not count else "" if count == planned else f"{count} of {planned} seeds"


def _seeds(table: Table, column: Column) -> str:
    count = table.grid.tasks[column.task]
    return "1 seed" if count == 1 else f"{count} seeds"


def _cell(table: Table, column: Column, row: str, few: str | None) -> str:
    shown = figure(column.figure)
    found = estimate([*table.values(column, row).values()])
    if found is None:
        return "not run" if not table.has_runs(column.task, row) else ""
    text = shown.value(found)
    if row == best(table, column, [each.name for each in table.grid.rows if table.kind(each.name) != "bound"]):
        text = f"**{text}**"
    if shown.better and row != table.grid.baseline and (ahead := _difference(table, column, row, table.grid.baseline)):
        text += f"<br>{shown.difference(ahead)}"
    return f"{text}<br>{few}" if few else text


def _difference(table: Table, column: Column, row: str, other: str) -> Estimate | None:
    return paired(table.values(column, row), table.values(column, other))


def best(table: Table, column: Column, rows: Iterable[str]) -> str | None:
    """The row with the best mean, of those with two seeds or more; None where the figure is not judged."""
    better = figure(column.figure).better
    found = {row: each for row in rows if (each := estimate([*table.values(column, row).values()])) and each.count > 1}
    return max(found, key=lambda row: better * found[row].mean) if better and found else None


# What a table says


def _verdicts(table: Table, columns: Sequence[Column]) -> Iterable[str]:
    said = [
        f"- {column.task}, {figure(column.figure).title}: {text}"
        for column in columns
        if (text := verdict(table, column))
    ]
    if said:
        yield "\n".join(said) + "\n"


def verdict(table: Table, column: Column) -> str | None:
    """Whether the best of our rows is ahead of the others: the paired interval is apart from zero.

    The others are the baseline and the rivals; in a table without rivals, all rows. None where the figure is not
    judged, or with too few seeds to compare anything.
    """
    grid, shown = table.grid, figure(column.figure)
    if not shown.better:
        return None
    names = [row.name for row in grid.rows if table.kind(row.name) != "bound"]
    ours = best(table, column, [name for name in names if table.kind(name) == "ours"])
    if ours is None:
        return None
    others = [name for name in names if name != ours and (not grid.rivals or name in (grid.baseline, *grid.rivals))]
    groups: dict[str, list[tuple[float, str]]] = {where: [] for where in ("ahead of", "behind", _UNTOLD, _UNKNOWN)}
    for name in others:
        found = _difference(table, column, ours, name)
        if found is None or found.half is None:
            groups[_UNKNOWN].append((0, name))
            continue
        ahead = found.mean * shown.better
        few = "" if found.count == grid.tasks[column.task] else f", {found.count} seeds"
        where = _UNTOLD if not found.apart else "ahead of" if ahead > 0 else "behind"
        groups[where].append((ahead, f"{name} ({shown.difference(found)}{few})"))
    if others and len(groups[_UNKNOWN]) == len(others):
        return None
    parts = [_compared(where, found) for where, found in groups.items() if found]
    return f"{ours} is the best of ours" + (f", {'; '.join(parts)}." if parts else ".")


def _compared(where: str, found: Sequence[tuple[float, str]]) -> str:
    """All by name; of many, how many, and of those that are well behind the nearest."""
    if len(found) > _MOST_NAMED:
        nearest = f", the nearest of which is {min(found)[1]}" if where == "ahead of" else ""
        return f"{where} {len(found)} others{nearest}"
    return f"{where} {listed([name for _, name in found])}"


# Where the figures come from


def devices(runs: Iterable[Run]) -> str:
    """How far apart the same run on two devices is, in accuracy."""
    shown = figure("accuracy")
    said = [
        f"Runs made on both {one} and {other}: {len(gaps)}. The first minus the second is "
        f"{shown.difference(found)} points of accuracy, "
        f"{minus(f'{100 * min(gaps):+.1f}')} to {minus(f'{100 * max(gaps):+.1f}')}."
        for (one, other), gaps in sorted(repeated(runs).items())
        if (found := estimate(gaps))
    ]
    return "\n".join(said) + "\n" if said else "No run was made on two devices.\n"


def _footer(table: Table) -> str:
    runs = [*table.runs.values()]
    total = len(runs) + table.missing
    equal = "; ".join(_budget(task, [run for run in runs if run.task == task]) for task in table.grid.tasks)
    wall, cpu = median(run.wall_seconds for run in runs), median(run.cpu_seconds for run in runs)
    return (
        f"<small>{table.grid.network}, {table.grid.pixels} px. {equal}. {len(runs)} of {total} runs, "
        f"a median of {wall:.0f} s each ({cpu:.0f} s of processor). Device: {_names(run.device for run in runs)}. "
        f"Commit: {_names(run.commit for run in runs)}. Data: {_names(run.data for run in runs)}.</small>\n"
    )


def _budget(task: str, runs: Sequence[Run]) -> str:
    """Steps and real images, which must be equal in all rows of a seed; said aloud if they are not.

    Seeds may differ: a long tail's classes are drawn, and not all have the images that the tail asks of them.
    """
    if not runs:
        return f"{task}: not run yet"
    steps, images = ({run.steps for run in runs}, {run.images for run in runs})
    text = f"{task}: {_range(steps)} steps on {_range(images)} real images"
    budgets = {(run.seed, run.steps, run.images) for run in runs}
    return text if len(budgets) == len({run.seed for run in runs}) else f"{text}, **not equal in all rows**"


def _range(values: set[int]) -> str:
    return str(min(values)) if len(values) == 1 else f"{min(values)} to {max(values)}"


def _names(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))


if __name__ == "__main__":
    main()
