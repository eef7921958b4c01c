"""What becomes of instance masks, boxes and key points where the mix took the donor's pixels.

Torchvision's transforms drop nothing by themselves, so that labels stay in step: a crop leaves an empty box, and
``v2.SanitizeBoundingBoxes`` removes it with its label and mask. So does this: a box whose object is gone becomes empty,
a point moves outside the image, where ``v2.SanitizeKeyPoints`` finds it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from sgdmix_albu.mixing.visibility import visible_fractions, visible_points
from sgdmix_albu.types import MixPlan

_OUTSIDE = -1
_OBB = ("XYWHR", "CXCYWHR", "XYXYXYXY")


def without_erased_of(plan: MixPlan, objects: Any, row: int | None, min_visibility: float | None) -> Any:
    """Instance masks, boxes or points of a batch after the mix; untouched where no pixel was taken.

    Args:
        plan: What was done to the batch.
        objects: As in :func:`without_erased`, of the image ``row``; where that is None, an entry for each image.
        row: The image that they belong to.
        min_visibility: As there; None for boxes and points as they came.
    """
    if min_visibility is None and isinstance(objects, tv_tensors.BoundingBoxes | tv_tensors.KeyPoints):
        return objects
    share = min_visibility or 0.0
    if row is not None:
        mixed = bool(plan.applied[row])
        return without_erased(objects, plan.masks[row], min_visibility=share) if mixed else objects
    changed = objects.as_subclass(Tensor).clone()
    for i in plan.applied.nonzero()[:, 0].tolist():
        one = changed[i : i + 1] if isinstance(objects, tv_tensors.BoundingBoxes) else changed[i]
        changed[i] = without_erased(_like(objects, one), plan.masks[i], min_visibility=share).as_subclass(Tensor)
    return _like(objects, changed)


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
