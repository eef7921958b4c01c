"""Any labelled data set as class names, labels and images: torchvision's, Hugging Face's, parts and chains of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import ConcatDataset, Subset

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.labels import class_ids

# Where data sets keep the labels of all their images: this package's and CIFAR's, Aircraft's and Flowers', STL-10's.
_LABELS = ("targets", "_labels", "labels")
_PAIRS = ("samples", "_samples")  # lists of (path, label): Stanford Cars


@dataclass(frozen=True)
class Labelled:
    """What training needs of a data set.

    Attributes:
        classes: Class names in the order of their labels.
        labels: Of each image, 0 to K - 1.
        image: Row to image, as the data set gives it.
    """

    classes: tuple[str, ...]
    labels: list[int]
    image: Callable[[int], Any]


def labelled(data: Any) -> Labelled:
    """Find classes, labels and images without reading an image.

    Args:
        data: A map-style data set of (image, label, ...) with ``classes`` and its labels in ``targets``, ``labels``,
            ``_labels``, ``samples`` or ``_samples``, as torchvision's and this package's have; a
            ``datasets.Dataset`` with one ``Image`` and one ``ClassLabel`` column; or a ``torch.utils.data`` ``Subset``
            or ``ConcatDataset`` of such.

    Raises:
        InvalidInputError: Nothing of the kind, or labels and classes do not agree.

    Example:
        >>> from torch.utils.data import Subset
        >>> class Birds(list):
        ...     classes, targets = ["owl", "tit"], [0, 0, 1]
        >>> part = labelled(Subset(Birds([("a", 0), ("b", 0), ("c", 1)]), [2, 0]))
        >>> part.labels, part.image(0)
        ([1, 0], 'c')
    """
    if isinstance(data, Subset):
        whole, rows = labelled(data.dataset), list(map(int, data.indices))
        return Labelled(whole.classes, [whole.labels[row] for row in rows], lambda row: whole.image(rows[row]))
    if isinstance(data, ConcatDataset):
        return _chained([labelled(part) for part in data.datasets])
    kind = type(data).__name__
    found = _of_columns(data) if hasattr(data, "features") and hasattr(data, "column_names") else _of_lists(data, kind)
    wrong = [label for label in found.labels if not 0 <= label < len(found.classes)]
    if wrong:
        raise InvalidInputError(
            f"{kind} has {len(found.classes)} classes, labels 0 to {len(found.classes) - 1}; got label {wrong[0]}"
        )
    return found


def _of_lists(data: Any, kind: str) -> Labelled:
    """One of torchvision's or this package's, or another that keeps its labels as they do."""
    found = _labels(data)
    if found is None or not hasattr(data, "__getitem__"):
        raise InvalidInputError(
            "expected a folder, a data set with classes and targets, a datasets.Dataset, or a Subset or ConcatDataset "
            f"of such, got {kind}"
        )
    labels = class_ids(found, len(found), name=f"the labels of {kind}").tolist() if len(found) else []
    names = getattr(data, "classes", None)
    classes = map(str, range(max(labels, default=-1) + 1) if names is None else names)
    return Labelled(tuple(classes), labels, lambda row: data[row][0])


def _labels(data: Any) -> Sequence[Any] | None:
    for name in _LABELS:
        found = getattr(data, name, None)
        if found is not None and hasattr(found, "__len__"):
            return found  # type: ignore[no-any-return]
    for name in _PAIRS:
        pairs = getattr(data, name, None)
        if isinstance(pairs, Sequence):
            return [pair[1] for pair in pairs]
    return None


def _of_columns(data: Any) -> Labelled:
    """A Hugging Face data set."""
    columns: dict[str, list[str]] = {"Image": [], "ClassLabel": []}
    for name, feature in data.features.items():
        columns.setdefault(type(feature).__name__, []).append(name)
    if len(columns["Image"]) != 1 or len(columns["ClassLabel"]) != 1:
        raise InvalidInputError(
            "expected a datasets.Dataset with one Image and one ClassLabel column, got "
            + ", ".join(f"{name} ({type(feature).__name__})" for name, feature in data.features.items())
            + "; a column of texts becomes classes by data.class_encode_column(name)"
        )
    (picture,), (label,) = columns["Image"], columns["ClassLabel"]
    return Labelled(tuple(data.features[label].names), list(data[label]), lambda row: data[row][picture])


def _chained(parts: Sequence[Labelled]) -> Labelled:
    if len({part.classes for part in parts}) != 1:
        raise InvalidInputError(
            "expected the parts of a ConcatDataset to have the same classes, got "
            + " and ".join(f"{len(part.classes)} ({', '.join(part.classes[:3])}, ...)" for part in parts[:3])
        )
    places = [(part, row) for part in parts for row in range(len(part.labels))]
    labels = [part.labels[row] for part, row in places]
    return Labelled(parts[0].classes, labels, lambda row: places[row][0].image(places[row][1]))
