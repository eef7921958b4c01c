"""The audit as one HTML page: no scripts, no other files, light and dark, works from a disk."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sgdmix_albu.audit import gallery, panels
from sgdmix_albu.audit.charts import histogram
from sgdmix_albu.audit.page import definitions, escape, page, picture, pictures
from sgdmix_albu.audit.panels import Pixels
from sgdmix_albu.audit.result import AuditResult, VariantResult
from sgdmix_albu.audit.sample import Sample
from sgdmix_albu.audit.signs import AGREEING, SIGNS, Flag
from sgdmix_albu.audit.variant import Variant
from sgdmix_albu.audit.verdict import COMPLETE, TOLERATED

__all__ = ["render"]

_SIDE = 176
_SHOWN_FLAGS = 6
_COMPARED_ROWS = 6

_BADGES = {
    "trusted": "trusted",
    "unproven": "no warning",
    "doubtful": "look first",
    "untrusted": "not to be trusted",
}

# Settings that the command line does not have, and what they are when nobody says.
_PYTHON_ONLY = {"size": 224, "candidates": 50, "max_coverage": 0.95}

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
    best = [variant.name for variant in variants].index(result.best)
    name = result.settings["dataset"] or result.settings["data"]
    parts = [
        _summary(result, result.variants[best], str(name), has_truth=sample.truth is not None),
        _comparison(sample, variants, result, shown) if len(variants) > 1 else "",
        _per_variant(
            "Samples",
            _samples_intro(sample, variants[best]),
            variants,
            best,
            lambda i: _rows(sample, variants[i], shown),
        ),
        _per_variant("Distributions", "", variants, best, lambda i: _distributions(variants[i], result.measured)),
        _per_variant(
            "Warning signs",
            "Found without true masks; a flag says where to look, not that something is wrong. Each sign shows its "
            "worst examples: mask and result.",
            variants,
            best,
            lambda i: _signs(sample, variants[i], flags[i], result.measured),
        ),
        _per_variant(
            "Doubtful images",
            f"The {gallery.WORST} worst: masks that lack what others see of the source, and mixes in which a part of "
            "the target shows. --min-agreement of mix and generate leaves images out whose masks are doubtful.",
            variants,
            best,
            lambda i: _doubtful(sample, variants[i], flags[i]),
        )
        if any(gallery.doubtful_rows(flagged) for flagged in flags)
        else "",
        _per_variant(
            "Classes", "One image of each class.", variants, best, lambda i: _rows(sample, variants[i], class_rows)
        )
        if class_rows
        else "",
        _skipped(result),
        _settings(result),
    ]
    return page(f"Mask audit: {name}", "".join(parts))


def _summary(result: AuditResult, best: VariantResult, name: str, *, has_truth: bool) -> str:
    many = len(result.variants) > 1
    lead = f"Best of {len(result.variants)}: <b>{escape(best.name)}</b>. " if many else ""
    return (
        f'<header><p class="kicker">Mask audit</p><h1>{escape(name)}</h1>'
        f"<p>{result.measured} random sources"
        + (", judged against true masks" if has_truth else ", without true masks")
        + f"; {escape(best.name if not many else f'{len(result.variants)} variants')}.</p></header>"
        f'<section class="verdict {best.level}"><p class="badge">{_BADGES[best.level]}</p>'
        f"<p class=sentence>{lead}{escape(best.verdict)}</p>{_advice(best.advice)}</section>"
        f'<div class="tiles">{"".join(_tiles(best))}</div>{_words(has_truth)}'
    )


def _advice(advice: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in advice)
    return f"<p>What to try next:</p><ul>{items}</ul>" if items else ""


def _tiles(best: VariantResult) -> Iterable[str]:
    means = best.means
    if best.incomplete is not None:
        yield _tile("coverage", _number(means["coverage"]), f"{best.incomplete:.0%} of masks incomplete")
        yield _tile("spill", _number(means["spill"]), "of the background kept")
        yield _tile("leak", _number(means["leak"]), f"{best.leaking or 0:.0%} of pairs leak")
    else:
        yield _tile("mask area", _number(means["mask area"]), "of the image")
        yield _tile("distance", _number(means["distance"]), "to the chosen target")
    yield _tile("new background", _percent(None if means["kept"] is None else 1 - means["kept"]), "of each mix")
    yield _tile("left unmixed", _percent(best.unmixed), "by the guards")
    yield _tile("time", f"{best.milliseconds:.0f} ms", "an image, map and mask")


def _tile(name: str, value: str, note: str) -> str:
    return f"<div><span>{escape(name)}</span><strong>{value}</strong><span>{escape(note)}</span></div>"


def _words(has_truth: bool) -> str:
    words = [
        ("coverage", "share of the true object that the mask holds (mean over images)"),
        ("spill", "share of the true background that the mask holds"),
        ("leak", "share of the target's true object that shows in the mix"),
        ("incomplete", f"coverage below {COMPLETE}: a quarter of a bird is more than its head or its tail"),
        (
            "the 20% rule",
            f"a variant fails when more than {TOLERATED:.0%} of its masks are incomplete or its pairs leak",
        ),
    ]
    rows = words if has_truth else []
    rows = [*rows, ("new background", "share of the mix that comes from the target")]
    return f"<details><summary>Words</summary><dl>{definitions(rows)}</dl></details>"


def _comparison(sample: Sample, variants: Sequence[Variant], result: AuditResult, shown: list[int]) -> str:
    with_truth = sample.truth is not None
    truth_heads = "<th>coverage<th>spill<th>leak<th>incomplete" if with_truth else ""
    shares = [{sign.name: f"{sign.share:.0%}" for sign in found.signs} for found in result.variants]
    measured = [sign.name for sign in SIGNS if any(sign.name in counted for counted in shares)]
    rows = "".join(
        f"<tr{' class=best' if found.name == result.best else ''}><th scope=row>{escape(found.name)}"
        f'<td><span class="badge {found.level}">{_BADGES[found.level]}</span>'
        + (
            f"{_bar(found.means['coverage'])}{_bar(found.means['spill'])}{_bar(found.means['leak'])}"
            f"{_bar(found.incomplete, percent=True)}"
            if with_truth
            else ""
        )
        + _bar(None if found.means["kept"] is None else 1 - found.means["kept"], percent=True)
        + "".join(f"<td>{counted.get(name, '-')}" for name in measured)
        + f"<td>{found.milliseconds:.0f}"
        for found, counted in zip(result.variants, shares, strict=True)
    )
    heads = "".join(f"<th>{escape(name)}" for name in measured)
    columns = ["source", *(word for variant in variants for word in (variant.name, "result"))]
    side_by_side = "".join(
        f"<tr><td>{picture(panels.photograph(sample.images[row]), sample.keys[row])}"
        + "".join(
            f"<td>{picture(gallery.mask(sample, variant, row), f'mask, {variant.name}')}"
            f"<td>{picture(panels.photograph(variant.mixed[row]), f'result, {variant.name}')}"
            for variant in variants
        )
        for row in shown[:_COMPARED_ROWS]
    )
    return (
        "<section><h2>Comparison</h2><div class=scroll><table class=figures>"
        f"<tr><th>variant<th>verdict{truth_heads}<th>new background{heads}<th>ms{rows}</table></div>"
        "<p class=note>Signs: share of the sources flagged. ms: saliency and mask of one image on the machine of the "
        "audit, whatever else it was doing.</p>"
        f"{pictures(columns, side_by_side)}</section>"
    )


def _bar(value: float | None, *, percent: bool = False) -> str:
    if value is None:
        return "<td>-"
    text = f"{value:.0%}" if percent else f"{value:.2f}"
    return f'<td>{text}<i class=meter style="--share:{min(1.0, max(0.0, value)):.3f}"></i>'


def _per_variant(title: str, intro: str, variants: Sequence[Variant], best: int, body: Any) -> str:
    """One section; with several variants, one fold for each, the best one's open."""
    inner = (
        "".join(
            f"<details{' open' if i == best else ''}><summary>{escape(variant.name)}</summary>{body(i)}</details>"
            for i, variant in enumerate(variants)
        )
        if len(variants) > 1
        else body(0)
    )
    return f"<section><h2>{escape(title)}</h2>" + (f"<p class=note>{intro}</p>" if intro else "") + inner + "</section>"


