"""The reference: a better backend, whose masks others are compared with, so that doubtful images can be left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sgdmix_albu.bank.describe import Maps
from sgdmix_albu.bank.map_source import open_saliency
from sgdmix_albu.mixing.described import describe
from sgdmix_albu.mixing.masks import get_mask
from sgdmix_albu.settings import SaliencySettings
from sgdmix_albu.types import BEST_MASK


def open_reference(name: str, classes: Sequence[str]) -> tuple[Maps, dict[str, Any]]:
    """The reference backend as a function to (B, H, W) bool masks, and what to note of it beside its name.

    The function takes (B, 3, H, W) uint8 images, (B,) labels, and the SHA-256 of the images' files.

    Raises:
        UnknownNameError: No such backend.
        InvalidInputError: It needs options, as those do that look through a classifier.
    """
    source, preset = open_saliency(SaliencySettings(name), classes), get_mask(BEST_MASK)

    def reference(images: Tensor, labels: Tensor, digests: Sequence[bytes]) -> Tensor:
        return describe(source(images, labels, digests), images, preset).masks

    options = source.noted.get("saliency_options")
    return reference, {"agreement_options": options} if options else {}


def doubted(agreement: NDArray[np.float32], min_agreement: float) -> NDArray[np.bool_]:
    """Which images are doubtful: also those in which the reference finds nothing (NaN).

    Example:
        >>> doubted(np.array([0.75, 0.5, np.nan], np.float32), 0.75)
        array([False,  True,  True])
        >>> doubted(np.array([np.nan], np.float32), 0)
        array([False])
    """
    return ~(agreement >= min_agreement) if min_agreement > 0 else np.zeros(len(agreement), bool)
