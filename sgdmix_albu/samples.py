"""Finding one's way in a torchvision sample: labels, images and masks in any nested structure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import PIL.Image
from torch import Tensor
from torchvision import tv_tensors

from sgdmix_albu.errors import InvalidInputError, InvalidTypeError
from sgdmix_albu.saliency.given import SaliencyMap

__all__ = ["check_leaves", "default_labels", "mixable"]


def default_labels(sample: Any) -> Tensor | None:
    """Torchvision's default for ``CutMix``: the second argument, or the value of the first key with "label".

    Where torchvision raises because there are no labels, there are none here: few uses need them.
    """
    if isinstance(sample, tuple | list):
        sample = sample[1] if len(sample) > 1 else None
    if isinstance(sample, Mapping):
        names = [key for key in sample if isinstance(key, str) and "label" in key.lower()]
        exact = [key for key in names if key.lower() == "labels"]
        sample = sample[(exact or names)[0]] if names else None
    is_label = isinstance(sample, Tensor) and not isinstance(sample, tv_tensors.TVTensor) and sample.ndim in (1, 2)
    return sample if is_label else None


def mixable(flat: list[Any], labels: Tensor | None, maps: Tensor | None) -> list[int]:
    """Places of the tensors to mix, the image first: every Image, or else the first pure tensor; every Mask."""
    if any(isinstance(leaf, PIL.Image.Image) for leaf in flat):
        raise InvalidInputError("SGDMix() works on batches and does not support PIL images; use v2.PILToTensor()")
    if any(isinstance(leaf, tv_tensors.Video) for leaf in flat):
        raise InvalidInputError("SGDMix() does not support videos; expected batches of images (B, C, H, W)")
    images = [i for i, leaf in enumerate(flat) if isinstance(leaf, tv_tensors.Image)]
    if not images:
        pure = (
            i
            for i, leaf in enumerate(flat)
            if isinstance(leaf, Tensor)
            and not isinstance(leaf, tv_tensors.TVTensor)
            and leaf is not labels
            and leaf is not maps
        )
        images = list(pure)[:1]
    if not images:
        kinds = sorted({type(leaf).__name__ for leaf in flat})
        raise InvalidTypeError(f"No image was found in the sample; it holds {', '.join(kinds) or 'nothing'}.")
    masks = [
        i
        for i, leaf in enumerate(flat)
        if isinstance(leaf, tv_tensors.Mask) and not isinstance(leaf, SaliencyMap) and leaf is not maps
    ]
    return images + masks


def check_leaves(leaves: list[Any], labels: Tensor | None) -> None:
    """Refuse a batch whose tensors do not belong together, in the words of torchvision's ``CutMix``."""
    images = leaves[0]
    if images.ndim != 4:
        raise InvalidInputError(
            f"Expected a batched input with 4 dims (B, C, H, W), but got {images.ndim} dimensions "
            f"{tuple(images.shape)} instead."
        )
    for leaf in leaves[1:]:
        if leaf.ndim < 3 or leaf.shape[0] != images.shape[0] or leaf.shape[-2:] != images.shape[-2:]:
            raise InvalidInputError(
                f"Expected every image and mask of the batch to be ({len(images)}, ..., {images.shape[-2]}, "
                f"{images.shape[-1]}) like the first image, but got {type(leaf).__name__} {tuple(leaf.shape)}."
            )
    if labels is not None and (labels.ndim not in (1, 2) or labels.shape[0] != images.shape[0]):
        raise InvalidInputError(
            f"Expected labels of shape (batch_size,) or (batch_size, num_classes) with batch_size "
            f"{len(images)}, but got {tuple(labels.shape)}."
        )
