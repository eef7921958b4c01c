"""Histograms as inline SVG: crisp, small, and in the page's own colours."""

from __future__ import annotations

from html import escape

import numpy as np
from torch import Tensor

__all__ = ["histogram"]

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
