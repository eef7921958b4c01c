"""Datasets by name, imported when first asked for."""

from __future__ import annotations

from typing import Any

from sgdmix_albu.registry import Registry

__all__ = ["get_dataset", "list_datasets"]

_DATASETS = Registry("dataset")
_DATASETS.register("aviary", "sgdmix_albu.datasets.aviary:Aviary")


def list_datasets() -> list[str]:
    """Names that `get_dataset` knows, sorted.

    Example:
        >>> list_datasets()
        ['aviary']
    """
    return _DATASETS.names()


def get_dataset(name: str, **options: Any) -> Any:
    """Make a dataset.

    Args:
        name: One of `list_datasets()`.
        options: The dataset's own arguments.

    Returns:
        A map-style dataset of ``(PIL image, label)`` with ``classes``, ``class_to_idx`` and ``targets``.

    Raises:
        UnknownNameError: No dataset of that name; the nearest names are suggested.
        InvalidInputError: An option is outside its range.

    Example:
        >>> get_dataset("aviary", split="test", species=2, per_species=3)
        Aviary('test', species=2, images=6, size=64, layout='balanced', correlation=0.0, seed=0)
    """
    return _DATASETS.load(name)(**options)
