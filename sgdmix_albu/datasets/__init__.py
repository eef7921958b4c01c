"""Datasets by name, imported when first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from sgdmix_albu.registry import Registry

if TYPE_CHECKING:
    from sgdmix_albu.datasets.aviary import Aviary
    from sgdmix_albu.datasets.photographs import Photographs

__all__ = ["EMBEDDED", "get_dataset", "list_datasets"]

EMBEDDED = ("aviary",)  # drawn, not read: these need no folder

_DATASETS = Registry("dataset")
for _name, _home in (
    ("aircraft", "aircraft:Aircraft"),
    ("aviary", "aviary:Aviary"),
    ("cars", "cars:Cars"),
    ("cub", "cub:CUB"),
    ("flowers", "flowers:Flowers"),
    ("folders", "folders:Folders"),
    ("pets", "pets:Pets"),
    ("waterbirds", "waterbirds:Waterbirds"),
):
    _DATASETS.register(_name, f"sgdmix_albu.datasets.{_home}")


def list_datasets() -> list[str]:
    """Names that `get_dataset` knows, sorted.

    Example:
        >>> list_datasets()
        ['aircraft', 'aviary', 'cars', 'cub', 'flowers', 'folders', 'pets', 'waterbirds']
    """
    return _DATASETS.names()


@overload
def get_dataset(name: Literal["aviary"], **options: Any) -> Aviary: ...


@overload
def get_dataset(
    name: Literal["aircraft", "cars", "cub", "flowers", "folders", "pets", "waterbirds"], **options: Any
) -> Photographs: ...


@overload
def get_dataset(name: str, **options: Any) -> Aviary | Photographs: ...


def get_dataset(name: str, **options: Any) -> Aviary | Photographs:
    """Make a dataset.

    Args:
        name: One of `list_datasets()`.
        options: Arguments of the dataset: ``root`` and ``split`` for all that are read from a folder.

    Returns:
        Map-style, of ``(PIL image, label)``; with ``classes``, ``class_to_idx``, ``targets`` and ``source_keys``.

    Raises:
        UnknownNameError: No dataset of that name; the nearest names are suggested.
        InvalidInputError: An option is outside its range.
        DataError: The folder lacks something; the message names it.

    Example:
        >>> get_dataset("aviary", split="test", species=2, per_species=3)
        Aviary('test', species=2, images=6, size=64, layout='balanced', correlation=0.0, seed=0)
    """
    made: Aviary | Photographs = _DATASETS.load(name)(**options)
    return made
