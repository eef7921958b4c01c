"""Stages 2 to 4 as pure functions: every random draw is passed in or handed back.

``mix_batch`` is the whole; both faces are built from its three steps: :func:`describe` (masks), :func:`plan_mix`
(targets, and where the source is kept) and :func:`sgdmix_albu.mixing.compose`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgdmix_albu.arguments import check_switch, said
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.colour import check_finite
from sgdmix_albu.mixing.composition import changed_only, compose
from sgdmix_albu.mixing.fill import grown
from sgdmix_albu.mixing.labels import class_ids
from sgdmix_albu.mixing.masks import MaskPreset, check_range, get_mask, working_maps
from sgdmix_albu.mixing.selection import (
    class_allows,
    draw_candidates,
    nearest,
    pairwise_distances,
    same_ids,
    same_pixels,
    uniform,
)
from sgdmix_albu.settings import MixSettings
from sgdmix_albu.tensors import BOOL, FLOATS, PIXELS, check_rows, check_tensor
from sgdmix_albu.types import BEST_FILL, Draws, Fill, Guards, MixedBatch, MixPlan, Rows, TargetClass

__all__ = [
    "Described",
    "describe",
    "draw",
    "mix_batch",
    "plan_mix",
    "repeats_of",
    "same_ids",
]


@dataclass(frozen=True)
class Described:
    """What selection needs to know of N images.

    Attributes:
        maps: (N, h, w) float32 saliency at working resolution.
        masks: (N, H, W) bool foreground masks.
        thresholds: (N,) float32.
        areas: (N,) int32, pixels in each mask.
        flat: (N,) bool, the saliency map is constant at 8 bits and says nothing.
        labels: (N,) int64, or None where no class constraint needs them.
    """

    maps: Tensor
    masks: Tensor
    thresholds: Tensor
    areas: Tensor
    flat: Tensor
    labels: Tensor | None = None

    def row(self, i: int) -> Described:
        """The i-th image alone, copied, N = 1."""
        alone: dict[str, Any] = {
            name: None if value is None else value[i : i + 1].clone() for name, value in vars(self).items()
        }
        return Described(**alone)

    def followed_by(self, other: Described) -> Described:
        """These rows, then the other's: the pool when a memory of earlier images is used."""
        joined: dict[str, Any] = {
            name: None if value is None else torch.cat([value, getattr(other, name)])
            for name, value in vars(self).items()
        }
        return Described(**joined)


def describe(maps: Tensor, images: Tensor, mask: MaskPreset, labels: Tensor | None = None) -> Described:
    """Stage 3 of each image by itself.

    Args:
        maps: (B, h, w) float in [0, 1]; h and w may be smaller than H and W.
        images: (B, C, H, W), uint8 or float.
        mask: A preset from :func:`sgdmix_albu.masks.get_mask`.
        labels: Carried along for class constraints, as :func:`sgdmix_albu.mixing.labels.class_ids` reads them.

    Raises:
        InvalidInputError: The maps do not fit the images, an image holds NaN or infinite pixels, the preset broke
            its contract, or labels do not say one class for each image.
    """
    _check_batch(images, maps)
    check_finite(images)
    if not callable(mask):
        raise InvalidInputError(f"expected a mask preset from get_mask(), got {said(mask)}")
    maps = maps.detach().float()
    found: Any = mask(maps, images)
    if not isinstance(found, tuple) or len(found) != 2 or not all(isinstance(part, Tensor) for part in found):
        raise InvalidInputError(
            f"the mask preset must return bool masks and thresholds, as masks.Foreground, got {type(found).__name__}"
        )
    masks, thresholds = found
    if masks.dtype != torch.bool or masks.shape != images.shape[:1] + images.shape[-2:]:
        raise InvalidInputError(
            f"the mask preset must return bool masks {(len(images), *images.shape[-2:])}, "
            f"got {masks.dtype} {tuple(masks.shape)}"
        )
    working = working_maps(maps)
    check_range(working)
    return Described(
        maps=working,
        masks=masks,
        thresholds=thresholds,
        areas=_areas(masks),
        flat=_spans(working) < 0.5 / 255,
        labels=None if labels is None else class_ids(labels, len(images)).to(maps.device),
    )


def draw(
    batch: int, pool: int, *, p: float = 1.0, candidates: int = 50, generator: torch.Generator | None = None
) -> Draws:
    """All the randomness of one step: which images are mixed, and which pool rows are their candidates.

    Args:
        batch: Number of sources, B: the first B rows of the pool.
        pool: Number of rows in the pool, N >= B.
        p: Probability that an image is mixed.
        candidates: Candidates drawn for each source.
        generator: Of any device; None for torch's own on the CPU.

    Returns:
        CPU tensors ``applied`` (B,) and ``candidates`` (B, N).

    Raises:
        InvalidInputError: ``p`` outside [0, 1] or ``candidates`` below 1.

    Example:
        >>> draw(2, 2, p=0.0).applied
        tensor([False, False])
    """
    MixSettings(p=p, candidates=candidates)
    return Draws(
        applied=uniform((batch,), generator) < float(p),
        candidates=draw_candidates(batch, pool, candidates, generator=generator),
    )


