"""Stage 6: expand a labelled image set into a larger one, or write a mixed copy of it.

First a plan, in which everything random is decided, then its execution, which only reads and writes. ``generate`` is
the whole. ``plan``: settings, a target for each source, a row for each output. ``execute``: a worker that makes rows'
files, on this machine or on a Ray cluster. ``store``: the output folder, what is done and what is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgdmix_albu.lazy import lazy

if TYPE_CHECKING:
    from sgdmix_albu.bank import make_bank
    from sgdmix_albu.expand.mix import mix_folder
    from sgdmix_albu.expand.pipeline import generate
    from sgdmix_albu.expand.store.verify import Verified, verify
    from sgdmix_albu.expand.summary import Expansion, Forecast
    from sgdmix_albu.settings import ClassifierSettings, RefinerSettings, SaliencySettings, Settings

__all__ = [
    "ClassifierSettings",
    "Expansion",
    "Forecast",
    "RefinerSettings",
    "SaliencySettings",
    "Settings",
    "Verified",
    "generate",
    "make_bank",
    "mix_folder",
    "verify",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        ".pipeline": ["generate"],
        ".mix": ["mix_folder"],
        ".store.verify": ["Verified", "verify"],
        ".summary": ["Expansion", "Forecast"],
        "sgdmix_albu.bank": ["make_bank"],
        "sgdmix_albu.settings": ["ClassifierSettings", "RefinerSettings", "SaliencySettings", "Settings"],
    },
)
