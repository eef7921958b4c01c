"""A small saliency network that learns from a large one, or from any other teacher, on your own photographs.

Importing this package does not import torch: public names are resolved on first use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgdmix_albu.lazy import lazy

if TYPE_CHECKING:
    from sgdmix_albu.distillation.run import Distilled, distil

__all__ = ["Distilled", "distil"]

__getattr__, __dir__ = lazy(__name__, {".run": __all__})
