"""Numpy pictures (H, W) or (H, W, C) as the tensors (..., H, W) of the core, without copies where possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.blending import blend
from sgdmix_albu.mixing.fill import inpaint, inpaint_nearest
from sgdmix_albu.mixing.placement import moved_instances, pasted
from sgdmix_albu.tensors import PIXELS, check_tensor
from sgdmix_albu.types import MixPlan

Array: TypeAlias = npt.NDArray[Any]


class Moves(NamedTuple):
    """Where the objects of B sources go, with ``place="random"``.

    Attributes:
        cutouts: (B, H, W) bool, the objects where they stood.
        placement: (B, 3) float64 scale, dy, dx; see :class:`sgdmix_albu.types.MixPlan`.
    """

    cutouts: Array
    placement: Array

    def tensors(self, row: int) -> tuple[Tensor, Tensor]:
        """Those of one source: (1, H, W) and (1, 3)."""
        return torch.from_numpy(self.cutouts[row : row + 1]), torch.from_numpy(self.placement[row : row + 1])

    def of(self, rows: Array) -> Moves:
        """Those of some sources."""
        return Moves(self.cutouts[rows], self.placement[rows])


def moves_of(plan: MixPlan) -> Moves | None:
    """Where a plan moves the objects; None where they stay."""
    if plan.placement is None or plan.cutouts is None:
        return None
    return Moves(plan.cutouts.numpy(), plan.placement.numpy())


def to_tensor(picture: Array) -> Tensor:
    """(H, W) or (H, W, C) to a (1, H, W) or (C, H, W) view; copied only if torch cannot share the memory."""
    picture = np.ascontiguousarray(_native(picture))
    tensor = torch.from_numpy(picture if picture.flags.writeable else picture.copy())
    return tensor[None] if tensor.ndim == 2 else tensor.movedim(-1, 0)


def _native(picture: Array) -> Array:
    """In the byte order of this machine, which is the only one that torch knows; FITS and some TIFF files differ."""
    return picture if picture.dtype.isnative else picture.astype(picture.dtype.newbyteorder("="))


def from_tensor(tensor: Tensor, *, stack: bool = False) -> Array:
    """(..., C, H, W) to an array with the channels last; (H, W), or (N, H, W) where it is a stack, as it is."""
    expected = "pictures, labels and ids of a donor as tensors that numpy can hold"
    check_tensor(tensor, expected, (), PIXELS - {torch.bfloat16}, more=True)
    tensor = tensor.detach().as_subclass(Tensor).cpu()
    array: Array = (tensor if tensor.ndim < 3 + stack else tensor.movedim(-3, -1)).numpy()
    return array


def stacked(pictures: Sequence[Array]) -> Tensor:
    """N pictures of one shape as (N, C, H, W); the channels stay innermost in memory, which is a plain copy."""
    batch = torch.from_numpy(_native(np.stack(pictures)))
    return batch[:, None] if batch.ndim == 3 else batch.movedim(-1, 1)


def composite(
    sources: Sequence[Array],
    others: Sequence[Array | None],
    union: Array,
    *,
    feather: float | None,
    moves: Moves | None = None,
    hard: bool = False,
) -> list[Array]:
    """Keep each source where its union mask holds, and take the other picture elsewhere.

    Args:
        sources: B pictures (H, W) or (H, W, C) of one shape and dtype.
        others: B pictures like them; None leaves the source as it is.
        union: (B, H, W) bool.
        feather: As in :func:`sgdmix_albu.mixing.blend`.
        moves: Where the sources' objects go; None where they stay.
        hard: Values can neither fade nor be averaged.

    Returns:
        B pictures; unmixed ones are the sources themselves.
    """
    if not len(sources) == len(others) == len(union):
        raise InvalidInputError(f"this mix was decided for {len(others)} pictures, got {len(sources)}")
    mixed = list(sources)
    for i, (source, other) in enumerate(zip(sources, others, strict=True)):
        if other is None:
            continue
        _check_size(source, union[i])
        own, plate = to_tensor(source)[None], to_tensor(other)[None]
        if moves is None:
            # Not a list: a tensor keeps its memory format, so the result is contiguous.
            place, kept = torch.zeros(1, dtype=torch.int64, device="cpu"), torch.from_numpy(union[i])[None]
            row = blend(own, plate, place, kept, feather=feather)[0]
        else:
            nearest = hard or holds_unknown(source) or holds_unknown(other)
            row = pasted(own, plate, *moves.tensors(i), feather=feather, hard=nearest)[0]
        mixed[i] = _picture(row, source)
    return mixed


def cut(pictures: Sequence[Array], kept: Array, moves: Moves | None = None) -> list[Array]:
    """Masks of the source's objects, restricted to what is kept of the source: 0 elsewhere.

    Args:
        pictures: B masks (H, W) or (H, W, C).
        kept: (B, H, W) bool, or (1, H, W) for all.
        moves: Where the objects go, one for each of ``kept``; None where they stay.
    """
    if len(kept) not in (1, len(pictures)):
        raise InvalidInputError(f"this mix was decided for {len(kept)} pictures, got {len(pictures)}")
    regions = np.broadcast_to(kept, (len(pictures), *kept.shape[1:]))
    left = []
    for i, (picture, region) in enumerate(zip(pictures, regions, strict=True)):
        _check_size(picture, region)
        if moves is not None:
            row = moved_instances(to_tensor(picture)[None], *moves.tensors(i if len(kept) > 1 else 0))[0]
            left.append(_picture(row, picture))
            continue
        left.append(np.where(region.reshape(*region.shape, *[1] * (picture.ndim - 2)), picture, picture.dtype.type(0)))
    return left


def painted(picture: Array, hole: Array, *, nearest: bool) -> Array:
    """A picture with its hole, (H, W) bool, painted: by the colours around it, or by the nearest value."""
    paint = inpaint_nearest if nearest else inpaint
    return _picture(paint(to_tensor(picture)[None], torch.from_numpy(hole)[None])[0], picture)


def holds_unknown(picture: Array) -> bool:
    """Depth under the kind "image" has NaN where nothing was measured, which cannot be averaged."""
    return picture.dtype.kind == "f" and not bool(np.isfinite(picture).all())


def _picture(row: Tensor, like: Array) -> Array:
    """(C, H, W) as a picture of the other's shape, whole in memory, as OpenCV needs it."""
    return np.ascontiguousarray(row.movedim(0, -1).numpy().reshape(like.shape))


def _check_size(picture: Array, region: Array) -> None:
    if picture.shape[:2] != region.shape:
        raise InvalidInputError(
            f"this mix was decided for pictures of {region.shape[0]} x {region.shape[1]}, "
            f"got {picture.shape[0]} x {picture.shape[1]}"
        )


def resized(picture: Array, size: tuple[int, int], *, nearest: bool) -> Array:
    """A picture at ``size`` = (H, W), stretched: images by an antialiased bilinear filter, masks by nearest pixel."""
    if picture.shape[:2] == size:
        return picture
    if nearest:
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(np.int64)
            for new, old in zip(size, picture.shape[:2], strict=True)
        )
        sampled: Array = picture[rows[:, None], columns]
        return sampled
    tensor = F.interpolate(to_tensor(picture)[None], size=size, mode="bilinear", antialias=True)[0]
    return np.reshape(tensor.movedim(0, -1).numpy(), (*size, *picture.shape[2:]))
