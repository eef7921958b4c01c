"""Stage 1: images to saliency maps.

Backends are asked for by name and imported when first used; see :func:`list_backends` and :func:`get_backend`.
Importing this package does not import torch: public names are resolved on first use (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sgdmix_albu.saliency.catalogue import list_backends, register_backend

if TYPE_CHECKING:
    from sgdmix_albu.saliency.bank import SaliencyBank
    from sgdmix_albu.saliency.base import SaliencyBackend, normalize_maps
    from sgdmix_albu.saliency.build import build_bank
    from sgdmix_albu.saliency.given import SaliencyMap, collate
    from sgdmix_albu.saliency.resolve import get_backend

__all__ = [
    "SaliencyBackend",
    "SaliencyBank",
    "SaliencyMap",
    "build_bank",
    "collate",
    "get_backend",
    "list_backends",
    "normalize_maps",
    "register_backend",
]

_HOMES = {
    "SaliencyBackend": "sgdmix_albu.saliency.base",
    "SaliencyBank": "sgdmix_albu.saliency.bank",
    "SaliencyMap": "sgdmix_albu.saliency.given",
    "build_bank": "sgdmix_albu.saliency.build",
    "collate": "sgdmix_albu.saliency.given",
    "get_backend": "sgdmix_albu.saliency.resolve",
    "normalize_maps": "sgdmix_albu.saliency.base",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
