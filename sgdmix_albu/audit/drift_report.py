"""The sweep as pictures and as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from sgdmix_albu.audit import panels
from sgdmix_albu.audit.charts import Curve, curves
from sgdmix_albu.audit.drift_result import ASKED, DriftResult
from sgdmix_albu.audit.page import page
from sgdmix_albu.audit.panels import Pixels
from sgdmix_albu.audit.variant import Variant
from sgdmix_albu.datasets.sample import Sample

BEFORE = ("none", 0.0)  # the key of the mixed images among the outputs

_ROWS = 8
_WRONG = (213, 94, 0)


@dataclass(frozen=True)
class Outputs:
    """The pictures of one cell: (N, 3, H, W) uint8, and which of them drifted, (N,) bool."""

    images: Tensor
    drifted: Tensor


_Cells = Mapping[tuple[str, float], Outputs]


def plot(result: DriftResult) -> str:
    """Drift rate against S, a line for each mode, as SVG."""
    start = (0.0, result.before.share, *result.before.interval)
    lines = [
        Curve(
            mode,
            [start, *((s, cell.share, *cell.interval) for s in result.strengths for cell in [result.cell(mode, s)])],
        )
        for mode in result.modes
    ]
    return curves(
        lines,
        "drift rate against translation strength",
        across="translation strength S",
        up="drift: class no longer the source's",
        limit=ASKED,
    )


def grid(
    sample: Sample, variant: Variant, rows: list[int], outputs: _Cells, mode: str, strengths: Sequence[float]
) -> Image.Image:
    """Sources down, steps and strengths across; outputs that drifted are framed."""
    shown = range(min(_ROWS, len(rows)))
    return panels.panel(
        [_cells(sample, variant, rows, outputs, mode, strengths, place) for place in shown],
        _columns(strengths),
        [sample.keys[rows[place]] for place in shown],
        side=128,
    )


def render(result: DriftResult, sample: Sample, variant: Variant, rows: list[int], outputs: _Cells) -> str:
    """The whole page."""

    def rows_of(mode: str) -> Iterator[tuple[str, list[Pixels]]]:
        for place in range(min(_ROWS, len(rows))):
            yield sample.keys[rows[place]], _cells(sample, variant, rows, outputs, mode, result.strengths, place)

    return page(
        "drift.html",
        name=result.settings["dataset"] or result.settings["data"],
        result=result,
        plot=plot(result),
        columns=_columns(result.strengths),
        rows_of=rows_of,
        ASKED=ASKED,
    )


def _columns(strengths: Sequence[float]) -> list[str]:
    return ["source", "target", "mixed", *(f"S = {strength:g}" for strength in strengths)]


def _cells(
    sample: Sample,
    variant: Variant,
    rows: list[int],
    outputs: _Cells,
    mode: str,
    strengths: Sequence[float],
    place: int,
) -> list[Pixels]:
    row = rows[place]
    before_and_after = [outputs[BEFORE], *(outputs[mode, strength] for strength in strengths)]
    return [
        panels.photograph(sample.images[row]),
        panels.photograph(sample.images[int(variant.plan.target[row])]),
        *(_framed(panels.photograph(cell.images[place]), bool(cell.drifted[place])) for cell in before_and_after),
    ]


def _framed(pixels: Pixels, wrong: bool) -> Pixels:
    if not wrong:
        return pixels
    width = max(2, len(pixels) // 24)
    framed = np.empty_like(pixels)
    framed[:] = _WRONG
    framed[width:-width, width:-width] = pixels[width:-width, width:-width]
    return framed
