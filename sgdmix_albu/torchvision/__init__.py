"""``SGDMix`` for torchvision: a v2 transform over batches."""

from sgdmix_albu.torchvision.transform import SGDMix

__all__ = ["SGDMix"]
