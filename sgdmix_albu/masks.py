"""The mask presets under their public name; they live in :mod:`sgdmix_albu.mixing.masks` (stage 3)."""

from sgdmix_albu.mixing.masks import (
    MaskPreset,
    above,
    get_mask,
    list_masks,
    otsu,
    otsu_threshold,
    register_mask,
    rounded,
    working_maps,
)

__all__ = [
    "MaskPreset",
    "above",
    "get_mask",
    "list_masks",
    "otsu",
    "otsu_threshold",
    "register_mask",
    "rounded",
    "working_maps",
]
