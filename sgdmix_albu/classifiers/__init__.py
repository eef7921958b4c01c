"""Classifiers that look at images for us.

``weights`` (a file as data, never unpickled), ``architectures`` (the network that the weights fit), ``judge`` (what it
expects of pixels, and which output stands for which class), ``small`` (one that is trained on the spot).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgdmix_albu.lazy import lazy

if TYPE_CHECKING:
    from sgdmix_albu.classifiers.architectures import (
        Classifier,
        load_classifier,
        new_classifier,
        open_classifier,
        save_classifier,
        standardized,
    )
    from sgdmix_albu.classifiers.judge import Judge, Normalize, open_judge
    from sgdmix_albu.classifiers.weights import Checkpoint, read_checkpoint

__all__ = [
    "Checkpoint",
    "Classifier",
    "Judge",
    "Normalize",
    "load_classifier",
    "new_classifier",
    "open_classifier",
    "open_judge",
    "read_checkpoint",
    "save_classifier",
    "standardized",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        ".architectures": [
            "Classifier",
            "load_classifier",
            "new_classifier",
            "open_classifier",
            "save_classifier",
            "standardized",
        ],
        ".judge": ["Judge", "Normalize", "open_judge"],
        ".weights": ["Checkpoint", "read_checkpoint"],
    },
)
