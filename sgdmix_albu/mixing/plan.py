"""From described images to a plan: the random draws, the eligible candidates, and the target of each source."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sgdmix_albu.arguments import check_switch
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.bits import areas, gathered, parts, same_pixels
from sgdmix_albu.mixing.described import Described
from sgdmix_albu.mixing.fill import grown
from sgdmix_albu.mixing.placement import moved_masks, placements, unmoved
from sgdmix_albu.mixing.selection import (
    class_allows,
    draw_candidates,
    nearest,
    pairwise_distances,
    same_ids,
    uniform,
)
from sgdmix_albu.settings import MixSettings
from sgdmix_albu.tensors import BOOL, FLOATS, PIXELS, check_rows, check_tensor, sent
from sgdmix_albu.types import BEST_FILL, Draws, Fill, Guards, MixPlan, Place, Rows, TargetClass


def draw(
    batch: int,
    pool: int,
    *,
    p: float = 1.0,
    candidates: int = 50,
    place: Place = "source",
    generator: torch.Generator | None = None,
) -> Draws:
    """All the randomness of one step: which images are mixed, and which pool rows are their candidates.

    Args:
        batch: Number of sources, B: the first B rows of the pool.
        pool: Number of rows in the pool, N >= B.
        p: Probability that an image is mixed.
        candidates: Candidates drawn for each source.
        place: With "random" also where each object goes, drawn last.
        generator: Of any device; None for torch's own on the CPU.

    Returns:
        CPU tensors ``applied`` (B,) and ``candidates`` (B, N); ``placed`` (B, 3) with ``place="random"``.

    Raises:
        InvalidInputError: ``p`` outside [0, 1] or ``candidates`` below 1.

    Example:
        >>> draw(2, 2, p=0.0).applied
        tensor([False, False])
    """
    MixSettings(p=p, candidates=candidates, place=place)
    return Draws(
        applied=uniform((batch,), generator) < float(p),
        candidates=draw_candidates(batch, pool, candidates, generator=generator),
        placed=uniform((batch, 3), generator) if place == "random" else None,
    )


def repeats_of(
    images: Tensor,
    pool: Rows,
    *,
    ids: Sequence[Hashable] | Tensor | None = None,
    pool_ids: Sequence[Hashable] | Tensor | None = None,
    by_pixels: bool = True,
    sums: Tensor | None = None,
    pool_sums: Tensor | None = None,
) -> Tensor | None:
    """Which of the pool are the source itself, (B, N) bool for ``plan_mix(repeats=)``; None where nobody asks.

    Args:
        images: (B, C, H, W), the sources.
        pool: N rows: (N, C, H, W), or a sequence of tensors with ``pool_sums``.
        ids: B sample identities of the sources, or None; see :func:`sgdmix_albu.mixing.same_ids`.
        pool_ids: N, the same for the pool.
        by_pixels: Also images of exactly a source's pixels.
        sums: (B,), :func:`sgdmix_albu.mixing.bits.bit_sums` of the images, where they are known already.
        pool_sums: (N,), the same for the pool.

    Raises:
        InvalidInputError: Another number of ids than images, or ids that cannot be compared.
    """
    check_switch(by_pixels=by_pixels)
    check_tensor(images, "images (B, ..., H, W)", (-1, -1, -1), PIXELS, more=True)
    check_rows(pool, images, ())
    repeats = same_pixels(images, pool, sums=sums, pool_sums=pool_sums) if by_pixels else None
    if ids is None or pool_ids is None:
        return repeats
    same = same_ids(ids, pool_ids)
    if same.shape != (len(images), len(pool)):
        raise InvalidInputError(f"expected one id for each of {len(images)} images, got {same.shape[0]}")
    same = sent(same, images.device)
    return same if repeats is None else repeats | same


def plan_mix(
    pool: Described,
    draws: Draws,
    *,
    max_coverage: float = 0.95,
    target_class: TargetClass = "any",
    repeats: Tensor | None = None,
    fill: Fill = BEST_FILL,
    place: Place = "source",
) -> MixPlan:
    """Choose each source's target, and decide where the source is kept and the target painted over.

    The sources are the first B rows of the pool. Candidates with a flat map or an empty mask are not
    chosen: their object is not known, so it could show in the mix. If the nearest candidate leaves too little
    background, the next-nearest is tried; if none is left, the image stays unmixed. Too little is left if
    the union mask covers more than ``max_coverage``; with ``fill="inpaint"``, if the source's mask does, or the
    candidate's grown one, which leaves too little to paint from.

    Args:
        pool: What :func:`describe` says of sources and further candidates, N rows.
        draws: From :func:`draw`; B is the number of ``draws.applied``.
        max_coverage: The largest fraction of an image that these masks may cover.
        target_class: "any", or only candidates of the "same" or a "different" class.
        repeats: (B, N) bool, candidates that are the source itself and never chosen; from
            :func:`sgdmix_albu.mixing.bits.same_pixels` and :func:`sgdmix_albu.mixing.same_ids`.
        fill: "source" keeps the source under the union mask M_i OR M_j (the paper). "inpaint" keeps it under its own
            mask M_i, and the target's grown mask becomes a hole that is painted.
        place: "source" keeps the source's object where it was; "random" scales and moves it, by ``draws.placed``,
            and goes with ``fill="inpaint"``.

    Returns:
        The plan; see :class:`sgdmix_albu.types.MixPlan`.

    Raises:
        InvalidInputError: Invalid settings, or a class constraint without labels.
    """
    MixSettings(max_coverage=max_coverage, target_class=target_class, fill=fill, place=place)
    check_draws(draws)
    _check_pool(pool, *draws.candidates.shape)
    device, batch = pool.maps.device, len(draws.applied)
    usable = ~pool.flat & (pool.areas > 0)
    drawn, candidates = (sent(part, device) for part in draws[:2])
    wanted = drawn & usable[:batch]
    eligible = candidates & usable & wanted[:, None]
    if target_class != "any":
        if pool.labels is None:
            raise InvalidInputError(f"target_class={target_class!r} needs labels, and none were found")
        eligible &= class_allows(pool.labels[:batch], pool.labels, target_class).to(device)
    others = eligible.any(1)
    if repeats is not None:
        expected = f"bool {tuple(eligible.shape)}, which candidates repeat the source"
        check_tensor(repeats, expected, tuple(eligible.shape), BOOL)
        eligible &= ~sent(repeats, device)
    only_itself = others & ~eligible.any(1)

    target, distance, kept, holes, refused = _nearest_uncrowded(pool, eligible, max_coverage, fill)
    applied = target >= 0
    flat = drawn & pool.flat[:batch]
    empty = drawn & ~pool.flat[:batch] & (pool.areas[:batch] == 0)
    plan = MixPlan(
        target=torch.where(applied, target, torch.arange(batch, device=device)),
        applied=applied,
        distance=torch.where(applied, distance.float(), torch.nan),
        masks=kept,
        thresholds=pool.thresholds[:batch],
        guards=Guards(flat, empty, refused, wanted & ~applied, only_itself),
        holes=holes,
    )
    if place == "source":
        return plan
    if draws.placed is None:
        raise InvalidInputError("place='random' needs draws made with it, but these have no places")
    placement = placements(pool.masks[:batch], pool.areas[:batch], pool.areas[plan.target], draws.placed, max_coverage)
    return moved(plan, placement)


def moved(plan: MixPlan, placement: Tensor) -> MixPlan:
    """A plan with ``fill="inpaint"`` whose objects are scaled and moved by (B, 3) placements, where it mixes."""
    placement = torch.where(plan.applied[:, None], placement, unmoved(len(placement), placement.device))
    return replace(plan, masks=moved_masks(plan.masks, placement), placement=placement, cutouts=plan.masks)


def plan_pairs(own: Tensor, theirs: Tensor, fill: Fill) -> MixPlan:
    """The plan that puts each source on the target of its own row, whoever chose it.

    Args:
        own: (B, H, W) bool, the sources' masks.
        theirs: (B, H, W) bool, the targets'.
        fill: As in :func:`plan_mix`.
    """
    count = len(own)
    kept, holes = regions(own, theirs, fill)
    unknown, no = own.new_full((count,), torch.nan, dtype=torch.float32), own.new_zeros(count)
    return MixPlan(
        target=torch.arange(count, device=own.device),
        applied=~no,
        distance=unknown,
        masks=kept,
        thresholds=unknown,
        guards=Guards(no, no, torch.zeros_like(no, dtype=torch.int64), no, no),
        holes=holes,
    )


def check_draws(draws: Any) -> None:
    """Refuse what :func:`draw` cannot have made."""
    if not isinstance(draws, Draws):
        raise InvalidInputError(f"expected draws from draw() or an earlier mix, got {type(draws).__name__}")
    check_tensor(draws.applied, "draws with applied (B,) of bool", (-1,), BOOL)
    count = len(draws.applied)
    check_tensor(draws.candidates, f"draws with candidates ({count}, N) of bool", (count, -1), BOOL)
    if draws.placed is not None:
        check_tensor(draws.placed, f"draws with placed ({count}, 3) of floats", (count, 3), FLOATS)


def _check_pool(pool: Any, batch: int, size: int) -> None:
    """Refuse what is no description of ``size`` images, of which the first ``batch`` are sources."""
    if not isinstance(pool, Described):
        raise InvalidInputError(f"expected a pool from describe(), got {type(pool).__name__}")
    check_tensor(pool.maps, f"a pool with maps ({size}, h, w), as the draws have it", (size, None, None), FLOATS)
    check_tensor(pool.masks, f"a pool with masks ({size}, H, W) of bool", (size, None, None), BOOL)
    check_tensor(pool.thresholds, f"a pool with thresholds ({size},)", (size,), FLOATS)
    check_tensor(pool.areas, f"a pool with areas ({size},) of int32", (size,), {torch.int32})
    check_tensor(pool.flat, f"a pool with flat ({size},) of bool", (size,), BOOL)
    if batch > size:
        raise InvalidInputError(f"the pool must begin with the batch itself: got draws for {batch} of {size}")


def _nearest_uncrowded(
    pool: Described, eligible: Tensor, max_coverage: float, fill: Fill
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """Nearest candidates that leave enough of a background: (target or -1, distance, kept, holes, refused)."""
    batch = len(eligible)
    distances = pairwise_distances(pool.maps[:batch], pool.maps)
    size = pool.masks.shape[1] * pool.masks.shape[2]
    room = float(max_coverage) * size
    # What is too large by itself is so with every candidate.
    crowding = pool.areas[:batch] > room
    refused = torch.where(crowding, eligible.sum(1), 0)
    eligible = eligible & ~crowding[:, None]
    # A hole without a rim has nothing to be painted from, whatever is asked.
    room = room if fill == "source" else min(room, size - 1)
    target, distance = nearest(distances, eligible)
    kept, holes = _regions(pool, target, fill)
    crowded = (target >= 0) & (areas(kept if holes is None else holes) > room)
    # Where every nearest one will do, as nearly always, nobody looks at the others. A GPU does: to ask is to wait.
    if batch and (crowded.device.type != "cpu" or bool(crowded.any())):
        crowded = _crowded(pool, batch, room, fill)
        target, distance = nearest(distances, eligible & ~crowded)
        order = torch.arange(len(pool.maps), device=target.device)
        sooner = (distances == distance[:, None]) & (order < target[:, None])
        refused = refused + (eligible & crowded & ((distances < distance[:, None]) | sooner)).sum(1)
        kept, holes = _regions(pool, target, fill)
    unmixed = (target < 0)[:, None, None]
    if unmixed.device.type != "cpu" or bool(unmixed.any()):
        kept, holes = kept | unmixed, None if holes is None else holes & ~unmixed
    return target, distance, kept, holes, refused


def _crowded(pool: Described, batch: int, room: float, fill: Fill) -> Tensor:
    """(B, N) bool, which pairs leave too little of a background."""
    if fill == "inpaint":
        large = [areas(grown(pool.masks[part])) > room for part in parts(pool.masks)]
        return torch.cat(large).expand(batch, -1)
    # |A or B| = |A| + |B| - |A and B|; products of zeros and ones, which float32 adds up without an error to 2^24.
    dtype = torch.float32 if pool.masks.shape[1:].numel() < 2**24 else torch.float64
    own = pool.masks[:batch].flatten(1).to(dtype)
    with torch.autocast(own.device.type, enabled=False):
        both = torch.cat([own @ pool.masks[part].flatten(1).to(dtype).T for part in parts(pool.masks)], 1)
    return pool.areas[:batch, None] + pool.areas - both > room


def _regions(pool: Described, target: Tensor, fill: Fill) -> tuple[Tensor, Tensor | None]:
    """Where sources are kept, and where their targets (-1 for none) are painted over."""
    own, theirs = pool.masks[: len(target)], gathered(pool.masks, target.clamp_min(0))
    return regions(own, theirs, fill)


def regions(own: Tensor, theirs: Tensor, fill: Fill) -> tuple[Tensor, Tensor | None]:
    """Where sources are kept, and where their targets are painted over."""
    return (own | theirs, None) if fill == "source" else (own.clone(), grown(theirs))
