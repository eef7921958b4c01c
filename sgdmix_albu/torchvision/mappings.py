"""Mappings that torch's pytree takes for leaves, such as the batches of Hugging Face processors: opened and closed."""

from __future__ import annotations

import copy
from collections.abc import MutableMapping
from typing import Any

from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten


def opened(sample: Any) -> Any:
    """The sample with a plain dictionary in the place of each mapping that pytree does not look into."""
    return tree_map(lambda leaf: opened(dict(leaf)) if isinstance(leaf, MutableMapping) else leaf, sample)


def closed(like: Any, content: Any) -> Any:
    """The inverse of :func:`opened`.

    Args:
        like: The sample as it was before.
        content: What became of it when it was opened.

    Returns:
        The content, in mappings of the types that ``like`` has; ``like`` itself is not changed.
    """
    leaves, spec = tree_flatten(like)
    parts = spec.flatten_up_to(content)
    filled = [
        _filled(leaf, part) if isinstance(leaf, MutableMapping) else part
        for leaf, part in zip(leaves, parts, strict=True)
    ]
    return tree_unflatten(filled, spec)


def _filled(like: MutableMapping[Any, Any], content: dict[Any, Any]) -> MutableMapping[Any, Any]:
    filled = copy.copy(like)
    for key, part in content.items():
        filled[key] = closed(like[key], part)
    return filled
