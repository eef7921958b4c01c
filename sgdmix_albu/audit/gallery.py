"""The six pictures of one source and the words under them; the same in the report and in the panels."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from PIL import Image

from sgdmix_albu.audit import panels
from sgdmix_albu.audit.panels import Pixels
from sgdmix_albu.audit.signs import DOUBT, LEAK, Flag
from sgdmix_albu.audit.variant import Variant, seen_of_target
from sgdmix_albu.datasets.sample import Sample
from sgdmix_albu.mixing.fill import inpaint

WORST = 20  # doubtful images that are listed
DOUBTED = ("source", "mask", "others see", "target", "result", "seen of target")
Drawn: TypeAlias = Callable[[Sample, Variant, int], list[Pixels]]


def headings(variant: Variant) -> tuple[str, ...]:
    """What :func:`steps` shows."""
    return ("source", "saliency", "mask", "target", "union" if variant.plan.holes is None else "plate", "result")


def steps(sample: Sample, variant: Variant, row: int) -> list[Pixels]:
    """Source, saliency, mask, target, union or plate, and result of one source, in the order of :func:`headings`.

    The union mask is shown on the source; the plate is the target with its object painted over.
    """
    source, result = panels.photograph(sample.images[row]), panels.photograph(variant.mixed[row])
    i, holes, mixed = int(variant.plan.target[row]), variant.plan.holes, bool(variant.plan.applied[row])
    target = panels.photograph(sample.images[i]) if mixed else np.full_like(source, 128)
    if holes is None:
        behind = panels.union(source, variant.masks[row], variant.masks[i])
    elif not mixed:
        behind = target
    else:  # the hole outlined
        behind = panels.plate(inpaint(sample.images[i][None], holes[row][None])[0], holes[row])
    saliency, own = panels.heat(variant.maps[row], source.shape[:2]), mask(sample, variant, row)
    return [source, saliency, own, target, behind, result]


def mask(sample: Sample, variant: Variant, row: int) -> Pixels:
    """What the mask keeps, with its errors tinted where the truth is known."""
    return panels.masked(sample.images[row], variant.masks[row], None if sample.truth is None else sample.truth[row])


def figures(variant: Variant, row: int) -> str:
    """What was measured of one source, in a few words."""
    if not variant.plan.applied[row]:
        return "left unmixed"
    names = ("coverage", "spill", "leak", "kept", "distance", "agreement", "evidence outside", "seen of target")
    values = ((name, float(variant.measures[name][row])) for name in names if name in variant.measures)
    return ", ".join(f"{name} {value:.2f}" for name, value in values if not np.isnan(value))


def caption(sample: Sample, variant: Variant, row: int) -> str:
    """File, target's file and figures, one line."""
    onto = f" onto {sample.keys[int(variant.plan.target[row])]}" if variant.plan.applied[row] else ""
    return f"{sample.keys[row]}{onto}: {figures(variant, row)}"


def class_rows(sample: Sample, limit: int) -> list[int]:
    """The first source of each class, in the classes' order, at most ``limit``; none where images have no class."""
    first: dict[str, int] = {}
    for row in range(sample.sources):
        if sample.classes[row]:
            first.setdefault(sample.classes[row], row)
    return [first[name] for name in sorted(first)][:limit]


def table(sample: Sample, variant: Variant, rows: list[int], columns: Sequence[str], drawn: Drawn) -> Image.Image:
    """A panel with the pictures of each of these sources, :func:`steps` or :func:`doubts`, under their headings."""
    captions = [caption(sample, variant, row) for row in rows]
    return panels.panel([drawn(sample, variant, row) for row in rows], columns, captions)


def doubtful_rows(flags: dict[str, list[Flag]]) -> list[int]:
    """Sources with the most doubtful masks, and those in whose mixes most of a target shows, the worst first."""
    flagged = sorted((flag for name in (DOUBT, LEAK) for flag in flags.get(name, ())), key=lambda flag: -flag.severity)
    return list(dict.fromkeys(flag.row for flag in flagged))[:WORST]


def doubts(sample: Sample, variant: Variant, row: int) -> list[Pixels]:
    """Source, mask, what others see, target, result, and what shows of the target, in the order of :data:`DOUBTED`."""
    source, _, own, target, _, result = steps(sample, variant, row)
    witnesses, blank = variant.witnesses, np.full_like(source, 128)
    others, seen = blank, blank
    if witnesses.masks is not None:
        others = panels.masked(source, witnesses.masks[row])
        if variant.plan.applied[row]:
            seen = panels.masked(result, seen_of_target(variant, row))
    elif witnesses.evidence is not None:
        others = panels.heat(witnesses.evidence[row], source.shape[:2])
    return [source, own, others, target, result, seen]


def compared(variants: Sequence[Variant]) -> list[str]:
    """What stands above the pictures of :func:`comparison`."""
    return ["source", *(title for variant in variants for title in (variant.name, "result"))]


def side_by_side(sample: Sample, variants: Sequence[Variant], row: int) -> list[Pixels]:
    """One source, and its mask and result under every variant."""
    pairs = ((mask(sample, one, row), panels.photograph(one.mixed[row])) for one in variants)
    return [panels.photograph(sample.images[row]), *(picture for pair in pairs for picture in pair)]


def comparison(sample: Sample, variants: Sequence[Variant], rows: list[int]) -> Image.Image:
    """A panel with the same sources side by side: mask and result of every variant."""
    cells = [side_by_side(sample, variants, row) for row in rows]
    return panels.panel(cells, compared(variants), [sample.keys[row] for row in rows])


def files(
    sample: Sample,
    variants: Sequence[Variant],
    flags: Sequence[dict[str, list[Flag]]],
    shown: list[int],
    class_rows: list[int],
) -> dict[str, Image.Image]:
    """The panels that are written beside the report, by file name."""
    pictures: dict[str, Image.Image] = {}
    for variant, flagged in zip(variants, flags, strict=True):
        stem = re.sub(r"[^a-z0-9_]+", "-", variant.name.lower()).strip("-")
        pictures[f"samples-{stem}.png"] = table(sample, variant, shown, headings(variant), steps)
        if class_rows:
            pictures[f"classes-{stem}.png"] = table(sample, variant, class_rows, headings(variant), steps)
        if doubtful := doubtful_rows(flagged):
            pictures[f"doubtful-{stem}.png"] = table(sample, variant, doubtful, DOUBTED, doubts)
    if len(variants) > 1:
        pictures["comparison.png"] = comparison(sample, variants, shown)
    return pictures
