"""The audit as one HTML page: what the template shows, and the call that repeats it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from sgdmix_albu.audit import gallery, panels
from sgdmix_albu.audit.charts import histogram
from sgdmix_albu.audit.page import SIDE, page
from sgdmix_albu.audit.panels import Pixels
from sgdmix_albu.audit.result import AuditResult
from sgdmix_albu.audit.signs import AGREEING, SIGNS, Flag
from sgdmix_albu.audit.variant import Variant
from sgdmix_albu.audit.verdict import COMPLETE, TOLERATED
from sgdmix_albu.datasets.sample import Sample

_BADGES = {"trusted": "trusted", "unproven": "no warning", "doubtful": "look first", "untrusted": "not to be trusted"}

# Measure, heading, what it means, end of its axis, where the limit lies.
_CHARTS = (
    ("coverage", "coverage", "share of the true object in the mask; 1 is best", 1.0, COMPLETE),
    ("spill", "spill", "share of the true background in the mask; 0 is best", 1.0, None),
    ("leak", "leak", "share of the target's object that shows in the mix", 1.0, 1 - COMPLETE),
    ("mask area", "mask area", "share of the image inside the mask", 1.0, None),
    ("agreement", "agreement", "share of what a better backend sees that the mask holds", 1.0, AGREEING),
    ("kept", "kept", "share of the image that stays the source's", 1.0, 0.8),
    ("distance", "distance", "root-mean-square difference of the two saliency maps", 0.6, None),
    ("threshold", "threshold", "saliency above which a pixel entered the mask", 1.0, None),
)


def render(
    sample: Sample,
    variants: Sequence[Variant],
    flags: Sequence[dict[str, list[Flag]]],
    result: AuditResult,
    *,
    shown: list[int],
    class_rows: list[int],
) -> str:
    """The whole page.

    Args:
        sample: The audited images.
        variants: One per pair of backend and preset.
        flags: For each variant, the images under suspicion.
        result: The figures and verdicts.
        shown: Rows of the sources shown as samples.
        class_rows: Rows of the sources that stand for their classes.
    """
    best, found = next(pair for pair in zip(variants, result.variants, strict=True) if pair[1].name == result.best)
    return page(
        "audit.html",
        name=result.settings["dataset"] or result.settings["data"],
        result=result,
        best=best,
        found=found,
        sample=sample,
        has_truth=sample.truth is not None,
        variants=variants,
        flags=flags,
        signs=[sign for sign in SIGNS if any(sign.name in flagged for flagged in flags)],
        doubted=any(gallery.doubtful_rows(flagged) for flagged in flags),
        shown=shown,
        class_rows=class_rows,
        badges=_BADGES,
        gallery=gallery,
        compared=lambda sample, _, row: gallery.side_by_side(sample, variants, row),
        photograph=panels.photograph,
        charts=lambda variant: _charts(variant, result.measured),
        mean_map=lambda variant: _mean_map(variant, result.measured),
        compared_with=_compared_with,
        repetition=_repetition(result.settings),
        COMPLETE=COMPLETE,
        TOLERATED=TOLERATED,
    )


def _charts(variant: Variant, measured: int) -> Iterator[tuple[str, str, str]]:
    """Heading, meaning and distribution of each measure there is."""
    for name, heading, meaning, upper, limit in _CHARTS:
        if name in variant.measures:
            yield heading, meaning, histogram(variant.measures[name][:measured], heading, upper=upper, limit=limit)


def _mean_map(variant: Variant, measured: int) -> Pixels:
    mean = variant.maps[:measured].mean(0)
    return panels.heat(mean / mean.max().clamp_min(1e-6), (SIDE, SIDE))


def _compared_with(variant: Variant) -> str:
    """Who was asked of a variant's masks."""
    with_whom = []
    if variant.witnesses.name is not None:
        with_whom.append(f"the masks of {variant.witnesses.name}")
    if variant.witnesses.evidence is not None:
        with_whom.append("where the classifier looks")
    if with_whom:
        return f"Compared with {' and with '.join(with_whom)}."
    return "No better backend was asked: name one with --agreement."


def _repetition(settings: dict[str, Any]) -> str:
    """The command line that repeats an audit; a Python call where objects were passed."""
    if settings["objects"]:
        objects = settings["objects"]
        listed = ", ".join(
            f"{name}={_literal(value, objects)}"
            for name, value in settings.items()
            if name != "objects" and value is not None
        )
        return f'run_audit({listed}, out="OUT")'
    words = ["sgdmix", "audit"]
    words += ["OUT", "--dataset", settings["dataset"]] if settings["dataset"] else [str(settings["data"]), "OUT"]
    for name in ("saliency", "mask"):
        words += [f"--{name}", *settings[name]]
    mixing = ("fill", "place", "candidates", "target_class", "max_coverage", "feather", "size")
    for name in (*mixing, "masks", "model", "arch", "class_names", "samples", "pairs", "seed"):
        if settings[name] is not None:
            words += [f"--{name.replace('_', '-')}", str(settings[name])]
    for name, value in (settings["saliency_options"] or {}).items():
        words += ["--saliency-option", f"{name}={value}"]
    words += ["--agreement", settings["agreement_with"]] if settings["agreement_with"] else []
    if settings["model"] is not None:
        words += ["--normalize", settings["normalize"]]
    return shlex.join(words)


def _literal(value: Any, objects: list[str]) -> str:
    """A setting as Python; objects by their name."""
    if isinstance(value, list):
        return f"[{', '.join(_literal(one, objects) for one in value)}]"
    return str(value) if value in objects else repr(value)
