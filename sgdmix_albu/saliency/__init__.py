"""Stage 1: images to saliency maps.

Backends are asked for by name and imported when first used; see :func:`list_backends` and :func:`get_backend`.
Importing this package does not import torch: public names are resolved on first use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgdmix_albu.lazy import lazy
from sgdmix_albu.saliency.catalogue import list_backends, register_backend

if TYPE_CHECKING:
    from sgdmix_albu.bank.build import build_bank
    from sgdmix_albu.bank.dataset import WithMaps
    from sgdmix_albu.bank.maps import SaliencyBank
    from sgdmix_albu.saliency.base import Saliency, SaliencyBackend, normalize_maps
    from sgdmix_albu.saliency.given import SaliencyMap, collate
    from sgdmix_albu.saliency.resolve import get_backend

__all__ = [
    "Saliency",
    "SaliencyBackend",
    "SaliencyBank",
    "SaliencyMap",
    "WithMaps",
    "build_bank",
    "collate",
    "get_backend",
    "list_backends",
    "normalize_maps",
    "register_backend",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        ".base": ["Saliency", "SaliencyBackend", "normalize_maps"],
        ".given": ["SaliencyMap", "collate"],
        ".resolve": ["get_backend"],
        "sgdmix_albu.bank": ["SaliencyBank", "WithMaps", "build_bank"],
    },
)
