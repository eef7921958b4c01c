"""Maps and masks of a folder, computed once: training reads the maps, planning the descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgdmix_albu.lazy import lazy

if TYPE_CHECKING:
    from sgdmix_albu.bank.build import build_bank, make_bank
    from sgdmix_albu.bank.dataset import WithMaps
    from sgdmix_albu.bank.maps import SaliencyBank

__all__ = ["SaliencyBank", "WithMaps", "build_bank", "make_bank"]

__getattr__, __dir__ = lazy(
    __name__, {".build": ["build_bank", "make_bank"], ".dataset": ["WithMaps"], ".maps": ["SaliencyBank"]}
)
