"""Charts as inline SVG: crisp, small, and readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sgdmix_albu.audit.page import escape

_WIDTH, _HEIGHT, _BASE, _TOP = 260, 120, 100, 12


def histogram(values: Tensor, title: str, *, bins: int = 20, upper: float = 1.0, limit: float | None = None) -> str:
    """Bars of how many images have which value.

    Args:
        values: (B,) between 0 and ``upper``; NaN is left out, higher values go into the last bar.
        title: Spoken by screen readers.
        bins: Number of bars.
        upper: The axis ends here.
        limit: Marked by a dashed line.

    Returns:
        An ``<svg>`` element, coloured by the page's CSS classes ``bar``, ``axis``, ``limit``.

    Example:
        >>> import torch
        >>> histogram(torch.tensor([0.1, 0.2]), "distance", bins=2).count("<rect")
        1
    """
    known = values[~values.isnan()].numpy()
    counts, edges = np.histogram(np.clip(known, 0, upper), bins=bins, range=(0, upper))
    highest = max(1, int(counts.max()))
    step = _WIDTH / bins
    bars = "".join(
        f'<rect class="bar" x="{i * step + 0.75:.1f}" y="{_y(count, highest):.1f}" width="{step - 1.5:.1f}" '
        f'height="{_BASE - _y(count, highest):.1f}"><title>{edges[i]:.2f} to {edges[i + 1]:.2f}: {count}</title></rect>'
        for i, count in enumerate(counts)
        if count
    )
    line = ""
    if limit is not None:
        x = limit / upper * _WIDTH
        line = f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{_BASE}"/>'
    ticks = "".join(
        f'<text x="{part * _WIDTH:.0f}" y="{_HEIGHT - 4}" text-anchor="{anchor}">{part * upper:g}</text>'
        for part, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{bars}{line}'
        f'<line class="axis" x1="0" x2="{_WIDTH}" y1="{_BASE}" y2="{_BASE}"/>{ticks}</svg>'
    )


def _y(count: int, highest: int) -> float:
    return _BASE - (_BASE - _TOP) * count / highest


@dataclass(frozen=True)
class Curve:
    """A line with whiskers.

    Attributes:
        name: In the legend.
        points: For each point x, y and both ends of its whisker, all in [0, 1].
    """

    name: str
    points: Sequence[tuple[float, float, float, float]]


# Apart from each other for colour-blind eyes (Okabe and Ito), and visible on white and on black.
_COLOURS = ("#d55e00", "#e69f00", "#0072b2", "#009e73")


def curves(lines: Sequence[Curve], title: str, *, across: str, up: str, limit: float | None = None) -> str:
    """Lines over [0, 1] with whiskers; shares as percentages.

    Args:
        lines: Up to four.
        title: Spoken by screen readers.
        across: What the horizontal axis shows.
        up: What the vertical axis shows.
        limit: Marked by a dashed upright line.

    Returns:
        An ``<svg>`` element that also stands alone as a file.

    Example:
        >>> curves([Curve("a", [(0.5, 0.2, 0.1, 0.3)])], "drift", across="S", up="share").count("<polyline")
        1
    """
    needed = max((high for line in lines for *_, high in line.points), default=0.0)
    highest = next(end for end in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0) if end >= min(needed, 1.0))
    ticks = "".join(
        f'<text x="{_across(x):.0f}" y="286" text-anchor="middle">{x:g}</text>' for x in (0, 0.25, 0.5, 0.75, 1)
    ) + "".join(
        f'<line x1="70" x2="430" y1="{_up(y, 1):.1f}" y2="{_up(y, 1):.1f}" stroke="#888" stroke-opacity=".25"/>'
        f'<text x="62" y="{_up(y, 1) + 4:.1f}" text-anchor="end">{y * highest:.0%}</text>'
        for y in (0, 0.25, 0.5, 0.75, 1)
    )
    dashed = ""
    if limit is not None:
        x = _across(limit)
        dashed = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="40" y2="266" stroke="#888" stroke-dasharray="5 4"/>'
    drawn = "".join(_line(line, _COLOURS[place], highest, place) for place, line in enumerate(lines))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 440 320" role="img" aria-label="{escape(title)}" '
        'font-family="system-ui, sans-serif" font-size="14" fill="#7a828a" style="max-width:560px">'
        f'{ticks}{dashed}<text x="250" y="312" text-anchor="middle">{escape(across)}</text>'
        f'<text x="14" y="153" text-anchor="middle" transform="rotate(-90 14 153)">{escape(up)}</text>{drawn}</svg>'
    )


def _line(line: Curve, colour: str, highest: float, place: int) -> str:
    """One curve, its whiskers beside each other's by a little, and its entry in the legend."""
    shift = 3 * (place - 1)
    where = [(_across(x) + shift, *(_up(value, highest) for value in values)) for x, *values in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, *_ in where)
    marks = "".join(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{colour}" stroke-opacity=".55"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'
        for x, y, low, high in where
    )
    legend = (
        f'<circle cx="{80 + 120 * place}" cy="18" r="5" fill="{colour}"/>'
        f'<text x="{92 + 120 * place}" y="22">{escape(line.name)}</text>'
    )
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>{marks}{legend}'


def _across(x: float) -> float:
    return 70 + 360 * x


def _up(y: float, highest: float) -> float:
    return 266 - 226 * y / highest
