"""Classifiers that look at images for us.

``weights`` (a file as data, never unpickled), ``loading`` (the network by name that they fit), ``judge`` (what it
expects of pixels, and which output stands for which class), ``small`` (one that is trained on the spot), ``untouched``
(how it is used without a trace).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgdmix_albu.lazy import lazy

if TYPE_CHECKING:
    from sgdmix_albu.classifiers.judge import Judge, open_judge
    from sgdmix_albu.classifiers.loading import Classifier, new_classifier, open_classifier, save_classifier
    from sgdmix_albu.classifiers.weights import Checkpoint, read_checkpoint

__all__ = [
    "Checkpoint",
    "Classifier",
    "Judge",
    "new_classifier",
    "open_classifier",
    "open_judge",
    "read_checkpoint",
    "save_classifier",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        ".judge": ["Judge", "open_judge"],
        ".loading": ["Classifier", "new_classifier", "open_classifier", "save_classifier"],
        ".weights": ["Checkpoint", "read_checkpoint"],
    },
)
