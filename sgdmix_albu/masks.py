"""The mask presets under their public name; they live in :mod:`sgdmix_albu.mixing.masks` (stage 3)."""

from sgdmix_albu.mixing.masks import *  # noqa: F403
from sgdmix_albu.mixing.masks import __all__  # noqa: F401
