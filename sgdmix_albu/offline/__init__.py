"""Stage 6: expand a labelled image set into a larger one, or write a mixed copy of it.

First a plan, in which everything random is decided, then its execution, which only reads and writes. The data's
way: ``source`` (what there is to read), ``descriptors`` (maps and masks, computed once for each image), ``bank``
(those of a large set, on disk), ``plan`` (targets), ``outputs`` (a row for each output), ``tasks`` (rows as a file),
``expander`` (rows to files), ``engines`` and ``ray`` (who does it), ``run`` (what is done and what is left),
``pipeline`` (the whole), ``verification`` (afterwards). ``mix`` is the small way: one process, one output for each
image, no refiner.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgdmix_albu.offline.expansion import Expansion, Forecast, Settings
    from sgdmix_albu.offline.look import LookSettings
    from sgdmix_albu.offline.maps import make_bank
    from sgdmix_albu.offline.mix import Summary, mix_folder
    from sgdmix_albu.offline.pipeline import generate
    from sgdmix_albu.offline.refining import RefinerSettings, TeacherSettings
    from sgdmix_albu.offline.verification import Verified, verify

_HOMES = {
    "Expansion": "expansion",
    "Forecast": "expansion",
    "LookSettings": "look",
    "RefinerSettings": "refining",
    "Settings": "expansion",
    "Summary": "mix",
    "TeacherSettings": "refining",
    "Verified": "verification",
    "generate": "pipeline",
    "make_bank": "maps",
    "mix_folder": "mix",
    "verify": "verification",
}

__all__ = [
    "Expansion",
    "Forecast",
    "LookSettings",
    "RefinerSettings",
    "Settings",
    "Summary",
    "TeacherSettings",
    "Verified",
    "generate",
    "make_bank",
    "mix_folder",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
