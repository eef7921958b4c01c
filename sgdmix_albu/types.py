"""What the stages hand to each other."""

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

# The defaults of both faces: what measures best on photographs, masks and accuracy both (docs/choosing.md), without a
# download and at a price that a loader can afford.
BEST_SALIENCY = "salient_object"
BEST_MASK = "guided"

# Beside names of backends: how the path of a network that `sgdmix distil` wrote ends, and what stands before the folder
# of a bank, whose maps stand for a backend's.
DISTILLED, SERVED = ".safetensors", "bank:"

Fill: TypeAlias = Literal["source", "inpaint"]
"""What stands where the target's own object was: the source's pixels (the paper), or paint."""

BEST_FILL: Fill = "inpaint"

Place: TypeAlias = Literal["source", "random"]
"""Where the source's object stands in the mix: where it stood, or scaled and moved at random."""

TargetClass: TypeAlias = Literal["any", "same", "different"]
"""Which targets may be chosen, by their class."""

Preserve: TypeAlias = Literal["none", "soft", "strict"]
"""How a refiner protects the object: not at all (the paper), by less strength on it, by its own pixels."""

Normalize: TypeAlias = Literal["imagenet", "none"]
"""What a classifier expects of pixels in [0, 1]."""

ImageFormat: TypeAlias = Literal["png", "jpg"]


class Foreground(NamedTuple):
    """Stage 3 of each image by itself.

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
    """What was refused, for each image of the batch.

    Attributes:
        flat_saliency: (B,) bool, the image's own saliency map is constant: left unmixed.
        empty_mask: (B,) bool, the image's own mask is empty though its map is not: left unmixed.
        over_coverage: (B,) int64, nearer candidates refused because the union mask would have covered more
            than ``max_coverage`` of the image. With ``fill="inpaint"``, because the hole that their object leaves
            would have; all of them where the source's own mask does.
        no_target: (B,) bool, no candidate was left (or there was none to begin with): left unmixed.
        duplicate: (B,) bool, left unmixed because all that was left to mix with was the image itself: repeats and
            other views of it, or a target that has the very same pixels wherever its own would show.
    """

    flat_saliency: Tensor
    empty_mask: Tensor
    over_coverage: Tensor
    no_target: Tensor
    duplicate: Tensor

    def counts(self) -> dict[str, int]:
        """How many images each guard touched."""
        return {name: int(value.count_nonzero()) for name, value in vars(self).items()}


@dataclass(frozen=True)
class MixPlan:
    """All that is decided before a pixel moves; the same plan applied twice gives the same pixels.

    Attributes:
        target: (B,) int64, row of the chosen target in the pool; the image itself where it stays unmixed.
        applied: (B,) bool, True where the image is mixed.
        distance: (B,) float32, root-mean-square difference of source and target map; NaN where unmixed.
        masks: (B, H, W) bool, True where the source is kept: union masks, or with ``fill="inpaint"`` the sources'
            own; all True where unmixed.
        thresholds: (B,) float32, each source's saliency threshold.
        guards: What was refused and why.
        holes: (B, H, W) bool, where the targets are painted over with ``fill="inpaint"``: their grown masks, all False
            where unmixed. None with ``fill="source"``.
        placement: (B, 3) float64 scale, dy, dx of the moved objects: the source's point (y, x), in pixels, comes to
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

    @property
    def painted(self) -> Tensor | None:
        """(B, H, W) bool, where paint shows: in holes, as far as the source does not cover them. None without holes."""
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
