"""What was found of each variant: its figures and its verdict, and which variant did best."""

from __future__ import annotations

from typing import Any

from sgdmix_albu.audit import gallery
from sgdmix_albu.audit.result import SignCount, VariantResult
from sgdmix_albu.audit.signs import SIGNS, Flag
from sgdmix_albu.audit.variant import Variant
from sgdmix_albu.audit.verdict import incomplete_share, judge, leaking_share, mean
from sgdmix_albu.datasets.sample import Sample

_LEVELS = ("trusted", "unproven", "doubtful", "untrusted")


def found_of(sample: Sample, variant: Variant, flags: dict[str, list[Flag]]) -> VariantResult:
    """The figures of one variant, over the measured sources only."""
    measured = sample.measured
    measures = {name: values[:measured] for name, values in variant.measures.items()}
    applied = variant.plan.applied[:measured]
    verdict = judge(measures, flags, applied, (variant.saliency, variant.mask))
    return VariantResult(
        name=variant.name,
        saliency=variant.saliency,
        mask=variant.mask,
        level=verdict.level,
        verdict=verdict.sentence,
        advice=verdict.advice,
        means={name: mean(values) for name, values in measures.items()},
        incomplete=incomplete_share(measures),
        leaking=leaking_share(measures),
        unmixed=float((~applied).double().mean()),
        guards={name: int(hits[:measured].count_nonzero()) for name, hits in vars(variant.plan.guards).items()},
        signs=tuple(
            SignCount(
                sign.name,
                len(flags[sign.name]),
                len(flags[sign.name]) / measured,
                tuple(sample.keys[flag.row] for flag in flags[sign.name][: gallery.WORST]),
            )
            for sign in SIGNS
            if sign.name in flags
        ),
        better=variant.witnesses.name,
        milliseconds=variant.milliseconds,
        samples=tuple(_row(sample, variant, row) for row in range(measured)),
    )


def _row(sample: Sample, variant: Variant, row: int) -> dict[str, Any]:
    values = {name: float(measure[row]) for name, measure in variant.measures.items()}
    return {
        "key": sample.keys[row],
        "target": sample.keys[int(variant.plan.target[row])] if variant.plan.applied[row] else None,
        **{name: None if value != value else round(value, 4) for name, value in values.items()},
    }


def rank(found: VariantResult) -> tuple[float, ...]:
    """Best first: by level, then with true masks by coverage - spill (Youden's J), without by rarity of signs."""
    coverage, spill = found.means.get("coverage"), found.means.get("spill")
    gain = 0.0 if coverage is None or spill is None else coverage - spill
    return (_LEVELS.index(found.level), -gain, sum(sign.share for sign in found.signs))
