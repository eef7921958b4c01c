"""What is looked at before hours of training: does the model take such images, are the synthetic ones no leak?"""

from __future__ import annotations

import copy
import hashlib

import torch
from torch import Tensor, nn

from sgdmix_albu.datasets.tree import content_of
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.recipes.parts import Part
from sgdmix_albu.synthetic import SyntheticPool

__all__ = ["check_made_of", "check_model"]


def check_model(model: nn.Module, arch: str, *, size: int, classes: int, device: torch.device) -> None:
    """Try a classifier, on a copy: some take images of one size only, some give more than scores while they train.

    Raises:
        InvalidInputError: It refuses, or gives something else.
    """
    images = torch.zeros(2, 3, size, size, device=device)
    for training in (False, True):
        try:
            with torch.no_grad():
                scores = copy.deepcopy(model).train(training)(images)
        # Each model has its own way to refuse.
        except Exception as error:
            raise InvalidInputError(f"{arch} does not take images of {size} pixels: {error}") from error
        if not isinstance(scores, Tensor) or scores.shape != (2, classes):
            found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise InvalidInputError(
                f"{arch} gives {found} for two images{' in training' if training else ''}, expected scores of shape "
                f"(2, {classes})"
            )


def check_made_of(pool: SyntheticPool, train: Part) -> None:
    """Refuse synthetic images of other photographs than the training images: they may be validation or test images.

    Names do not tell: the splits of a folder may share them, and so do drawn images of other kinds.

    Args:
        pool: The synthetic images.
        train: The training images, PIL.

    Raises:
        DataError: A source or target is another image, by its name or by its content.
    """
    advice = "Expand what --write-train writes with the same options"
    row_of = {key: row for row, key in enumerate(train.source_keys)}
    strangers = sorted(pool.sha256.keys() - row_of.keys())
    if strangers:
        raise DataError(
            f"{pool.out} was made from {len(strangers)} images that are not among the training images, such as "
            f"{strangers[0]}: they may be validation or test images. {advice}"
        )
    for key, sha256 in Progress().over(pool.sha256.items(), "comparing", len(pool.sha256)):
        if hashlib.sha256(content_of(train, row_of[key])).hexdigest() != sha256:
            raise DataError(
                f"{pool.out} was made from another {key} than the training image of that name: it may be a validation "
                f"or test image. {advice}"
            )
