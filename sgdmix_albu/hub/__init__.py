"""The Hugging Face hub: push a refiner or an expanded set with its card, pull an expanded set at a commit.

A refiner is pulled by :func:`sgdmix_albu.refine.get_refiner`: ``get_refiner("owner/name", revision=COMMIT)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgdmix_albu.lazy import lazy

if TYPE_CHECKING:
    from sgdmix_albu.hub.pull import pull_expanded
    from sgdmix_albu.hub.push import push_to_hub

__all__ = ["pull_expanded", "push_to_hub"]

__getattr__, __dir__ = lazy(__name__, {".pull": ["pull_expanded"], ".push": ["push_to_hub"]})
