"""What a sample tells besides pictures, and where the user says that it stands: labels, saliency maps, sample ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor
from torchvision import tv_tensors

from sgdmix_albu.arguments import said
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.saliency.given import SaliencyMap

Getter: TypeAlias = Callable[[Any], Any]


def check_getters(labels_getter: Any, saliency_getter: Any, key_getter: Any) -> None:
    """Refuse what cannot find a thing in a sample."""
    default = isinstance(labels_getter, str) and labels_getter == "default"
    if labels_getter is not None and not callable(labels_getter) and not default:
        raise InvalidInputError(f"labels_getter must be 'default', a callable or None, got {said(labels_getter)}")
    if saliency_getter is not None and not callable(saliency_getter):
        raise InvalidInputError(f"saliency_getter must be a callable or None, got {said(saliency_getter)}")
    if key_getter is not None and not isinstance(key_getter, str) and not callable(key_getter):
        raise InvalidInputError(f"key_getter must be a key, a callable or None, got {said(key_getter)}")


def labels_in(sample: Any, getter: Any) -> Any:
    """The labels, or None."""
    if getter == "default":
        return default_labels(sample)
    return None if getter is None else getter(sample)


def default_labels(sample: Any) -> Any:
    """Torchvision's default for ``CutMix``: the second argument, or the value of the first key with "label".

    Where torchvision raises because there are no labels, there are none here: few uses need them. Lists and numpy
    arrays of numbers are found too.
    """
    if isinstance(sample, tuple | list):
        sample = sample[1] if len(sample) > 1 else None
    if isinstance(sample, Mapping):
        names = [key for key in sample if isinstance(key, str) and "label" in key.lower()]
        names.sort(key=lambda key: key.lower() != "labels")
        return next((sample[key] for key in names if _may_be_labels(sample[key])), None)
    return sample if _may_be_labels(sample) else None


def _may_be_labels(value: Any) -> bool:
    if isinstance(value, Tensor | np.ndarray):
        return not isinstance(value, tv_tensors.TVTensor) and value.ndim in (1, 2)
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], int | float | np.number)


def keys_in(sample: Any, getter: Any) -> Any:
    """Which sample each image is, or None where the user does not say where that stands."""
    if getter is None or callable(getter):
        return None if getter is None else getter(sample)
    parts = [sample, *sample] if isinstance(sample, tuple | list) else [sample]
    holders = [part for part in parts if isinstance(part, Mapping)]
    found = next((part[getter] for part in holders if getter in part), None)
    if found is None:
        keys = sorted({str(key) for part in holders for key in part})
        raise InvalidInputError(
            f"key_getter={getter!r} found no such key in the input; it has {', '.join(keys) or 'no keys'}"
        )
    return found


def maps_in(sample: Any, flat: list[Any], getter: Getter | None) -> Tensor | None:
    """Saliency maps that travel with the sample, or None.

    Args:
        sample: The input of the transform.
        flat: Its leaves.
        getter: The user's.
    """
    if getter is not None:
        found = getter(sample)
    else:
        found = next((leaf for leaf in flat if isinstance(leaf, SaliencyMap)), None)
        if found is None and isinstance(sample, Mapping):
            found = sample.get("saliency")
    if found is not None and not isinstance(found, Tensor):
        raise InvalidInputError(f"given saliency must be a (B, H, W) tensor, got {type(found).__name__}")
    return found
