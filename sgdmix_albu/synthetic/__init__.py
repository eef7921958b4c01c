"""Train on an expanded set: real images, some of them replaced by synthetic ones as they are drawn."""

from __future__ import annotations

from sgdmix_albu.synthetic.choice import Mode
from sgdmix_albu.synthetic.mix import SyntheticMix
from sgdmix_albu.synthetic.pool import SyntheticPool
from sgdmix_albu.synthetic.streams import synthetic_batches, synthetic_samples

__all__ = ["Mode", "SyntheticMix", "SyntheticPool", "synthetic_batches", "synthetic_samples"]
