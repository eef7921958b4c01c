"""Batches on a device without float64, such as Apple's: mixed on the CPU, and brought back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._pytree import tree_flatten, tree_unflatten

from sgdmix_albu.devices import exact
from sgdmix_albu.torchvision.mappings import closed, opened


def exactly(mix: Callable[[tuple[Any, ...]], Any], inputs: tuple[Any, ...]) -> Any:
    """What ``mix`` makes of the inputs, computed where there is float64.

    Args:
        mix: Gives back what it is given, mixed, in the same structure.
        inputs: Its arguments; tensors on a device without float64 are on it in the result too.
    """
    sample = inputs[0] if len(inputs) == 1 else inputs
    given, spec = tree_flatten(opened(sample))
    brought = [exact(leaf) for leaf in given]
    if all(new is old for new, old in zip(brought, given, strict=True)):
        return mix(inputs)
    mixed, _ = tree_flatten(mix((tree_unflatten(brought, spec),)))
    back = [
        old if new is left else new.to(old.device) if left is not old else new
        for old, left, new in zip(given, brought, mixed, strict=True)
    ]
    return closed(sample, tree_unflatten(back, spec))
