"""Stage 5: mixed images to refined images.

Refiners are asked for by key and loaded when the first image is refined; see :func:`list_refiners` and
:func:`get_refiner`. Importing this package imports neither torch nor diffusers: public names are resolved on first
use (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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

_HOMES = {
    "Refined": "sgdmix_albu.refine.refiner",
    "Refiner": "sgdmix_albu.refine.refiner",
    "RefinerCard": "sgdmix_albu.refine.folder",
    "finetune": "sgdmix_albu.refine.finetuning",
    "get_refiner": "sgdmix_albu.refine.refiner",
    "read_refiner": "sgdmix_albu.refine.folder",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
