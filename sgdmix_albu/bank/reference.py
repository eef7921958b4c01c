"""The reference: a better backend, whose masks others are compared with, so that doubtful images can be left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sgdmix_albu.arguments import check_number, check_text
from sgdmix_albu.bank.describe import Maps
from sgdmix_albu.bank.map_source import open_saliency
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.described import describe
from sgdmix_albu.mixing.masks import get_mask
from sgdmix_albu.saliency.resolve import DISTILLED, SERVED
from sgdmix_albu.settings import SaliencySettings
from sgdmix_albu.types import BEST_MASK, BEST_SALIENCY

_SEGMENTERS = ("rembg", "text")


def check_agreement(min_agreement: float, agreement_with: str, saliency: str) -> None:
    """Refuse settings that mean nothing.

    Raises:
        InvalidInputError: ``min_agreement`` outside [0, 1], or a backend that would judge itself, or one that may
            be better than the default judge.
    """
    check_number("min_agreement", min_agreement, "must lie in [0, 1]", low=0, high=1)
    check_text(agreement_with=agreement_with)
    if min_agreement > 0 and agreement_with == saliency:
        raise InvalidInputError(
            f"min_agreement compares masks with those of a better backend, and {saliency!r} is both: "
            "name the better one as agreement_with (--agreement)"
        )
    may_be_better = saliency in _SEGMENTERS or saliency.startswith(SERVED) or saliency.endswith(DISTILLED)
    if min_agreement > 0 and agreement_with == BEST_SALIENCY and may_be_better:
        raise InvalidInputError(
            f"nothing says that {agreement_with!r}, the default judge, is better than {saliency!r}: name one "
            "that is as agreement_with (--agreement)"
        )


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
    doubtful: NDArray[np.bool_] = ~(agreement >= min_agreement) if min_agreement > 0 else np.zeros(len(agreement), bool)
    return doubtful
