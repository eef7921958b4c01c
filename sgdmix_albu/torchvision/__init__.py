"""Face one: ``SGDMix``, a torchvision v2 transform over batches."""

from sgdmix_albu.torchvision.transform import SGDMix

__all__ = ["SGDMix"]
