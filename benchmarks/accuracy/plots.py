"""A table as a picture: SVG that stands alone as a file, and takes the page's own colours where it is set into one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle

from benchmarks.accuracy.figures import figure, minus
from benchmarks.accuracy.grid import Grid, spec_key
from benchmarks.accuracy.intervals import Estimate, estimate
from benchmarks.accuracy.results import Column, Kind, Table

_WIDTH = 880
_LETTER = 6.0  # of 11 pixels, in most fonts that readers have, or a little less
_MOST_PANELS = 8
# Apart from each other for colour-blind eyes (Okabe and Ito), and visible on white and on black.
_COLOURS = ("#009e73", "#d55e00", "#0082c8", "#cc79a7", "#e69f00", "#56b4e9")
_KINDS: dict[Kind, tuple[str, str]] = {
    "ours": (_COLOURS[0], "SGD-Mix"),
    "other": (_COLOURS[1], "others"),
    "bound": (_COLOURS[2], "upper bound"),
}


def plot(table: Table) -> str:
    """An ``<svg>`` element: lines over the grid's ``x``, or dots by row where it has none.

    One panel a task and figure; with many figures, the first one of each task.
    """
    columns = table.columns()
    if len(columns) > _MOST_PANELS:
        columns = [column for column in columns if column.figure == table.grid.figures[0]]
    body, height = _lines(table, columns) if table.grid.x else _dots(table, columns)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="results" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(table.grid.title)}" font-family="system-ui, -apple-system, sans-serif" font-size="11" '
        f'fill="#7a828a">\n' + "\n".join(body) + "\n</svg>\n"
    )


@dataclass(frozen=True)
class _Axis:
    """A scale from values to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (map(math.log, (self.low, self.high, value))) if self.log else (self.low, self.high, value)
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def whisker(self, found: Estimate) -> tuple[float, float]:
        """Both ends of an interval in pixels, cut where the axis ends."""
        half = found.half or 0.0
        return self(max(self.low, found.mean - half)), self(min(self.high, found.mean + half))


def _axis(found: Iterable[Estimate], start: float, end: float) -> _Axis:
    """A scale that holds all means, and the intervals but those of two seeds, which would flatten the rest."""
    ends = [value for each in found for value in (each.mean - _drawn_half(each), each.mean + _drawn_half(each))]
    room = 0.06 * (max(ends) - min(ends)) or 0.01
    return _Axis(min(ends) - room, max(ends) + room, start, end)


