"""Stage 5 inside a batch: the mixed images of a plan go to a refiner, with the masks that it protects them by."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any, get_args

from torch import Tensor

from sgdmix_albu.arguments import check_choice, said
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.types import MixPlan, Preserve

if TYPE_CHECKING:
    from sgdmix_albu.refine.refiner import Refined, Refiner

DEFAULTS = {"strength": 0.7, "preserve": "strict"}


def open_refiner(refiner: str | os.PathLike[str] | Refiner | None, strength: Any, preserve: Any) -> Refiner | None:
    """The refiner that a user means, once it is known that it can work so.

    Args:
        refiner: Its key, its folder or itself.
        strength: Refused where it means nothing; warned of where there is no refiner.
        preserve: Likewise.
    """
    from sgdmix_albu.refine import get_refiner
    from sgdmix_albu.refine.strength import check_strength

    check_strength(strength)
    check_choice("preserve", preserve, get_args(Preserve))
    if refiner is None:
        for name, value in (("strength", strength), ("preserve", preserve)):
            if value != DEFAULTS[name]:
                warnings.warn(f"{name}={said(value)} does nothing without a refiner: pass refiner=", stacklevel=3)
        return None
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
    from sgdmix_albu.refine.refiner import refine_rows

    rows = plan.applied.cpu().nonzero()[:, 0]
    images, options = mixed[rows.to(mixed.device)], {"strength": strength, "preserve": preserve}
    refined = refine_rows(refiner, images, plan, rows, classes=labels[rows], seeds=seeds[rows], **options)
    done = mixed.clone()
    done[rows.to(mixed.device)] = refined.images
    return done, refined
