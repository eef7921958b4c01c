"""From a plan to images: the targets' backgrounds, the composite, and whether any pixel would change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sgdmix_albu.arguments import check_switch
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.bits import aligned, as_integers, check_gathered, each, gathered, overlaid
from sgdmix_albu.mixing.blending import blend, border, edge_width, fade, has_graph
from sgdmix_albu.mixing.fill import inpaint, inpaint_into, inpaint_nearest
from sgdmix_albu.mixing.placement import pasted, unmoved
from sgdmix_albu.refusals import refuse_if
from sgdmix_albu.tensors import PIXELS, check_rows, check_tensor
from sgdmix_albu.types import MixPlan, Rows

__all__ = ["changed_only", "compose"]

_GLANCE = 8  # every so many rows and columns are compared first: most mixes show a difference there


def compose(plan: MixPlan, images: Tensor, pool: Rows, *, feather: float | None = None, hard: bool = False) -> Tensor:
    """Put the sources on their targets' backgrounds, as the plan says.

    With union masks this is I' = M I_i + (1 - M) I_j (SGD-Mix, section 5.2). With ``plan.holes`` the targets are
    painted over first, and the source's own mask is used: I' = M_i I_i + (1 - M_i) inpaint(I_j, grown M_j). With
    ``plan.placement`` the source's object is scaled and moved first (:mod:`sgdmix_albu.mixing.placement`).

    Args:
        plan: From :func:`sgdmix_albu.mixing.plan_mix`.
        images: (B, ..., H, W), the sources: any real dtype and memory format; not changed.
        pool: Rows to gather targets from, as in :func:`sgdmix_albu.mixing.blend`.
        feather: Width in pixels of the fade outside the mask; None for that of
            :func:`sgdmix_albu.mixing.blending.edge_width`.
        hard: The images are semantic masks, depth or similar; their values can neither fade nor be averaged: holes
            take the nearest value (:func:`sgdmix_albu.mixing.inpaint_nearest`).

    Returns:
        (B, ..., H, W) in fresh memory, the images' dtype, device and memory format. Unmixed ones are bit-identical.

    Raises:
        InvalidInputError: The plan was made for other images.

    Example:
        >>> from sgdmix_albu.mixing.mix import mix_batch
        >>> images, maps = torch.rand(6, 3, 32, 32), torch.rand(6, 32, 32)
        >>> mixed = mix_batch(images, maps, fill="inpaint")
        >>> torch.equal(compose(mixed.plan, images, images), mixed.images)
        True
    """
    check_switch(hard=hard)
    _check(plan, images, pool)
    feather = 0 if hard else edge_width("source" if plan.holes is None else "inpaint", feather)
    if plan.holes is None:
        return blend(images, pool, plan.target, plan.masks, feather=feather)
    on_cpu = images.device.type == "cpu"
    if on_cpu and plan.placement is None and not (hard or images.dtype == torch.bool or has_graph(images, pool)):
        return _painted_where_seen(plan, plan.holes, images, pool, feather)
    # A GPU works on images that are not mixed, too: to leave them out is to wait.
    rows = plan.applied.nonzero()[:, 0] if on_cpu else torch.arange(len(images), device=images.device)
    if not len(rows):
        return images.clone()
    painted = _plates(images, pool, plan.target[rows], plan.holes[rows], hard=hard)
    if plan.placement is not None and plan.cutouts is not None:
        own = gathered(images, rows)
        placed = pasted(own, painted, plan.cutouts[rows], plan.placement[rows], feather=feather, hard=hard)
        if images.requires_grad or placed.requires_grad:
            return torch.where(each(plan.applied, images), images.index_copy(0, rows, placed), images)
        mixed = images.clone()
        bits = as_integers(mixed)
        if not on_cpu:
            placed = torch.where(each(plan.applied, images), as_integers(placed), bits)
        bits.index_copy_(0, rows, as_integers(placed))
        return mixed
    # Images that are not mixed keep every pixel, so any row will do for them.
    place = (plan.applied.cumsum(0) - 1).clamp_min(0) if on_cpu else rows
    return blend(images, painted, place, plan.masks, feather=feather)


def _painted_where_seen(plan: MixPlan, holes: Tensor, images: Tensor, pool: Rows, feather: float | None) -> Tensor:
    """The composite without the paint that the source would hide, which is most of it."""
    edge = border(plan.masks, feather)
    mixed = overlaid(images, pool, plan.target, edge.inside)
    inpaint_into(mixed, pool, plan.target, holes, ~edge.inside)
    fade(mixed, images, edge)
    return mixed


def changed_only(plan: MixPlan, images: Tensor, pool: Rows) -> MixPlan:
    """The plan without mixes that would change no pixel: these count as not applied.

    That happens if source and target (painted over, if the plan says so) are equal, bit by bit, wherever the target
    would show: plain studio backgrounds, or a mask of the whole image. On a GPU, visible paint counts as a change,
    to avoid painting just for the comparison.

    Args:
        plan: From :func:`sgdmix_albu.mixing.plan_mix`.
        images: (B, ..., H, W), the sources.
        pool: Rows to gather targets from, as in :func:`sgdmix_albu.mixing.blend`.
    """
    _check(plan, images, pool)
    asked = plan.applied
    if plan.placement is not None:  # what is moved is changed
        asked = asked & (plan.placement == unmoved(1, asked.device)).all(1)
    if images.device.type != "cpu":
        return _without(plan, asked & ~_differ_at_once(plan, images, pool))
    rows = asked.nonzero()[:, 0]
    for step in (_GLANCE, 1):
        if len(rows):
            rows = rows[~_differ(plan, images, pool, rows, step)]
    if not len(rows):
        return plan
    return _without(plan, torch.zeros_like(plan.applied).index_fill_(0, rows, True))


def _without(plan: MixPlan, same: Tensor) -> MixPlan:
    """The plan without the mixes (B,) that change nothing."""
    return replace(
        plan,
        target=torch.where(same, torch.arange(len(same), device=same.device), plan.target),
        applied=plan.applied & ~same,
        distance=plan.distance.masked_fill(same, torch.nan),
        masks=plan.masks | same[:, None, None],
        guards=replace(plan.guards, duplicate=plan.guards.duplicate | same),
        holes=None if plan.holes is None else plan.holes & ~same[:, None, None],
        cutouts=None if plan.cutouts is None else plan.cutouts | same[:, None, None],
    )


def _plates(images: Tensor, pool: Rows, target: Tensor, holes: Tensor, *, hard: bool) -> Tensor:
    """The targets' backgrounds, their own objects painted over."""
    paint = inpaint_nearest if hard else inpaint
    return paint(gathered(pool, target, like=images), holes)


