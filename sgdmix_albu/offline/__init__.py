"""Stage 6: expand a labelled image folder into a new one.

First a plan, in which everything random is decided, then its execution, which only reads and writes. The data's
way: ``source`` (what there is to read), ``descriptors`` (maps and masks, computed once for each image), ``plan``
(a row for each output), ``execute`` (rows to files), ``mix`` (the whole).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgdmix_albu.offline.mix import Summary, mix_folder

__all__ = ["Summary", "mix_folder"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sgdmix_albu.offline import mix

    return getattr(mix, name)
