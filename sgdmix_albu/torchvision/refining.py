"""Stage 5 inside a batch: the mixed images of a plan go to a refiner, with the masks that it protects them by."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sgdmix_albu.arguments import accepts, said
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.types import MixPlan, Preserve

if TYPE_CHECKING:
    from sgdmix_albu.refine.refiner import Refined, Refiner


def open_refiner(refiner: str | os.PathLike[str] | Refiner | None, strength: Any, preserve: Any) -> Refiner | None:
    """The refiner that a user means, once it is known that it can work so.

    Args:
        refiner: Its key, its folder or itself.
        strength: Refused where it means nothing and there is a refiner.
        preserve: Likewise.
    """
    if refiner is None:
        return None
    from sgdmix_albu.refine import get_refiner
    from sgdmix_albu.refine.preserve import check_mode
    from sgdmix_albu.refine.strength import check_strength

    check_strength(strength)
    check_mode(preserve)
    if isinstance(refiner, str | os.PathLike):
        return get_refiner(refiner)
    if not callable(getattr(refiner, "refine", None)):
        raise InvalidInputError(f"refiner must be a key, a folder or a refiner, got {said(refiner)}")
    return refiner


def refine_mixed(
    refiner: Refiner, mixed: Tensor, plan: MixPlan, *, labels: Tensor, seeds: Tensor, strength: Any, preserve: Preserve
) -> tuple[Tensor, Refined]:
    """Refine the images of a batch that were mixed.

    Args:
        refiner: What does it.
        mixed: (B, C, H, W), the batch after the mix.
        plan: What was done to it.
        labels: (B,) classes.
        seeds: (B,) of the noise.
        strength: As for :class:`sgdmix_albu.torchvision.SGDMix`.
        preserve: Likewise.

    Returns:
        The batch with refined images in it, and what the refiner says of them.
    """
    rows = plan.applied.cpu().nonzero()[:, 0]
    painted = plan.painted
    holes: dict[str, Any] = {}
    if painted is not None and accepts(refiner.refine, "holes"):  # a user's own need not know of them
        holes = {"holes": painted[rows.to(painted.device)]}
    refined = refiner.refine(
        mixed[rows.to(mixed.device)],
        classes=labels[rows],
        strength=strength,
        seeds=seeds[rows],
        masks=plan.masks[rows.to(plan.masks.device)],
        preserve=preserve,
        **holes,
    )
    done = mixed.clone()
    done[rows.to(mixed.device)] = refined.images
    return done, refined
