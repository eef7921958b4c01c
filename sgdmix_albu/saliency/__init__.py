"""Stage 1: images to saliency maps.

Backends are asked for by name and imported when first used; see :func:`list_backends`.
"""

from __future__ import annotations
