"""What is known of the images of a real data set, through any ``Subset`` around it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Subset

from sgdmix_albu.arguments import said
from sgdmix_albu.errors import InvalidInputError


class RealImages:
    """Classes, labels, keys and transforms, by the position of an image in the data set or its subset.

    Args:
        dataset: Map-style, of (image, label); or a ``torch.utils.data.Subset`` of one, at any depth.

    Attributes:
        inner: The data set inside all subsets.
        classes: Its class names.

    Raises:
        InvalidInputError: Labels come transformed, and the plain ones are unknown.
    """

    def __init__(self, dataset: Any) -> None:
        try:
            count = len(dataset)
        except TypeError:
            count = None
        if count is None or not hasattr(dataset, "__getitem__"):
            raise InvalidInputError(f"expected a map-style data set of (image, label), got {said(dataset)}")
        self._items, self.inner = dataset, dataset
        self._rows: Sequence[int] = range(count)
        while isinstance(self.inner, Subset):
            indices = self.inner.indices
            self._rows = [int(indices[row]) for row in self._rows]
            self.inner = self.inner.dataset
        self.classes: list[str] = list(getattr(self.inner, "classes", ()))
        self._targets = getattr(self.inner, "targets", None)
        if self._targets is None and getattr(self.inner, "target_transform", None) is not None:
            raise InvalidInputError(
                f"{self._kind} has a target_transform and no `targets`: its labels are already transformed, "
                "those of synthetic images are not; transform labels after the loader instead"
            )

    def label(self, index: int) -> int:
        """An image's class index, before any ``target_transform``."""
        return int(self._items[index][1] if self._targets is None else self._targets[self._rows[index]])

    def counts(self) -> dict[str, int]:
        """How many images each class has.

        Raises:
            InvalidInputError: The data set has no ``targets``; reading all images for that would take long.
        """
        if self._targets is None:
            raise InvalidInputError(f"mode='balanced' counts the labels in `targets`, which {self._kind} has not")
        found = Counter(int(self._targets[row]) for row in self._rows)
        return {name: found[label] for label, name in enumerate(self.classes)}

    def keys(self) -> list[str]:
        """Every image's key, as ``sgdmix generate`` knew it.

        Raises:
            InvalidInputError: The data set does not tell.
        """
        keys = getattr(self.inner, "source_keys", None)
        if keys is None:
            if not hasattr(self.inner, "samples") or not hasattr(self.inner, "root"):
                raise InvalidInputError(
                    f"{self._kind} does not say which file each image is; pass source_keys=, one for each "
                    "image, as sgdmix generate listed them: 'warbler/0001.jpg'"
                )
            keys = [Path(path).relative_to(self.inner.root).as_posix() for path, *_ in self.inner.samples]
        return [keys[row] for row in self._rows]

    def transformed(self, label: int) -> Any:
        """A class index as the data set's own items have it."""
        change = getattr(self.inner, "target_transform", None)
        return label if change is None else change(label)

    @property
    def _kind(self) -> str:
        return type(self.inner).__name__
