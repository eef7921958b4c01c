"""Parts of a data set that never overlap: for training, for selecting the epoch, for the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from sgdmix_albu.datasets import EMBEDDED, get_dataset
from sgdmix_albu.datasets.aviary.splits import tail_counts
from sgdmix_albu.errors import DataError, InvalidInputError

__all__ = ["Part", "Parts", "few_shot", "halved_parts", "held_out", "judged_on", "long_tailed", "official_parts"]

HELD_OUT = 0.1  # assumed: share of the training images that choose the epoch where no official split does


class Part(Dataset[tuple[Any, int]]):
    """Some images of a data set, with their own transform.

    Args:
        dataset: PIL images and labels, with ``classes``, ``targets`` and ``source_keys``.
        rows: Which of its images; None for all.
        transform: Of the images.
        groups: Group of each image of ``dataset``; None for its own, if it has any.
        group_names: Their names.
    """

    def __init__(
        self,
        dataset: Any,
        rows: Sequence[int] | None = None,
        transform: Callable[[Any], Any] | None = None,
        *,
        groups: Sequence[int] | None = None,
        group_names: Sequence[str] = (),
    ) -> None:
        self.dataset, self.transform = dataset, transform
        self.rows = list(range(len(dataset)) if rows is None else rows)
        self.classes: list[str] = list(dataset.classes)
        self.targets: list[int] = [dataset.targets[row] for row in self.rows]
        self.source_keys: list[str] = [dataset.source_keys[row] for row in self.rows]
        self.paths: list[Path] | None = self._taken(getattr(dataset, "paths", None))
        self.groups: list[int] | None = self._taken(getattr(dataset, "groups", None) if groups is None else groups)
        self.group_names = tuple(group_names or getattr(dataset, "group_names", ()))

    def having(self, rows: Sequence[int]) -> Part:
        """Some of these images."""
        return Part(self, rows)

    def seen_through(self, transform: Callable[[Any], Any]) -> Part:
        """The same images, transformed."""
        return Part(self, transform=transform)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self.dataset[self.rows[index]]
        return image if self.transform is None else self.transform(image), label

    def _taken(self, values: Sequence[Any] | None) -> list[Any] | None:
        return None if values is None else [values[row] for row in self.rows]


@dataclass(frozen=True)
class Parts:
    """Training, validation and test images."""

    train: Part
    val: Part
    test: Part


def official_parts(name: str, data: str | None, *, size: int, seed: int, held: float = HELD_OUT) -> Parts:
    """A data set's own splits; where it has no validation split, one held out of the training images.

    Args:
        name: One of :func:`sgdmix_albu.datasets.list_datasets`.
        data: Its folder; None for an embedded one.
        size: Side in pixels at which an embedded one is drawn.
        seed: Of the images held out.
        held: Share of the training images to hold out where there is no validation split.

    Raises:
        InvalidInputError: A folder where none is wanted, or none where one is.
        DataError: The folder lacks something.
    """
    _check_folder(name, data)
    if name in EMBEDDED:
        return Parts(*(Part(get_dataset(name, split=split, size=size)) for split in ("train", "val", "test")))
    train, test = (Part(get_dataset(name, root=data, split=split)) for split in ("train", "test"))
    if train.dataset.has_split("val"):
        return Parts(train, Part(get_dataset(name, root=data, split="val")), test)
    return Parts(*_parted(train, held, seed), test)


def halved_parts(name: str, data: str | None, *, seed: int) -> Parts:
    """Half of all images of each class to judge, a tenth of the other half to choose the epoch, the rest to train on.

    As Diff-Mix parts Flowers (``dataset/instance/flower.py``), but for the tenth.

    Args:
        name: A data set that has all its images as the split "all".
        data: Its folder.
        seed: Of the parting.

    Raises:
        InvalidInputError: No folder.
        DataError: The folder lacks something, or a class has too few images.
    """
    _check_folder(name, data)
    rest, test = _parted(Part(get_dataset(name, root=data, split="all")), 0.5, seed)
    return Parts(*_parted(rest, HELD_OUT, seed), test)


def _check_folder(name: str, data: str | None) -> None:
    if (data is None) != (name in EMBEDDED):
        raise InvalidInputError(f"{name!r} is embedded: leave DATA out" if data else f"{name!r} needs its folder: DATA")


def _parted(part: Part, share: float, seed: int) -> tuple[Part, Part]:
    kept, away = held_out(part.targets, share, seed)
    return part.having(kept), part.having(away)


def held_out(targets: Sequence[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Rows to train on and rows held out: the share of each class, at least one image on either side.

    Raises:
        DataError: A class has one image only.

    Example:
        >>> kept, held = held_out([0] * 10 + [1] * 5, 0.2, seed=0)
        >>> len(kept), len(held)
        (12, 3)
    """
    kept, held = [], []
    for label, rows in _shuffled(targets, seed):
        if len(rows) < 2:
            raise DataError(f"class {label} has {len(rows)} image; one to train on and one to hold out are needed")
        count = min(max(round(share * len(rows)), 1), len(rows) - 1)
        held += rows[:count]
        kept += rows[count:]
    return sorted(kept), sorted(held)