def _drawn_half(found: Estimate) -> float:
    return found.half if found.half is not None and found.count > 2 else 0.0


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers between two others."""
    least = (high - low) / most
    power = 10 ** math.floor(math.log10(least))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= least)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


# Dots: a row of the picture for each of the table


def _dots(table: Table, columns: Sequence[Column]) -> tuple[list[str], float]:
    labels = {row.name: _wrapped(_plain(row.name)) for row in table.grid.rows}
    left = 14 + _LETTER * max(len(line) for lines in labels.values() for line in lines)
    tall = 14 * max(map(len, labels.values())) + 8
    across = min(4, len(columns))
    wide, high = (_WIDTH - left) / across, tall * len(labels) + 62
    body = list(_kinds_legend(table))
    for place, column in enumerate(columns):
        top = 34 + high * (place // across)
        if place % across == 0:
            body += [_label(lines, left - 14, top + 26 + tall * i, tall) for i, lines in enumerate(labels.values())]
        body += _dot_panel(table, column, left + wide * (place % across), wide - 16, top, tall)
    return body, 34 + high * math.ceil(len(columns) / across) - 12


def _dot_panel(table: Table, column: Column, left: float, wide: float, top: float, tall: float) -> list[str]:
    shown = figure(column.figure)
    found = {row.name: estimate([*table.values(column, row.name).values()]) for row in table.grid.rows}
    axis = _axis([each for each in found.values() if each], left, left + wide)
    bottom = top + 26 + tall * len(found)
    body = [_text(left + wide / 2, top + 12, f"{column.task}: {shown.title}", "middle", "head")]
    for value in _ticks(axis.low * shown.scale, axis.high * shown.scale, max(2, int(wide / 28))):
        x = axis(value / shown.scale)
        body += [_rule(x, x, top + 22, bottom), _text(x, bottom + 16, minus(f"{value:g}"), "middle")]
    baseline = found[table.grid.baseline]
    if baseline:
        x = axis(baseline.mean)
        body.append(_rule(x, x, top + 22, bottom, 'stroke-dasharray="4 3" stroke-opacity=".9"'))
    for place, (name, each) in enumerate(found.items()):
        y = top + 26 + tall * (place + 0.5)
        if each is None:
            body.append(_text(left + wide / 2, y + 4, "not run", "middle", "absent"))
            continue
        said = f"{_plain(name)}: {shown.value(each)}"
        low, end = axis.whisker(each)
        kind = table.kind(name)
        body.append(_marked(f"{_stroke(low, y, end, y, _KINDS[kind][0])}{_mark(axis(each.mean), y, kind)}", said))
    return body


def _kinds_legend(table: Table) -> Iterable[str]:
    x = 8.0
    for kind in dict.fromkeys(table.kind(row.name) for row in table.grid.rows):
        text = _KINDS[kind][1]
        yield _mark(x, 12, kind) + _text(x + 10, 16, text)
        x += 30 + _LETTER * len(text)
    yield _rule(x, x, 5, 19, 'stroke-dasharray="4 3" stroke-opacity=".9"')
    text = _plain(table.grid.baseline)
    yield _text(x + 8, 16, text)
    x += 30 + _LETTER * len(text)
    yield _stroke(x, 12, x + 20, 12, "#888") + _text(x + 28, 16, "95% interval")


def _mark(x: float, y: float, kind: Kind) -> str:
    """Round, square or pointed, so that colour alone says nothing."""
    colour = _KINDS[kind][0]
    if kind == "ours":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
    turned = f' transform="rotate(45 {x:.1f} {y:.1f})"' if kind == "bound" else ""
    return f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" fill="{colour}"{turned}/>'


def _wrapped(text: str, most: int = 40) -> list[str]:
    """Lines of a label, broken at spaces."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > most:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _label(lines: Sequence[str], x: float, top: float, tall: float) -> str:
    first = top + tall / 2 + 4 - 7 * (len(lines) - 1)
    return "".join(_text(x, first + 14 * i, line, "end", "row") for i, line in enumerate(lines))


# Lines: a number of the rows' specs goes across


@dataclass(frozen=True)
class _Series:
    """Rows that differ in x only; ``x`` of None is a row without it, drawn as a level line."""

    label: str
    rows: tuple[tuple[float | None, str], ...]


def _series(grid: Grid) -> list[_Series]:
    groups: dict[str, list[tuple[float, str]]] = {}
    rests: dict[str, dict[str, object]] = {}
    level = [_Series(_plain(row.name), ((None, row.name),)) for row in grid.rows if grid.x not in row.spec]
    for row in grid.rows:
        if grid.x in row.spec:
            rest = {key: value for key, value in row.spec.items() if key != grid.x}
            groups.setdefault(spec_key(rest), []).append((row.spec[grid.x], row.name))
            rests[spec_key(rest)] = rest
    telling = sorted({key for rest in rests.values() for key in rest if not _shared(key, rests.values())})
    drawn = [
        _Series(", ".join(f"{k}={rests[key][k]}" for k in telling if k in rests[key]) or "SGD-Mix", tuple(sorted(rows)))
        for key, rows in groups.items()
    ]
    return drawn + level


def _shared(key: str, rests: Iterable[dict[str, object]]) -> bool:
    return len({str(rest.get(key)) for rest in rests}) == 1