def _check_batch(images: Any, maps: Any) -> None:
    check_tensor(images, "(B, C, H, W) images", (-1, None, None, None), PIXELS)
    check_tensor(maps, f"({len(images)}, h, w) float saliency maps", (len(images), None, None), FLOATS)


def plan_mix(
    pool: Described,
    draws: Draws,
    *,
    max_coverage: float = 0.95,
    target_class: TargetClass = "any",
    repeats: Tensor | None = None,
    fill: Fill = BEST_FILL,
) -> MixPlan:
    """Choose each source's target, and decide where the source is kept and the target painted over.

    The sources are the first B rows of the pool. A candidate whose map is flat or whose mask is empty is not
    chosen: where its object lies is unknown, so it could show in the mix. When the nearest candidate leaves too little
    of a background, the next-nearest is tried; when none is left, the image stays unmixed. Too little is left where
    the union mask covers more than ``max_coverage``; with ``fill="inpaint"``, where the source's own mask does, or the
    candidate's grown one: then there is too little to paint from.

    Args:
        pool: What :func:`describe` says of sources and further candidates, N rows.
        draws: From :func:`draw`; B is the number of ``draws.applied``.
        max_coverage: The largest fraction of an image that these masks may cover.
        target_class: "any", or only candidates of the "same" or a "different" class.
        repeats: (B, N) bool, candidates that are the source itself and never chosen; from
            :func:`sgdmix_albu.mixing.selection.same_pixels` and :func:`sgdmix_albu.mixing.same_ids`.
        fill: "source" keeps the source under the union mask M_i OR M_j (the paper). "inpaint" keeps it under its own
            mask M_i, and the target's grown mask becomes a hole that is painted.

    Returns:
        The plan; see :class:`sgdmix_albu.types.MixPlan`.

    Raises:
        InvalidInputError: A setting is out of range, or a class constraint without labels.
    """
    MixSettings(max_coverage=max_coverage, target_class=target_class, fill=fill)
    _check_draws(draws)
    _check_pool(pool, *draws.candidates.shape)
    device, batch = pool.maps.device, len(draws.applied)
    usable = ~pool.flat & (pool.areas > 0)
    wanted = draws.applied.to(device) & usable[:batch]
    eligible = draws.candidates.to(device) & usable & wanted[:, None]
    if target_class != "any":
        if pool.labels is None:
            raise InvalidInputError(f"target_class={target_class!r} needs labels, and none were found")
        eligible &= class_allows(pool.labels[:batch], pool.labels, target_class).to(device)
    others = eligible.any(1)
    if repeats is not None:
        expected = f"bool {tuple(eligible.shape)}, which candidates repeat the source"
        check_tensor(repeats, expected, tuple(eligible.shape), BOOL)
        eligible &= ~repeats.to(device)
    only_itself = others & ~eligible.any(1)

    target, distance, kept, holes, refused = _nearest_uncrowded(pool, eligible, max_coverage, fill)
    applied = target >= 0
    flat = draws.applied.to(device) & pool.flat[:batch]
    empty = draws.applied.to(device) & ~pool.flat[:batch] & (pool.areas[:batch] == 0)
    return MixPlan(
        target=torch.where(applied, target, torch.arange(batch, device=device)),
        applied=applied,
        distance=torch.where(applied, distance.float(), torch.nan),
        masks=kept,
        thresholds=pool.thresholds[:batch],
        guards=Guards(flat, empty, refused, wanted & ~applied, only_itself),
        holes=holes,
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
        sums: (B,), :func:`sgdmix_albu.mixing.selection.bit_sums` of the images, where they are known already.
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
    same = same.to(images.device)
    return same if repeats is None else repeats | same


def mix_batch(
    images: Tensor,
    maps: Tensor,
    *,
    labels: Tensor | None = None,
    mask: str | MaskPreset = "otsu",
    candidates: int = 50,
    p: float = 1.0,
    max_coverage: float = 0.95,
    target_class: TargetClass = "any",
    exclude_duplicates: bool = True,
    ids: Sequence[Hashable] | Tensor | None = None,
    feather: float | None = None,
    fill: Fill = BEST_FILL,
    generator: torch.Generator | None = None,
    draws: Draws | None = None,
) -> MixedBatch:
    """Mix a batch within itself and say what was done (SGD-Mix, sections 5.1 and 5.2).

    Args:
        images: (B, C, H, W), uint8 or float, any memory format; not changed.
        maps: (B, h, w) float saliency in [0, 1], at the images' resolution or coarser.
        labels: (B,) or (B, K); only needed for ``target_class``, and read as
            :func:`sgdmix_albu.mixing.labels.class_ids` says. The mixed image's label is the source's.
        mask: A preset's name or a callable; see :func:`sgdmix_albu.masks.get_mask`.
        candidates: N, candidates drawn for each source (the paper: 30 to 50).
        p: Probability that an image is mixed; the others come back bit-identical.
        max_coverage: The largest fraction of an image that a union mask may cover; with ``fill="inpaint"`` the source's
            own mask, and the target's grown one.
        target_class: "any", or only targets of the "same" or a "different" class.
        exclude_duplicates: Never choose a target with exactly the source's pixels: the same image, drawn twice.
        ids: Which sample each image is, B hashable keys or an integer tensor: other views of a source are never
            its target, whatever their pixels.
        feather: Width in pixels of the fade outside the mask; 0 is the paper's hard edge. None: 0 with
            ``fill="source"``, a soft border of one pixel with "inpaint".
        fill: What stands where the target's own object was. "source" is the paper's union mask: the source's pixels
            stay there. "inpaint" paints the object out of the target and pastes the source by its own mask; see
            :func:`sgdmix_albu.mixing.compose`.
        generator: Of the draws, on any device; None for torch's own on the CPU.
        draws: Draws of an earlier call, to repeat it; ``p``, ``candidates`` and ``generator`` go unused.

    Returns:
        Mixed images, the plan (target, distance, masks, thresholds, kept, guards), foregrounds and draws.

    Raises:
        InvalidInputError: An argument does not fit, with what was expected and what came.

    Example:
        >>> import torch
        >>> from sgdmix_albu.saliency import get_backend
        >>> images = torch.rand(8, 3, 64, 64)
        >>> mixed = mix_batch(images, get_backend("spectral_residual")(images))
        >>> mixed.images.shape, mixed.plan.target.shape, mixed.plan.guards.counts()["flat_saliency"]
        (torch.Size([8, 3, 64, 64]), torch.Size([8]), 0)
    """
    MixSettings(
        p=p, candidates=candidates, max_coverage=max_coverage, target_class=target_class, feather=feather, fill=fill
    )
    check_switch(exclude_duplicates=exclude_duplicates)
    _check_batch(images, maps)
    check_range(maps)
    pool = describe(maps, images, get_mask(mask), None if target_class == "any" else labels)
    count = len(images)
    if draws is None:
        draws = draw(count, count, p=p, candidates=candidates, generator=generator)
    else:
        _check_draws(draws)
        if draws.candidates.shape != (count, count):
            raise InvalidInputError(
                f"expected draws for {count} images among {count}, got {tuple(draws.applied.shape)} and "
                f"{tuple(draws.candidates.shape)}"
            )
    repeats = repeats_of(images, images, ids=ids, pool_ids=ids, by_pixels=exclude_duplicates)
    plan = plan_mix(pool, draws, max_coverage=max_coverage, target_class=target_class, repeats=repeats, fill=fill)
    plan = changed_only(plan, images, images)
    mixed = compose(plan, images, images, feather=feather)
    return MixedBatch(images=mixed, plan=plan, foreground=pool.masks, draws=draws)


def _check_draws(draws: Any) -> None:
    if not isinstance(draws, Draws):
        raise InvalidInputError(f"expected draws from draw() or an earlier mix, got {type(draws).__name__}")
    check_tensor(draws.applied, "draws with applied (B,) of bool", (-1,), BOOL)
    count = len(draws.applied)
    check_tensor(draws.candidates, f"draws with candidates ({count}, N) of bool", (count, -1), BOOL)


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
    target, distance = nearest(distances, eligible)
    own, theirs = pool.masks[:batch], pool.masks[target.clamp_min(0)]
    kept, holes = (own | theirs, None) if fill == "source" else (own.clone(), grown(theirs))
    covered = kept if holes is None else holes
    # A hole without a rim has nothing to be painted from, whatever is asked.
    room = room if holes is None else min(room, size - 1)
    # Two masks that do not fill the room one after the other cannot fill it together.
    doubtful = (target >= 0) & ((holes is not None) | (pool.areas[:batch] + pool.areas[target.clamp_min(0)] > room))
    crowded = doubtful.nonzero()[:, 0]
    while len(crowded := crowded[(target[crowded] >= 0) & (_areas(covered[crowded]) > room)]):
        refused[crowded] += 1
        eligible[crowded, target[crowded]] = False
        target[crowded], distance[crowded] = nearest(distances[crowded], eligible[crowded])
        theirs = pool.masks[target[crowded].clamp_min(0)]
        covered[crowded] = own[crowded] | theirs if holes is None else grown(theirs)
    unmixed = target < 0
    kept |= unmixed[:, None, None]
    if holes is not None:
        holes &= ~unmixed[:, None, None]
    return target, distance, kept, holes, refused


def _areas(masks: Tensor) -> Tensor:
    """(N,) int32 pixels in each of (N, H, W) bool masks."""
    return masks.flatten(1).view(torch.uint8).sum(1, dtype=torch.int32)


def _spans(maps: Tensor) -> Tensor:
    """(N,) greatest minus least value of each map."""
    if not len(maps):
        return maps.new_zeros(0)
    low, high = torch.aminmax(maps.flatten(1), dim=1)
    return high - low
