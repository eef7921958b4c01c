"""SGD-Mix (arXiv 2505.11813) for torchvision.transforms.v2 and Albumentations.

Importing this package imports nothing heavy: public names are resolved on first use (PEP 562).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sgdmix_albu.lazy import lazy

if TYPE_CHECKING:
    from sgdmix_albu.mixing import mix_batch
    from sgdmix_albu.synthetic import SyntheticMix
    from sgdmix_albu.torchvision import SGDMix

__all__ = ["SGDMix", "SyntheticMix", "__version__", "mix_batch"]
__version__ = "0.2.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())  # who uses a package decides what is shown

__getattr__, __dir__ = lazy(
    __name__, {".mixing": ["mix_batch"], ".synthetic": ["SyntheticMix"], ".torchvision": ["SGDMix"]}
)