def few_shot(targets: Sequence[int], shots: int, seed: int, *, kind: str) -> list[int]:
    """Rows of ``shots`` images of each class.

    Args:
        targets: Labels.
        shots: How many.
        seed: Of the choice.
        kind: What the images are for, "training" or "validation": for messages.

    Raises:
        DataError: A class has fewer.

    Example:
        >>> len(few_shot([0] * 10 + [1] * 5, 3, seed=0, kind="training"))
        6
    """
    chosen = []
    for label, rows in _shuffled(targets, seed):
        if len(rows) < shots:
            raise DataError(f"{shots} shots were requested, class {label} has {len(rows)} {kind} images")
        chosen += rows[:shots]
    return sorted(chosen)


def long_tailed(targets: Sequence[int], imbalance: float, seed: int) -> list[int]:
    """Rows of a long-tailed subset: of the k-th class, in order of their size, n * imbalance^(k / (C - 1)) images.

    The exponential profile of Cui et al. (CVPR 2019), with n the mean size of a class, as Diff-Mix (Wang et al.,
    CVPR 2024) makes CUB-LT; its released code has C - 2 in place of C - 1. At least one image of a class stays.

    Args:
        targets: Labels.
        imbalance: Rarest against commonest class, in (0, 1].
        seed: Of the choice.

    Raises:
        InvalidInputError: ``imbalance`` lies outside.

    Example:
        >>> rows = long_tailed([0] * 10 + [1] * 10 + [2] * 10, 0.1, seed=0)
        >>> [sum(row // 10 == label for row in rows) for label in range(3)]
        [10, 3, 1]
    """
    if not 0 < imbalance <= 1:
        raise InvalidInputError(f"imbalance must lie in (0, 1], got {imbalance!r}")
    classes = sorted(_shuffled(targets, seed), key=lambda each: (-len(each[1]), each[0]))
    counts = tail_counts(len(classes), len(targets) / len(classes), imbalance)
    return sorted(row for (_, rows), count in zip(classes, counts, strict=True) for row in rows[: max(count, 1)])


def _shuffled(targets: Sequence[int], seed: int) -> Iterator[tuple[int, list[int]]]:
    """Each class with its rows in random order; the order of one class follows from the seed and the label alone."""
    labels = np.asarray(targets)
    for label in np.unique(labels).tolist():
        rows = np.flatnonzero(labels == label)
        yield label, np.random.default_rng([seed, label]).permutation(rows).tolist()


def judged_on(parts: Parts, test: Part) -> Parts:
    """The same training, judged on other images of the same classes.

    Raises:
        DataError: The classes differ, or a test image has the name of one that trains or chooses the epoch: the same
            bird before another background, say.
    """
    if test.classes != parts.train.classes:
        raise DataError(
            f"the test images have {len(test.classes)} classes such as {test.classes[0]!r}, "
            f"the training images {len(parts.train.classes)} such as {parts.train.classes[0]!r}"
        )
    shared = sorted(set(test.source_keys) & {*parts.train.source_keys, *parts.val.source_keys})
    if shared:
        raise DataError(
            f"{len(shared)} of the {len(test)} test images are training or validation images too, such as {shared[0]}"
        )
    return replace(parts, test=test)