def _differ(plan: MixPlan, images: Tensor, pool: Rows, rows: Tensor, step: int) -> Tensor:
    """(n,) bool: whether the mix of these rows would change a pixel, looked at on every ``step``-th row and column.

    Holes are painted, to be looked into, only where all is looked at.
    """
    targets, seen = plan.target[rows], ~plan.masks[:, ::step, ::step][rows]
    source = as_integers(images)[..., ::step, ::step][rows]
    if plan.holes is not None and step == 1:
        target = as_integers(_plates(images, pool, targets, plan.holes[rows], hard=False))
    elif isinstance(pool, Tensor):
        target = as_integers(pool)[..., ::step, ::step][targets]
    else:
        target = torch.stack([as_integers(pool[row])[..., ::step, ::step] for row in targets.tolist()])
    if plan.holes is not None and step > 1:
        seen &= ~plan.holes[:, ::step, ::step][rows]
    changed = (source != target).flatten(1, -3).any(1) if source.ndim > 3 else source != target
    return (changed & seen).flatten(1).any(1)


def _differ_at_once(plan: MixPlan, images: Tensor, pool: Rows) -> Tensor:
    """(B,) bool, :func:`_differ` of all rows and pixels, without waiting for a number."""
    changed = as_integers(images) != as_integers(gathered(pool, plan.target, like=images))
    if plan.holes is not None:
        changed = changed | aligned(plan.holes, images)
    return (changed & ~aligned(plan.masks, images)).flatten(1).any(1)


def _check(plan: Any, images: Any, pool: Any) -> None:
    """Refuse what is no plan, and images that it was not made for."""
    if not isinstance(plan, MixPlan):
        raise InvalidInputError(f"expected a plan from plan_mix(), got {type(plan).__name__}")
    count, height, width = plan.masks.shape
    expected = f"images ({count}, ..., {height}, {width}), for which the plan was made"
    check_tensor(images, expected, (count, height, width), PIXELS, more=True)
    check_rows(pool, images, ())
    refuse_if(
        plan.target >= len(pool),
        lambda: InvalidInputError(f"expected a pool with the plan's targets, got {len(pool)} images"),
    )
    check_gathered(pool, images, plan.target)
