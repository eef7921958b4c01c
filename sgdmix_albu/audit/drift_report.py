"""The sweep as pictures and as one HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from sgdmix_albu.audit import panels
from sgdmix_albu.audit.charts import Curve, curves
from sgdmix_albu.audit.drift_result import ASKED, Cell, DriftResult
from sgdmix_albu.audit.page import definitions, escape, page, picture, pictures
from sgdmix_albu.audit.panels import Pixels
from sgdmix_albu.audit.sample import Sample
from sgdmix_albu.audit.variant import Variant

if TYPE_CHECKING:
    from sgdmix_albu.audit.drift import Outputs

__all__ = ["BEFORE", "grid", "plot", "render"]

BEFORE = ("none", 0.0)  # the key of the mixed images among the outputs

_ROWS = 8
_WRONG = (213, 94, 0)

Cells = Mapping[tuple[str, float], "Outputs"]


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
    sample: Sample, variant: Variant, rows: list[int], outputs: Cells, mode: str, strengths: Sequence[float]
) -> Image.Image:
    """Sources down, steps and strengths across; outputs that drifted are framed."""
    shown = range(min(_ROWS, len(rows)))
    return panels.panel(
        [_cells(sample, variant, rows, outputs, mode, strengths, place) for place in shown],
        _columns(strengths),
        [sample.keys[rows[place]] for place in shown],
        side=128,
    )


def render(result: DriftResult, sample: Sample, variant: Variant, rows: list[int], outputs: Cells) -> str:
    """The whole page."""
    name = str(result.settings["dataset"] or result.settings["data"])
    level = "untrusted" if result.changed else "unproven"
    caveat = f"<p><b>Doubt.</b> {escape(result.caveat)}</p>" if result.caveat else ""
    teacher = (
        f"a classifier trained for this, {result.teacher_accuracy:.0%} right on held-out images"
        if result.teacher_accuracy is not None
        else "the classifier that was given"
    )
    head = (
        f'<header><p class="kicker">Drift sweep</p><h1>{escape(name)}</h1>'
        f"<p>{result.before.count} of {result.sources} sources are judged; {result.misnamed} that the teacher misnames "
        f"and {result.unmixed} that found no target are left out. Teacher: {teacher}.</p></header>"
        f'<section class="verdict {level}"><p class="badge">Does the class change for any S &gt; {ASKED:g}?</p>'
        f"<p class=sentence>{escape(result.sentence)}</p>{caveat}</section>"
    )
    chart = (
        "<section><h2>Drift against strength</h2><p class=note>Share of outputs that the teacher no longer gives the "
        "source's class; whiskers are 95% intervals (Wilson). S = 0 is the mixed image; what drifted there already is "
        "not refinement's doing. t is the diffusion timestep "
        f"that the images were noised to, of 1000.</p>{plot(result)}{_table(result)}</section>"
    )
    galleries = "".join(_gallery(result, sample, variant, rows, outputs, mode) for mode in result.modes)
    return page(f"Drift sweep: {name}", head + chart + galleries + _settings(result))


def _table(result: DriftResult) -> str:
    heads = "".join(f"<th>{escape(mode)}" for mode in result.modes)
    first = "".join(f"<td>{escape(str(result.before))}" for _ in result.modes)
    rows = "".join(
        f"<tr><th scope=row>{strength:g}<td>{result.cell(result.modes[0], strength).timestep or '-'}"
        + "".join(f"<td>{escape(_words(result.cell(mode, strength)))}" for mode in result.modes)
        for strength in result.strengths
    )
    head = f"<tr><th>S<th>t{heads}<tr><th scope=row>0<td>-{first}"
    return f"<div class=scroll><table class=figures>{head}{rows}</table></div>"


def _words(cell: Cell) -> str:
    return f"{cell}, {cell.added} by refinement"


def _gallery(result: DriftResult, sample: Sample, variant: Variant, rows: list[int], outputs: Cells, mode: str) -> str:
    columns = _columns(result.strengths)
    body = "".join(
        f"<tr><td colspan={len(columns)} class=caption><b>{escape(sample.keys[rows[place]])}</b><tr>"
        + "".join(
            f"<td>{picture(cell, f'{column} of {sample.keys[rows[place]]}')}"
            for column, cell in zip(
                columns, _cells(sample, variant, rows, outputs, mode, result.strengths, place), strict=True
            )
        )
        for place in range(min(_ROWS, len(rows)))
    )
    return (
        f"<section><h2>preserve={escape(mode)}</h2><p class=note>The same sources, mixes and noise in every mode. "
        f"Framed: the teacher gives another class.</p>{pictures(columns, body)}</section>"
    )


def _columns(strengths: Sequence[float]) -> list[str]:
    return ["source", "target", "mixed", *(f"S = {strength:g}" for strength in strengths)]


def _cells(
    sample: Sample,
    variant: Variant,
    rows: list[int],
    outputs: Cells,
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


def _settings(result: DriftResult) -> str:
    rows = [(name, json.dumps(value, ensure_ascii=False)) for name, value in result.settings.items()]
    skipped = f"<h2>Skipped</h2><dl>{definitions(result.skipped)}</dl>" if result.skipped else ""
    return f"<section>{skipped}<h2>Settings</h2><dl>{definitions(rows)}</dl></section>"
