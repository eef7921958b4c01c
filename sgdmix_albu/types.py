"""What the stages pass to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "BEST_FILL",
    "BEST_MASK",
    "BEST_SALIENCY",
    "DISTILLED",
    "SERVED",
    "Draws",
    "Fill",
    "Foreground",
    "Guards",
    "ImageFormat",
    "MixPlan",
    "MixedBatch",
    "Normalize",
    "Place",
    "Preserve",
    "Rows",
    "TargetClass",
]

Rows: TypeAlias = "Tensor | Sequence[Tensor]"
"""A batch to gather from: one (N, ...) tensor, or N tensors of one shape."""

# The defaults of both transforms: the best measured on photographs, in masks and in accuracy (docs/choosing.md), among
# what needs no download and is cheap enough for a loader.
BEST_SALIENCY = "salient_object"
BEST_MASK = "guided"

# Used in place of a backend's name: the suffix of a network that `sgdmix distil` wrote, the prefix of a bank's folder.
DISTILLED, SERVED = ".safetensors", "bank:"

Fill: TypeAlias = Literal["source", "inpaint"]
"""What replaces the target's object: the source's pixels (the paper), or paint."""

BEST_FILL: Fill = "inpaint"

Place: TypeAlias = Literal["source", "random"]
"""Where the source's object goes: where it was, or scaled and moved at random."""

TargetClass: TypeAlias = Literal["any", "same", "different"]
"""Which targets may be chosen, by their class."""

Preserve: TypeAlias = Literal["none", "soft", "strict"]
"""How a refiner protects the object: not at all (the paper), by less strength on it, or also by its own pixels."""

Normalize: TypeAlias = Literal["imagenet", "none"]
"""How pixels in [0, 1] are normalised for a classifier."""

ImageFormat: TypeAlias = Literal["png", "jpg"]


class Foreground(NamedTuple):
    """The object's mask of each image (stage 3).

    Attributes:
        masks: (B, H, W) bool, True on the foreground.
        thresholds: (B,) float32, the saliency above which a pixel entered the mask (before any refinement).
    """

    masks: Tensor
    thresholds: Tensor


class Draws(NamedTuple):
    """All the randomness of one mixing step; the same draws give the same result.

    Attributes:
        applied: (B,) bool, True where the image is to be mixed.
        candidates: (B, N) bool, True where row j of the pool may become the target of image i.
        placed: (B, 3) float32 uniform in [0, 1), from which the object's area, y and x follow with ``place="random"``;
            None with "source".
    """

    applied: Tensor
    candidates: Tensor
    placed: Tensor | None = None


@dataclass(frozen=True)
class Guards:
    """Why images or candidates were rejected, for each image of the batch.

    Attributes:
        flat_saliency: (B,) bool, the image's saliency map is constant: left unmixed.
        empty_mask: (B,) bool, the image's mask is empty though its map is not constant: left unmixed.
        over_coverage: (B,) int64, nearer candidates rejected because the union mask would have covered more
            than ``max_coverage`` of the image. With ``fill="inpaint"``: because their hole would have, or all of them
            if the source's mask does.
        no_target: (B,) bool, no candidate was left, or there was none: left unmixed.
        duplicate: (B,) bool, left unmixed because only the image itself was left: repeats and
            other views of it, or a target with the same pixels wherever it would show.
    """

    flat_saliency: Tensor
    empty_mask: Tensor
    over_coverage: Tensor
    no_target: Tensor
    duplicate: Tensor

    def __repr__(self) -> str:
        hits = [f"{name} {count}" for name, count in self.counts().items() if count]
        return f"guards: {', '.join(hits) or 'none'}"

    def counts(self) -> dict[str, int]:
        """How many images each guard rejected."""
        return {name: int(value.count_nonzero()) for name, value in vars(self).items()}


@dataclass(frozen=True)
class MixPlan:
    """Everything that is decided before any pixel changes; applied twice, it gives the same pixels.

    Attributes:
        target: (B,) int64, row of the chosen target in the pool; its own row where unmixed.
        applied: (B,) bool, True where the image is mixed.
        distance: (B,) float32, root-mean-square difference of source and target map; NaN where unmixed.
        masks: (B, H, W) bool, True where the source is kept: union masks, or with ``fill="inpaint"`` the sources'
            own; all True where unmixed.
        thresholds: (B,) float32, each source's saliency threshold.
        guards: What was rejected and why.
        holes: (B, H, W) bool, where the targets are painted over with ``fill="inpaint"``: their grown masks, all False
            where unmixed. None with ``fill="source"``.
        placement: (B, 3) float64 scale, dy, dx of the moved objects: the source's point (y, x), in pixels, moves to
            (scale y + dy H, scale x + dx W); (1, 0, 0) where unmixed. None with ``place="source"``.
        cutouts: (B, H, W) bool, the sources' objects before they were moved (``masks`` are the moved ones). None with
            ``place="source"``.
    """

    target: Tensor
    applied: Tensor
    distance: Tensor
    masks: Tensor
    thresholds: Tensor
    guards: Guards
    holes: Tensor | None = None
    placement: Tensor | None = None
    cutouts: Tensor | None = None

    def __repr__(self) -> str:
        shape, mixed = tuple(self.masks.shape), int(self.applied.count_nonzero())
        return f"MixPlan({mixed} of {shape[0]} images mixed, masks {shape[1]} x {shape[2]}, {self.guards})"

    @property
    def painted(self) -> Tensor | None:
        """(B, H, W) bool, where paint shows: in the holes that the source does not cover. None without holes."""
        return None if self.holes is None else self.holes & ~self.masks

    @property
    def kept(self) -> Tensor:
        """(B,) float32, fraction of each image's pixels that stay the source's."""
        return self.masks.flatten(1).float().mean(1)


@dataclass(frozen=True)
class MixedBatch:
    """Mixed images and what was done to get them.

    Attributes:
        images: (B, C, H, W), fresh memory, the input's dtype.
        plan: Targets, distances, masks, thresholds and guard hits.
        foreground: (B, H, W) bool, each source's own mask.
        draws: The random draws; pass them back in to get the same result again.
    """

    images: Tensor
    plan: MixPlan
    foreground: Tensor
    draws: Draws

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.images.shape))
        return f"MixedBatch({shape} {str(self.images.dtype).removeprefix('torch.')}, {self.plan!r})"