def _samples_intro(sample: Sample, variant: Variant) -> str:
    truth = (
        ' In the mask, <span class="key missed"></span> marks missed object and <span class="key spilled"></span> '
        "kept background."
        if sample.truth is not None
        else ""
    )
    background = (
        'In the union, <span class="key void"></span> marks what is kept for the target\'s object only: there the '
        "result shows the source's own background."
        if variant.plan.holes is None
        else "The plate is the target with its own object painted over, inside the outline."
    )
    return f"Kept pixels in colour, the rest faded.{truth} {background}"


def _rows(sample: Sample, variant: Variant, rows: list[int]) -> str:
    return _table(sample, variant, rows, gallery.headings(variant), gallery.steps)


def _doubtful(sample: Sample, variant: Variant, flags: dict[str, list[Flag]]) -> str:
    rows = gallery.doubtful_rows(flags)
    if not rows:
        return "<p class=note>None, as far as anybody was asked.</p>"
    return _table(sample, variant, rows, gallery.DOUBTED, gallery.doubts)


def _table(
    sample: Sample,
    variant: Variant,
    rows: list[int],
    columns: Sequence[str],
    drawn: Callable[[Sample, Variant, int], list[Pixels]],
) -> str:
    body = "".join(
        f"<tr><td colspan={len(columns)} class=caption>{_caption(sample, variant, row)}<tr>"
        + "".join(
            f"<td>{picture(pixels, f'{step} of {sample.keys[row]}')}"
            for step, pixels in zip(columns, drawn(sample, variant, row), strict=True)
        )
        for row in rows
    )
    return pictures(columns, body)


