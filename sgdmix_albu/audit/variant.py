"""One saliency backend with one mask preset, run over the sample and measured."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from sgdmix_albu.audit import measures
from sgdmix_albu.audit.witnesses import NOBODY, Witnesses
from sgdmix_albu.datasets.sample import Sample
from sgdmix_albu.mixing.agreement import held_share, solid, solid_share
from sgdmix_albu.mixing.composition import compose
from sgdmix_albu.mixing.described import describe
from sgdmix_albu.mixing.masks import MaskPreset
from sgdmix_albu.mixing.plan import draw, plan_mix
from sgdmix_albu.mixing.selection import pairwise_distances
from sgdmix_albu.settings import MixSettings
from sgdmix_albu.types import Draws, MixPlan


@dataclass(frozen=True)
class Variant:
    """What one pair of backend and preset makes of the sample; N images, of which the first B are sources.

    Attributes:
        saliency: The backend's name.
        mask: The preset's name.
        maps: (N, h, w) float32 saliency at working resolution.
        masks: (N, H, W) bool foreground masks.
        plan: Targets of the B sources, where they are kept, and where the targets are painted over.
        mixed: (B, 3, H, W) uint8.
        measures: Name to (B,) float32; NaN where the measure has no meaning.
        witnesses: Who else says where the objects are; the backend itself is none of them.
        milliseconds: Saliency and mask, per image on this machine.
    """

    saliency: str
    mask: str
    maps: Tensor
    masks: Tensor
    plan: MixPlan
    mixed: Tensor
    measures: dict[str, Tensor]
    witnesses: Witnesses
    milliseconds: float

    @property
    def name(self) -> str:
        """Backend and preset, as shown to people."""
        return f"{self.saliency} + {self.mask}"


def draw_pairs(sample: Sample, mixing: MixSettings, seed: int) -> Draws:
    """Which candidates each source has, and where its object goes; the same for every variant, so that they compare."""
    generator = torch.Generator().manual_seed(seed)
    count = len(sample.images)
    return draw(sample.sources, count, candidates=mixing.candidates, place=mixing.place, generator=generator)


def run_variant(
    sample: Sample,
    draws: Draws,
    maps: Tensor,
    preset: MaskPreset,
    *,
    saliency: str,
    mask: str,
    settings: MixSettings,
    map_milliseconds: float,
    witnesses: Witnesses = NOBODY,
) -> Variant:
    """Masks, pairs and mixes of the sample, and everything that is measured of them.

    Args:
        sample: The images; the first ``sample.sources`` are mixed.
        draws: From :func:`draw_pairs`.
        maps: (N, h, w) from :meth:`sgdmix_albu.bank.map_source.MapSource.timed`.
        preset: The mask preset.
        saliency: The backend's name.
        mask: The preset's name.
        settings: How to mix; all sources are.
        map_milliseconds: What a map took, per image.
        witnesses: Who else says where the objects are.
    """
    start = time.perf_counter()
    described = describe(maps, sample.images, preset, sample.labels if settings.target_class != "any" else None)
    mask_milliseconds = 1000 * (time.perf_counter() - start) / len(sample.images)
    plan = plan_mix(
        described,
        draws,
        max_coverage=settings.max_coverage,
        target_class=settings.target_class,
        fill=settings.fill,
        place=settings.place,
    )
    return Variant(
        saliency=saliency,
        mask=mask,
        maps=described.maps,
        masks=described.masks,
        plan=plan,
        mixed=compose(plan, sample.images[: sample.sources], sample.images, feather=settings.feather),
        measures=_measured(described.maps, described.masks, plan, draws, sample.truth)
        | _doubted(described.masks, plan, witnesses),
        witnesses=witnesses,
        milliseconds=map_milliseconds + mask_milliseconds,
    )


def seen_of_target(variant: Variant, row: int) -> Tensor:
    """(H, W) bool: the solid parts of the target's object that show in the mix, as the better backend sees them."""
    assert variant.witnesses.masks is not None  # else nobody asks
    target = variant.witnesses.masks[variant.plan.target[row]]
    return solid((~_covered(variant.plan)[row] & target)[None])[0]


def _covered(plan: MixPlan) -> Tensor:
    """(B, H, W) bool: where the mix shows nothing of the target's picture, but the source or paint."""
    return plan.masks if plan.holes is None else plan.masks | plan.holes


def _measured(maps: Tensor, masks: Tensor, plan: MixPlan, draws: Draws, truth: Tensor | None) -> dict[str, Tensor]:
    sources = len(plan.target)
    own, theirs = masks[:sources], masks[plan.target]

    def of_pairs(values: Tensor) -> Tensor:
        return torch.where(plan.applied, values, torch.nan)

    found = {
        "mask area": measures.area(own),
        "largest piece": measures.largest_piece_share(own),
        "border share": measures.border_share(own),
        "corner share": measures.corner_share(maps[:sources]),
        "shared spot": measures.shared_spot_share(maps[:sources]),
        "kept": plan.kept,
        "distance": plan.distance,
        "threshold": plan.thresholds,
    }
    if plan.painted is None:
        distances = pairwise_distances(maps[:sources], maps).masked_fill(~draws.candidates, torch.nan)
        found["relative distance"] = plan.distance / distances.nanmedian(dim=1).values  # what a random target is at
        found["overlap"] = of_pairs(measures.overlap(own, theirs))
        found["void"] = of_pairs(measures.void_share(own, theirs))
    else:  # a target's object that lies elsewhere leaves nothing but paint
        found["painted"] = of_pairs(held_share(plan.painted, ~plan.masks))
    if truth is not None:
        found["coverage"] = measures.coverage(own, truth[:sources])
        found["spill"] = measures.spill(own, truth[:sources])
        found["leak"] = of_pairs(measures.leak(_covered(plan), truth[plan.target]))
    return found


def _doubted(masks: Tensor, plan: MixPlan, witnesses: Witnesses) -> dict[str, Tensor]:
    """What can be said of masks and pairs by others, of those who were asked."""
    own, found = masks[: len(plan.target)], {}
    if witnesses.masks is not None:
        found["agreement"] = held_share(own, witnesses.masks[: len(own)])
        seen = solid_share(~_covered(plan), witnesses.masks[plan.target])
        found["seen of target"] = torch.where(plan.applied, seen, torch.nan)
    if witnesses.evidence is not None:
        found["evidence outside"] = measures.mass_outside(witnesses.evidence[: len(own)], own)
    return found