def _lines(table: Table, columns: Sequence[Column]) -> tuple[list[str], float]:
    drawn = list(zip(_series(table.grid), cycle(_COLOURS), strict=False))
    body, x, y = [], 8.0, 16.0
    for series, colour in drawn:
        room = 46 + _LETTER * len(series.label)
        if x + room > _WIDTH - 120:
            x, y = 8.0, y + 18
        dashes = 'stroke-dasharray="6 4"' if series.rows[0][0] is None else ""
        body.append(_stroke(x, y - 4, x + 22, y - 4, colour, dashes) + _text(x + 28, y, series.label))
        x += room
    body.append(_text(_WIDTH - 8, y, "bars: 95% interval", "end"))
    across = min(2, len(columns))
    wide, high = _WIDTH / across, 270
    for place, column in enumerate(columns):
        corner = wide * (place % across) + 44, y + 14 + high * (place // across)
        body += _line_panel(table, column, drawn, corner, min(wide, 600) - 60)
    return body, y + 14 + high * math.ceil(len(columns) / across)


def _line_panel(
    table: Table, column: Column, drawn: Sequence[tuple[_Series, str]], corner: tuple[float, float], wide: float
) -> list[str]:
    shown, (left, top) = figure(column.figure), corner
    found = {row.name: estimate([*table.values(column, row.name).values()]) for row in table.grid.rows}
    up = _axis([each for each in found.values() if each], top + 220, top + 24)
    places = sorted({x for series, _ in drawn for x, _ in series.rows if x is not None})
    log = places[0] > 0 and places[-1] > 12 * places[0]
    along = _Axis(places[0], places[-1], left + 14, left + wide - 14, log)
    body = [_text(left + wide / 2, top + 12, f"{column.task}: {shown.title}", "middle", "head")]
    for value in _ticks(up.low * shown.scale, up.high * shown.scale, 8):
        y = up(value / shown.scale)
        body += [_rule(left, left + wide, y, y), _text(left - 6, y + 4, minus(f"{value:g}"), "end")]
    body += [_text(along(x), top + 238, f"{x:g}", "middle") for x in _apart(places, along)]
    body.append(_text(left + wide / 2, top + 256, str(table.grid.x), "middle"))
    for order, (series, colour) in enumerate(drawn):
        known = [(x, name, each) for x, name in series.rows if (each := found[name])]
        if series.rows[0][0] is None:
            for _, name, each in known:
                y = up(each.mean)
                line = _stroke(left, y, left + wide, y, colour, 'stroke-dasharray="6 4"')
                body.append(_marked(line, f"{_plain(name)}: {shown.value(each)}"))
            continue
        shift = 3 * (order % 3 - 1)  # so that whiskers of two series do not lie on each other
        path = " ".join(f"{along(x) + shift:.1f},{up(each.mean):.1f}" for x, _, each in known if x is not None)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for x, name, each in known:
            across, (low, high) = along(x or 0) + shift, up.whisker(each)
            dot = f'<circle cx="{across:.1f}" cy="{up(each.mean):.1f}" r="3.5" fill="{colour}"/>'
            body.append(
                _marked(_stroke(across, low, across, high, colour) + dot, f"{_plain(name)}: {shown.value(each)}")
            )
    return body


def _apart(places: Sequence[float], axis: _Axis) -> list[float]:
    """Those whose numbers do not touch."""
    taken: list[float] = []
    for place in places:
        if not taken or axis(place) - axis(taken[-1]) > 26:
            taken.append(place)
    return taken


# Pieces


def _plain(name: str) -> str:
    """A row's name without Markdown."""
    return name.replace("`", "").replace("**", "")


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    marked = (f' text-anchor="{anchor}"' if anchor != "start" else "") + (f' class="{kind}"' if kind else "")
    heavy = ' font-weight="600"' if kind == "head" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{marked}{heavy}>{escape(text)}</text>'


def _rule(x1: float, x2: float, y1: float, y2: float, more: str = 'stroke-opacity=".25"') -> str:
    return f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}" stroke="#888" {more}/>'


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="1.5" {more}/>'


def _marked(drawn: str, said: str) -> str:
    """Shown when the pointer rests on it."""
    return f"<g><title>{escape(said)}</title>{drawn}</g>"
