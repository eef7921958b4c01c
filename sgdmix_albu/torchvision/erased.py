"""What becomes of instance masks, boxes and key points where the mix took the donor's pixels, or moved the object.

Torchvision's transforms drop nothing by themselves, so that labels stay in step: a crop leaves an empty box, and
``v2.SanitizeBoundingBoxes`` removes it with its label and mask. So does this: a box whose object is gone becomes empty,
a point moves outside the image, where ``v2.SanitizeKeyPoints`` finds it. What is left of an object that was moved
(``place="random"``) is moved with it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from sgdmix_albu.mixing.placement import moved_instances, moved_points
from sgdmix_albu.mixing.visibility import visible_fractions, visible_points
from sgdmix_albu.types import MixPlan

_OUTSIDE = -1
_OBB = ("XYWHR", "CXCYWHR", "XYXYXYXY")


def without_erased_of(plan: MixPlan, objects: Any, row: int | None, min_visibility: float | None) -> Any:
    """Instance masks, boxes or points of a batch after the mix; untouched where it was not mixed.

    Args:
        plan: What was done to the batch.
        objects: As in :func:`without_erased`, of the image ``row``; where that is None, an entry for each image.
        row: The image that they belong to.
        min_visibility: As there; None for all boxes and points, whatever is left of them.
    """
    if row is not None:
        return _followed(plan, objects, row, min_visibility) if plan.applied[row] else objects
    changed = objects.as_subclass(Tensor).clone()
    for i in plan.applied.nonzero()[:, 0].tolist():
        one = changed[i : i + 1] if isinstance(objects, tv_tensors.BoundingBoxes) else changed[i]
        changed[i] = _followed(plan, _like(objects, one), i, min_visibility).as_subclass(Tensor)
    return _like(objects, changed)


def _followed(plan: MixPlan, objects: Any, row: int, min_visibility: float | None) -> Any:
    """What is left of the objects of one image that is mixed, where it is now."""
    # A moved object stays whole in the frame, so that what it loses is told where it stood.
    kept = plan.masks[row] if plan.cutouts is None else plan.cutouts[row]
    if min_visibility is not None or not isinstance(objects, tv_tensors.BoundingBoxes | tv_tensors.KeyPoints):
        objects = without_erased(objects, kept, min_visibility=min_visibility or 0.0)
    return objects if plan.placement is None else moved_along(objects, kept, plan.placement[row])


def without_erased(objects: Any, kept: Tensor, *, min_visibility: float) -> Any:
    """Instance masks, boxes or points of one image after the mix.

    Args:
        objects: A Mask (..., H, W) or plain tensor of that size: instances, which lose the pixels that are not kept.
            BoundingBoxes (n, K): those of which too little is left become empty. KeyPoints (..., 2): those that are
            not kept move to (-1, -1).
        kept: (H, W) bool, True where the pixels are still the source's.
        min_visibility: The least share of a box that must be left, in [0, 1]; with 0, a box goes when nothing is left.

    Returns:
        The same type and dtype, in fresh memory.
    """
    plain = objects.as_subclass(Tensor)
    kept = kept.to(plain.device)
    if isinstance(objects, tv_tensors.KeyPoints):
        flat = plain.reshape(-1, 2)
        # Where points lay outside the image before, nothing was erased.
        stay = visible_points(kept, flat) | ~visible_points(torch.ones_like(kept), flat)
        changed = torch.where(stay[:, None], flat, _OUTSIDE)
        return _like(objects, changed.reshape(plain.shape))
    if isinstance(objects, tv_tensors.BoundingBoxes):
        return _like(objects, _boxes(objects, kept, min_visibility))
    return _like(objects, plain.masked_fill(~kept, 0))


def moved_along(objects: Any, kept: Tensor, placement: Tensor) -> Any:
    """Instance masks, boxes or points of one image, moved with its object.

    Args:
        objects: As :func:`without_erased` returns them. Points outside the image stay where they are: they say that
            there is none. Boxes are clamped to the frame, as by torchvision's own moves.
        kept: (H, W) bool, the object before it was moved.
        placement: (3,) scale, dy, dx, as in :class:`sgdmix_albu.types.MixPlan`.

    Returns:
        The same type and dtype, in fresh memory. Whole numbers are rounded; for points they name pixels.
    """
    plain = objects.as_subclass(Tensor)
    kept, placement = kept.to(plain.device), placement.to(plain.device)
    if isinstance(objects, tv_tensors.KeyPoints):
        flat = plain.reshape(-1, 2)
        inside = visible_points(torch.ones_like(kept), flat)
        places = moved_points(flat.double() if plain.is_floating_point() else flat + 0.5, placement, kept.shape)
        places = places if plain.is_floating_point() else places.floor()
        return _like(objects, torch.where(inside[:, None], places.to(plain.dtype), flat).reshape(plain.shape))
    if isinstance(objects, tv_tensors.BoundingBoxes):
        moved = _moved_boxes(plain.double(), objects.format.value, placement, kept.shape)
        moved = moved if plain.is_floating_point() else moved.round()
        return functional.clamp_bounding_boxes(_like(objects, moved.to(plain.dtype)))
    return _like(objects, moved_instances(plain[None], kept[None], placement[None])[0])


def _moved_boxes(boxes: Tensor, kind: str, placement: Tensor, size: torch.Size) -> Tensor:
    """Boxes of any format, scaled and moved; angles stay."""
    if kind in ("XYXY", "XYXYXYXY"):
        return moved_points(boxes.reshape(-1, 2), placement, size).reshape(boxes.shape)
    place, length, angle = boxes[:, :2], boxes[:, 2:4], boxes[:, 4:]
    return torch.cat([moved_points(place, placement, size), length * placement[0], angle], 1)


def _like(objects: Any, changed: Tensor) -> Any:
    return tv_tensors.wrap(changed, like=objects) if isinstance(objects, tv_tensors.TVTensor) else changed


def _boxes(objects: Any, kept: Tensor, min_visibility: float) -> Tensor:
    boxes: Tensor = objects.as_subclass(Tensor)
    if not len(boxes):
        return boxes.clone()
    # In float64: whole numbers would be rounded on the way to another format.
    oriented = objects.format.value in _OBB
    corners = functional.convert_bounding_box_format(
        boxes.double(), old_format=objects.format, new_format="XYXYXYXY" if oriented else "XYXY"
    )
    shown = visible_fractions(kept, corners.view(-1, 4, 2) if oriented else corners).to(boxes.device)
    gone = (shown < min_visibility) | (shown == 0)
    return torch.where(gone[:, None], _emptied(boxes, objects.format.value), boxes)


def _emptied(boxes: Tensor, kind: str) -> Tensor:
    """Boxes of no width and height at their first corner, or their centre, in their own format."""
    if kind in ("XYXY", "XYXYXYXY"):
        return boxes[:, :2].repeat(1, boxes.shape[1] // 2)
    empty = boxes.clone()
    empty[:, 2:4] = 0
    return empty
