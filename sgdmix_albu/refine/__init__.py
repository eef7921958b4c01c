"""Stage 5: mixed images to refined images.

Refiners are asked for by key and loaded when the first image is refined; see :func:`list_refiners` and
:func:`get_refiner`. Importing this package imports neither torch nor diffusers: public names are resolved on first
use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgdmix_albu.lazy import lazy
from sgdmix_albu.refine.catalogue import (
    Recipe,
    RefinerSpec,
    get_spec,
    list_refiners,
    refiners_table,
    register_refiner,
)

if TYPE_CHECKING:
    from sgdmix_albu.refine.finetuning import finetune
    from sgdmix_albu.refine.folder import RefinerCard, read_refiner
    from sgdmix_albu.refine.refiner import Refined, Refiner, get_refiner

__all__ = [
    "Recipe",
    "Refined",
    "Refiner",
    "RefinerCard",
    "RefinerSpec",
    "finetune",
    "get_refiner",
    "get_spec",
    "list_refiners",
    "read_refiner",
    "refiners_table",
    "register_refiner",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        ".finetuning": ["finetune"],
        ".folder": ["RefinerCard", "read_refiner"],
        ".refiner": ["Refined", "Refiner", "get_refiner"],
    },
)
