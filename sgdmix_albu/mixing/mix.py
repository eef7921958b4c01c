"""Stages 2 to 4 as one pure function, ``mix_batch``: every random draw is passed in or handed back.

The transforms use the same steps: :func:`sgdmix_albu.mixing.describe` (masks), :func:`plan_batch` or
:func:`choose` (targets, and where the source is kept), and :func:`sgdmix_albu.mixing.compose` for each picture.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from sgdmix_albu.arguments import check_switch
from sgdmix_albu.devices import exact
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.bits import Joined
from sgdmix_albu.mixing.composition import changed_only, compose
from sgdmix_albu.mixing.described import Described, check_batch, describe
from sgdmix_albu.mixing.masks import MaskPreset, check_range, get_mask
from sgdmix_albu.mixing.memory import Recalled
from sgdmix_albu.mixing.plan import check_draws, draw, plan_mix, repeats_of
from sgdmix_albu.mixing.selection import keys_of
from sgdmix_albu.refusals import read_together
from sgdmix_albu.settings import MixSettings
from sgdmix_albu.types import BEST_FILL, BEST_MASK, Draws, Fill, MixedBatch, MixPlan, Place, Rows, TargetClass


def mix_batch(
    images: Tensor,
    maps: Tensor,
    *,
    labels: Tensor | None = None,
    mask: str | MaskPreset = BEST_MASK,
    candidates: int = 50,
    p: float = 1.0,
    max_coverage: float = 0.95,
    target_class: TargetClass = "any",
    exclude_duplicates: bool = True,
    ids: Sequence[Hashable] | Tensor | None = None,
    feather: float | None = None,
    fill: Fill = BEST_FILL,
    place: Place = "source",
    generator: torch.Generator | None = None,
    draws: Draws | None = None,
) -> MixedBatch:
    """Mix a batch within itself, and return what was done (SGD-Mix, sections 5.1 and 5.2).

    Args:
        images: (B, C, H, W), uint8 or float, any memory format; not changed.
        maps: (B, h, w) saliency at the images' resolution or coarser: float in [0, 1], or uint8, where 255 is 1.
        labels: (B,) or (B, K); only needed for ``target_class``, and read as
            :func:`sgdmix_albu.mixing.labels.class_ids` says. The mixed image's label is the source's.
        mask: A preset's name or a callable; see :func:`sgdmix_albu.masks.get_mask`.
        candidates: N, candidates drawn for each source (the paper: 30 to 50).
        p: Probability that an image is mixed; the others come back bit-identical.
        max_coverage: The largest fraction of an image that the union mask may cover; with ``fill="inpaint"`` it limits
            the source's mask and the target's grown one, each.
        target_class: "any", or only targets of the "same" or a "different" class.
        exclude_duplicates: Never choose a target with exactly the source's pixels: the same image, drawn twice.
        ids: Which sample each image is, B hashable keys or an integer tensor: other views of a source are never
            its target, whatever their pixels.
        feather: Width in pixels of the fade outside the mask; 0 is the paper's hard edge. None: 0 with
            ``fill="source"``, a soft border of one pixel with "inpaint".
        fill: What replaces the target's object. "inpaint" paints it out of the target and pastes the source by its own
            mask. "source" is the paper's union mask: it keeps the source's pixels there. See
            :func:`sgdmix_albu.mixing.compose`.
        place: "source" keeps the source's object where it was; "random" scales and moves it on the painted target
            (:mod:`sgdmix_albu.mixing.placement`), with ``fill="inpaint"`` only.
        generator: Generator for the draws, on any device; None for torch's own on the CPU.
        draws: Draws of an earlier call, to repeat it; ``p``, ``candidates`` and ``generator`` are then not used.

    Returns:
        Mixed images, the plan (target, distance, masks, thresholds, kept, guards), foregrounds and draws. On a device
        without float64 (Apple's) the images come back there, all else on the CPU, where it was computed.

    Raises:
        InvalidInputError: An invalid argument; it says what was expected and what it got.

    Example:
        >>> import torch
        >>> from sgdmix_albu.saliency import get_backend
        >>> images = torch.rand(8, 3, 64, 64)
        >>> mixed = mix_batch(images, get_backend("spectral_residual")(images))
        >>> mixed.images.shape, mixed.plan.target.shape, mixed.plan.guards.counts()["flat_saliency"]
        (torch.Size([8, 3, 64, 64]), torch.Size([8]), 0)
    """
    settings = MixSettings(
        p=p,
        candidates=candidates,
        target_class=target_class,
        fill=fill,
        place=place,
        max_coverage=max_coverage,
        feather=feather,
    )
    check_switch(exclude_duplicates=exclude_duplicates)
    with read_together():
        home = images.device if isinstance(images, Tensor) else None
        images, maps, labels, ids = exact(images), exact(maps), exact(labels), exact(ids)
        check_batch(images, maps)
        check_range(maps)
        described = describe(maps, images, get_mask(mask), None if target_class == "any" else labels)
        count = len(images)
        if draws is not None:
            check_draws(draws)
            if draws.candidates.shape != (count, count):
                raise InvalidInputError(
                    f"expected draws for {count} images among {count}, got {tuple(draws.applied.shape)} and "
                    f"{tuple(draws.candidates.shape)}"
                )
        plan, draws = plan_batch(
            images, described, settings, ids=ids, by_pixels=exclude_duplicates, generator=generator, draws=draws
        )
        mixed = compose(plan, images, images, feather=feather).to(home)
        return MixedBatch(mixed, plan, described.masks, draws)


def plan_batch(
    images: Tensor,
    described: Described,
    settings: MixSettings,
    *,
    ids: Sequence[Hashable] | Tensor | None = None,
    by_pixels: bool = True,
    recalled: Recalled | None = None,
    generator: torch.Generator | None = None,
    draws: Draws | None = None,
) -> tuple[MixPlan, Draws]:
    """Draw, and choose each image's target in the batch itself or among the images of earlier ones.

    Args:
        images: (B, C, H, W).
        described: From :func:`describe`, of the same images; with their ``sums`` beside a memory.
        settings: How to mix.
        ids: As in :func:`mix_batch`.
        by_pixels: Whether images of exactly a source's pixels are refused.
        recalled: What the memory holds: the pool's rows from B on.
        generator: Of the draws.
        draws: Of an earlier call.

    Returns:
        The plan, without mixes that would change nothing, and the draws.
    """
    pool, pool_ids = described, ids
    rows: Rows = images
    if recalled is not None:
        pool = described.followed_by(recalled.described)
        rows = Joined(images, recalled.leaves[0])
        pool_ids = None if ids is None else [*keys_of(ids), *recalled.keys]
    if draws is None:
        draws = draw(
            len(images),
            len(rows),
            p=settings.p,
            candidates=settings.candidates,
            place=settings.place,
            generator=generator,
        )
    repeats = repeats_of(
        images, rows, ids=ids, pool_ids=pool_ids, by_pixels=by_pixels, sums=described.sums, pool_sums=pool.sums
    )
    return choose(pool, draws, settings, images, rows, repeats), draws


def choose(
    pool: Described, draws: Draws, settings: MixSettings, images: Tensor, rows: Rows, repeats: Tensor | None
) -> MixPlan:
    """:func:`plan_mix` for (B, C, H, W) images among the pool's N rows, without mixes that would change nothing."""
    plan = plan_mix(
        pool,
        draws,
        max_coverage=settings.max_coverage,
        target_class=settings.target_class,
        repeats=repeats,
        fill=settings.fill,
        place=settings.place,
    )
    return changed_only(plan, images, rows)
