"""``sgdmix explore``: your own images in a local page, where each setting is seen at once.

``album`` describes images when they are first looked at, ``explorer`` chooses, mixes and measures, ``lines`` writes the
code for what is set. Only ``page`` knows gradio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgdmix_albu.lazy import lazy

if TYPE_CHECKING:
    from sgdmix_albu.explore.explorer import Explorer, Look
    from sgdmix_albu.explore.page import explore
    from sgdmix_albu.explore.wishes import Choices, Given

__all__ = ["Choices", "Explorer", "Given", "Look", "explore"]

__getattr__, __dir__ = lazy(
    __name__, {".explorer": ["Explorer", "Look"], ".page": ["explore"], ".wishes": ["Choices", "Given"]}
)
