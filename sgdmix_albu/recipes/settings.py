"""Hyper-parameters, and whose they are.

The specification gives label smoothing and the two architectures. All else is *assumed*: taken from the code that the
authors of Diff-Mix released (Wang et al., CVPR 2024; ``downstream_tasks/`` and ``scripts/`` of Zhicaiwww/Diff-Mix),
whose tasks, data sets and architectures SGD-Mix shares.
"""

from __future__ import annotations

from dataclasses import dataclass

from sgdmix_albu.synthetic import Mode

__all__ = ["Settings", "diff_mix"]

# Learning rates for ResNet-50 and for ViT-B/16 at 224 pixels: scripts/classification.sh of Diff-Mix.
_RATES = {
    "aircraft": (0.10, 0.001),
    "cars": (0.10, 0.001),
    "cub": (0.05, 0.001),
    "flowers": (0.05, 0.0005),
    "pets": (0.01, 0.0001),
}
_OTHER_RATES = (0.05, 0.001)  # assumed: CUB's


@dataclass(frozen=True)
class Settings:
    """How a classifier is trained: stochastic gradient descent, warm-up, then a cosine to zero.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images of one step; all, where there are fewer.
        learning_rate: After warm-up.
        weight_decay: Of all parameters.
        p: Probability of a synthetic image.
        mode: Which synthetic image, see :class:`sgdmix_albu.SyntheticMix`.
        momentum: Of the gradient.
        warmup: Share of the steps during which the learning rate rises.
        label_smoothing: Of the cross entropy.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    p: float
    mode: Mode = "pool"
    momentum: float = 0.9
    warmup: float = 0.1
    label_smoothing: float = 0.1


def diff_mix(data_set: str, arch: str) -> Settings:
    """Diff-Mix's settings for fine-grained classification at 224 pixels.

    Example:
        >>> diff_mix("cub", "vit_b_16").learning_rate
        0.001
    """
    transformer = "vit" in arch
    return Settings(
        epochs=120,
        batch_size=128 if transformer else 256,
        learning_rate=_RATES.get(data_set, _OTHER_RATES)[transformer],
        weight_decay=5e-4,
        p=0.1,
    )
