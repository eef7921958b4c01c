"""``SGDMix`` for Albumentations. Only this package imports albumentations."""

from sgdmix_albu.albumentations.transform import SGDMix

__all__ = ["SGDMix"]
