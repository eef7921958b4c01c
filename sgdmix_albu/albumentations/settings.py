"""Settings of this face that need a closer look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sgdmix_albu.arguments import check_count, said
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.saliency.holds import modules_in

__all__ = ["check_keys", "donors_to_remember", "names_of_masks"]

_REMEMBERED = 512


def check_keys(**keys: Any) -> None:
    """Refuse keys that are no names; those of labels and samples may be None, for never."""
    for setting, key in keys.items():
        if not (isinstance(key, str) and key) and not (key is None and setting in ("label_key", "id_key")):
            raise InvalidInputError(f"{setting} must be a key of the sample and of the donors, got {said(key)}")


def names_of_masks(instance_keys: Any) -> tuple[str, ...] | None:
    """``instance_keys`` as a tuple, or None."""
    if instance_keys is None:
        return None
    fits = isinstance(instance_keys, Sequence | set | frozenset) and not isinstance(instance_keys, str)
    if not fits or not all(isinstance(name, str) for name in instance_keys):
        raise InvalidInputError(f"instance_keys must be names of mask targets or None, got {said(instance_keys)}")
    return tuple(instance_keys)


def donors_to_remember(remember: Any, candidates: int, *, uses_labels: bool, watched: Sequence[Any]) -> int:
    """How many donors to remember.

    Args:
        remember: The user's setting.
        candidates: Donors that one call may look at.
        uses_labels: Whether saliency depends on labels.
        watched: Saliency and mask, where they are objects of the user's.
    """
    if remember is None:
        return 0 if uses_labels or modules_in(list(watched)) else max(_REMEMBERED, candidates)
    check_count("remember", remember, "must be a number of donors, 0 or more, or None", least=0)
    return int(remember)