def _caption(sample: Sample, variant: Variant, row: int) -> str:
    onto = ""
    if variant.plan.applied[row]:
        onto = f" onto {escape(sample.keys[int(variant.plan.target[row])])}"
    return f"<b>{escape(sample.keys[row])}</b>{onto}<span>{escape(gallery.figures(variant, row))}</span>"


def _distributions(variant: Variant, measured: int) -> str:
    charts = "".join(
        f"<figure><figcaption><b>{heading}</b> {meaning}</figcaption>"
        f"{histogram(variant.measures[name][:measured], heading, upper=upper, limit=limit)}</figure>"
        for name, heading, meaning, upper, limit in _CHARTS
        if name in variant.measures
    )
    mean = variant.maps[:measured].mean(0)
    average = picture(panels.heat(mean / mean.max().clamp_min(1e-6), (_SIDE, _SIDE)), "mean of all saliency maps")
    return (
        f"<div class=charts>{charts}<figure class=mean><figcaption><b>mean saliency</b> a bright corner or edge here "
        f"is a watermark, a caption or a shadow that many images share</figcaption>{average}</figure></div>"
    )


def _signs(sample: Sample, variant: Variant, flags: dict[str, list[Flag]], measured: int) -> str:
    return (
        f"<p class=note>{escape(_compared(variant))}</p><div class=signs>"
        + "".join(
            f'<article class="{"frequent" if len(flags[sign.name]) > TOLERATED * measured else ""}">'
            f"<h3>{escape(sign.name)}<span>{len(flags[sign.name])} of {measured} "
            f"({len(flags[sign.name]) / measured:.0%})</span></h3>"
            f"<p>{escape(sign.meaning)}</p>"
            + "".join(_flagged(sample, variant, flag) for flag in flags[sign.name][:_SHOWN_FLAGS])
            + (f"<p class=note>Try: {escape(sign.advice)}.</p>" if flags[sign.name] else "")
            + "</article>"
            for sign in SIGNS
            if sign.name in flags
        )
        + "</div>"
    )


def _compared(variant: Variant) -> str:
    """Who was asked of a variant's masks."""
    with_whom = []
    if variant.witnesses.name is not None:
        with_whom.append(f"the masks of {variant.witnesses.name}")
    if variant.witnesses.evidence is not None:
        with_whom.append("where the classifier looks")
    if with_whom:
        return f"Compared with {' and with '.join(with_whom)}."
    return "Compared with no better backend: --agreement names one."


def _flagged(sample: Sample, variant: Variant, flag: Flag) -> str:
    key = sample.keys[flag.row]
    return (
        "<figure>"
        + picture(gallery.mask(sample, variant, flag.row), f"mask of {key}")
        + picture(panels.photograph(variant.mixed[flag.row]), f"result of {key}")
        + f"<figcaption><b>{escape(key)}</b> {escape(flag.reason)}</figcaption></figure>"
    )


def _skipped(result: AuditResult) -> str:
    if not result.skipped:
        return ""
    rows = definitions(result.skipped)
    return f"<section><h2>Skipped</h2><p class=note>Files that could not be used.</p><dl>{rows}</dl></section>"


def _settings(result: AuditResult) -> str:
    settings = [(name, json.dumps(value, ensure_ascii=False)) for name, value in result.settings.items()]
    return (
        "<section><h2>To repeat it</h2>"
        f"<pre>{escape(repetition(result.settings))}</pre>"
        f"<details><summary>Settings and versions</summary><dl>{definitions(settings)}"
        f"{definitions(result.versions.items())}</dl></details></section>"
    )


def repetition(settings: dict[str, Any]) -> str:
    """The command line that repeats an audit; a Python call where objects or finer settings were passed."""
    if settings["objects"] or any(settings[name] != value for name, value in _PYTHON_ONLY.items()):
        objects = settings["objects"]
        listed = ", ".join(
            f"{name}={_literal(value, objects)}"
            for name, value in settings.items()
            if name != "objects" and value is not None
        )
        return f'run_audit({listed}, out="OUT")'
    words = ["sgdmix", "audit"]
    words += ["--dataset", settings["dataset"]] if settings["dataset"] else [str(settings["data"])]
    for name in ("saliency", "mask"):
        words += [f"--{name}", *settings[name]]
    for name in ("fill", "masks", "model", "arch", "class_names", "samples", "pairs", "seed"):
        if settings[name] is not None:
            words += [f"--{name.replace('_', '-')}", str(settings[name])]
    for name, value in (settings["saliency_options"] or {}).items():
        words += ["--saliency-option", f"{name}={value}"]
    words += ["--agreement", settings["agreement_with"]] if settings["agreement_with"] else []
    if settings["model"] is not None:
        words += ["--normalize", settings["normalize"]]
    return shlex.join([*words, "--out", "OUT"])


def _literal(value: Any, objects: list[str]) -> str:
    """A setting as Python; objects by their name."""
    if isinstance(value, list):
        return f"[{', '.join(_literal(one, objects) for one in value)}]"
    return str(value) if value in objects else repr(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
