"""Hyper-parameters, and where they come from.

The paper gives label smoothing and the two architectures. All else is *assumed*: taken from the code that the
authors of Diff-Mix released (Wang et al., CVPR 2024; ``downstream_tasks/`` and ``scripts/`` of Zhicaiwww/Diff-Mix),
whose tasks, data sets and architectures SGD-Mix shares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import get_args

from sgdmix_albu.arguments import check_choice, check_count, check_number, check_text
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.synthetic import Mode

__all__ = ["Settings", "diff_mix", "diff_mix_few_shot", "diff_mix_long_tail"]

# Learning rates for ResNet-50 and for ViT-B/16: scripts/classification.sh of Diff-Mix. ResNet-50's are those for 224
# pixels; its headline figures were won at 448 pixels, with all but Flowers' halved. ViT-B/16's served runs at 384
# pixels, from SWAG weights, in batches of 32; that they fit 224 pixels and batches of 128 is assumed. Flowers' belong
# to about 40 training images of each class, not to the 10 of the official split.
_RATES = {
    "aircraft": (0.10, 0.001),
    "cars": (0.10, 0.001),
    "cub": (0.05, 0.001),
    "flowers": (0.05, 0.0005),
    "pets": (0.01, 0.0001),
}
_OTHER_RATES = (0.05, 0.001)  # assumed: CUB's, for Waterbirds, folders and the aviary
_LONG_TAIL_RATES = (0.005, 0.005)  # assumed for ViT-B/16: ResNet-50's


@dataclass(frozen=True)
class Settings:
    """How a classifier is trained: stochastic gradient descent, warm-up, then a cosine to zero. Checked when made.

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

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            check_count(name, getattr(self, name), "must be 1 or more")
        for name in ("learning_rate", "weight_decay"):
            check_number(name, getattr(self, name), "must be 0 or more", low=0, high=math.inf)
        for name in ("p", "momentum", "warmup", "label_smoothing"):
            check_number(name, getattr(self, name), "must lie in [0, 1]", low=0, high=1)
        check_choice("mode", self.mode, get_args(Mode))


def diff_mix(data_set: str, arch: str, learning_rate: float | None = None) -> Settings:
    """Diff-Mix's settings for fine-grained classification at 224 pixels.

    Args:
        data_set: Its name.
        arch: The architecture's name.
        learning_rate: In place of Diff-Mix's, which is for ResNets and vision transformers alone.

    Raises:
        InvalidInputError: No rate is known for the architecture, and none is given.

    Example:
        >>> diff_mix("cub", "vit_b_16").learning_rate
        0.001
    """
    check_text(data_set=data_set, arch=arch)
    return Settings(
        epochs=120,
        batch_size=128 if arch.startswith("vit") else 256,
        learning_rate=_rate(arch, _RATES.get(data_set, _OTHER_RATES), learning_rate),
        weight_decay=5e-4,
        p=0.1,
    )


def diff_mix_few_shot(data_set: str, arch: str, learning_rate: float | None = None) -> Settings:
    """The same for its 5-shot runs: epochs and probability of scripts/classification/classification_main_5shot.sh."""
    return replace(diff_mix(data_set, arch, learning_rate), epochs=150, p=0.3)


def diff_mix_long_tail(arch: str, learning_rate: float | None = None) -> Settings:
    """The same for its long-tail run with synthetic images (scripts/classification_imb.sh, of CUB with ResNet-50).

    With the cosine of its other runs in place of steps, and with the label smoothing of the paper.
    """
    check_text(arch=arch)
    return Settings(
        epochs=200,
        batch_size=128,
        learning_rate=_rate(arch, _LONG_TAIL_RATES, learning_rate),
        weight_decay=2e-4,
        p=0.1,
        mode="balanced",
        warmup=0.025,  # 5 of 200 epochs
    )


def _rate(arch: str, known: tuple[float, float], given: float | None) -> float:
    if given is not None:
        return given
    if not arch.startswith(("resnet", "vit")):
        raise InvalidInputError(
            f"learning rates are known for resnet* and vit* only; --arch {arch} needs --learning-rate"
        )
    return known[arch.startswith("vit")]
