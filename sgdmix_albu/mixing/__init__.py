"""Stages 2 to 4: targets, masks, mixed images. Pure functions; every random draw can be passed in and is returned.

In order: ``masks`` (with ``guided`` and ``grabcut``) finds the object, and ``described`` collects what is known of an
image. ``selection`` and ``plan`` choose the target, also among images of earlier batches (``memory``). ``fill``
replaces the target's object (``pyramid`` spreads the colours), ``placement`` moves the source's, ``blending`` and
``composition`` make the pixels, and ``mix`` is all of it. ``bits`` has their operations on memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgdmix_albu.lazy import lazy

if TYPE_CHECKING:
    from sgdmix_albu.mixing.blending import blend
    from sgdmix_albu.mixing.composition import compose
    from sgdmix_albu.mixing.described import Described, describe
    from sgdmix_albu.mixing.fill import grown, inpaint, inpaint_nearest
    from sgdmix_albu.mixing.mix import mix_batch
    from sgdmix_albu.mixing.plan import draw, plan_mix, repeats_of
    from sgdmix_albu.mixing.selection import same_ids

__all__ = [
    "Described",
    "blend",
    "compose",
    "describe",
    "draw",
    "grown",
    "inpaint",
    "inpaint_nearest",
    "mix_batch",
    "plan_mix",
    "repeats_of",
    "same_ids",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        ".blending": ["blend"],
        ".composition": ["compose"],
        ".described": ["Described", "describe"],
        ".fill": ["grown", "inpaint", "inpaint_nearest"],
        ".mix": ["mix_batch"],
        ".plan": ["draw", "plan_mix", "repeats_of"],
        ".selection": ["same_ids"],
    },
)
