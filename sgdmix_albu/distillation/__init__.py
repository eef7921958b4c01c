"""A small saliency network that learns from a large one, or from any other teacher, on your own photographs.

Importing this package does not import torch: public names are resolved on first use (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgdmix_albu.distillation.run import Distilled, distil

__all__ = ["Distilled", "distil"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("sgdmix_albu.distillation.run"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
