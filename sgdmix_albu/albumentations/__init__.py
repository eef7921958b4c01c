"""Face two: ``SGDMix``, an Albumentations transform. This package alone imports albumentations."""

from sgdmix_albu.albumentations.transform import SGDMix

__all__ = ["SGDMix"]
