"""SGD-Mix (arXiv 2505.11813) for torchvision.transforms.v2 and Albumentations.

Importing this package imports nothing heavy: public names are resolved on first use (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgdmix_albu.mixing import mix_batch
    from sgdmix_albu.synthetic import SyntheticMix
    from sgdmix_albu.torchvision import SGDMix

__all__ = ["SGDMix", "SyntheticMix", "__version__", "mix_batch"]
__version__ = "0.1.0"

_HOMES = {
    "SGDMix": "sgdmix_albu.torchvision",
    "SyntheticMix": "sgdmix_albu.synthetic",
    "mix_batch": "sgdmix_albu.mixing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
