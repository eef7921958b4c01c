"""Classifiers that look at images for us: what they expect of pixels, and which output stands for which class."""

from sgdmix_albu.classifiers.judge import Judge, Normalize, open_judge

__all__ = ["Judge", "Normalize", "open_judge"]
