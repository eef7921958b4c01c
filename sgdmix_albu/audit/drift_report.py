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

_SHOWN = 8  # sources
_WRONG = (213, 94, 0)


@dataclass(frozen=True)
class Outputs:
    """The pictures of one cell: (N, 3, H, W) uint8, and which of them drifted, (N,) bool."""

    images: Tensor
    drifted: Tensor


_Cells = Mapping[tuple[str, float], Outputs]


def plot(result: DriftResult) -> str:
    """Drift rate against S, a line for each mode, as SVG."""
    points = [(cell, (cell.strength, cell.share, *cell.interval)) for cell in result.cells]
    lines = [
        Curve(mode, [point for cell, point in points if cell is result.before or cell.preserve == mode])
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
    keys, cells = zip(*_rows(sample, variant, rows, outputs, mode, strengths), strict=True)
    return panels.panel(cells, _columns(strengths), keys, side=128)


def render(result: DriftResult, sample: Sample, variant: Variant, rows: list[int], outputs: _Cells) -> str:
    """The whole page."""
    return page(
        "drift.html",
        name=result.settings["dataset"] or result.settings["data"],
        result=result,
        plot=plot(result),
        columns=_columns(result.strengths),
        rows_of=lambda mode: _rows(sample, variant, rows, outputs, mode, result.strengths),
        ASKED=ASKED,
    )


def _columns(strengths: Sequence[float]) -> list[str]:
    return ["source", "target", "mixed", *(f"S = {strength:g}" for strength in strengths)]


def _rows(
    sample: Sample, variant: Variant, rows: list[int], outputs: _Cells, mode: str, strengths: Sequence[float]
) -> Iterator[tuple[str, list[Pixels]]]:
    """Keys and pictures of the first sources."""
    shown = [outputs[BEFORE], *(outputs[mode, strength] for strength in strengths)]
    for place, row in enumerate(rows[:_SHOWN]):
        pictures = [sample.images[row], sample.images[int(variant.plan.target[row])]]
        after = [_framed(panels.photograph(cell.images[place]), bool(cell.drifted[place])) for cell in shown]
        yield sample.keys[row], [*map(panels.photograph, pictures), *after]


def _framed(pixels: Pixels, wrong: bool) -> Pixels:
    if not wrong:
        return pixels
    width = max(2, len(pixels) // 24)
    framed = np.full_like(pixels, _WRONG)
    framed[width:-width, width:-width] = pixels[width:-width, width:-width]
    return framed
