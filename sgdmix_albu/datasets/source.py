"""What there is to read: a class-per-folder tree or an embedded data set, one interface."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Protocol

from sgdmix_albu.datasets import EMBEDDED, get_dataset, list_datasets
from sgdmix_albu.datasets.tree import content_of
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.io.images import IMAGE_SUFFIXES, class_folders, files_below, is_hidden, list_images
from sgdmix_albu.io.places import local_path
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.printable import printable

__all__ = ["Item", "Reader", "Skipped", "Source", "ignored_lines", "open_reader", "open_source"]

_EMBEDDED_SIZE = 224


class Reader(Protocol):
    """Where the images of a set are: a :class:`Storage`, or what draws them."""

    def read(self, key: str) -> bytes:
        """An image's file.

        Raises:
            DataError: There is none, or it cannot be read.
        """
        ...

    def path(self, key: str) -> str:
        """What messages call it."""
        ...


@dataclass(frozen=True, slots=True)
class Item:
    """One image that may be read.

    Attributes:
        key: Its name in the set, ``"warbler/0001.jpg"``.
        class_name: Its label.
        label: Index of the label among the set's classes.
        reader: Reads any image of the set.
        sha256: What its file must be, in hexadecimal; None for any.
    """

    key: str
    class_name: str
    label: int
    reader: Reader
    sha256: str | None = None


@dataclass(frozen=True)
class Skipped:
    """An image that is not in the output, and why."""

    key: str
    reason: str

    def __str__(self) -> str:
        return printable(f"{self.key}: {self.reason}")


@dataclass(frozen=True)
class Source:
    """A set of labelled images, listed but not read.

    Attributes:
        name: What the user calls it.
        items: What may be read, in the order of the set.
        class_names: Label index to name, as torchvision's ImageFolder counts them.
        skipped: Image files that have no place in the set.
        ignored: Other files found there: what they are, and how many.
    """

    name: str
    items: list[Item]
    class_names: list[str]
    skipped: list[Skipped]
    ignored: Counter[str]

    def thinned(self, limit: int | None) -> Source:
        """At most ``limit`` items, spread evenly over the set."""
        total = len(self.items)
        if limit is None or limit >= total:
            return self
        return replace(self, items=[self.items[k * total // limit] for k in range(limit)])


def open_source(data: str | os.PathLike[str] | None, dataset: str | None = None, *, size: int | None = None) -> Source:
    """List a folder or an embedded data set.

    Args:
        data: A class-per-folder image tree or its URL; None with ``dataset``.
        dataset: Name of an embedded data set ("aviary"); None with ``data``.
        size: Side in pixels at which an embedded data set is drawn.

    Raises:
        InvalidInputError: Both or none of ``data`` and ``dataset``, or one that is read from a folder of its own.
        UnknownNameError: No such embedded data set.
        DataError: No such folder, or no image in a class folder.
    """
    if (data is None) == (dataset is None):
        raise InvalidInputError(f"expected either data or dataset, got data={data!r} and dataset={dataset!r}")
    if dataset is None:
        folder = local_path(str(data))
        return _remote(str(data)) if folder is None else _folder(folder)
    if dataset in list_datasets() and dataset not in EMBEDDED:
        raise InvalidInputError(
            f"{dataset!r} is not embedded: write its photographs as a class-per-folder tree with "
            "sgdmix_albu.datasets.tree.write_tree, or with --write-train of a recipe, and give that folder"
        )
    return _embedded(dataset, size or _EMBEDDED_SIZE)


def open_reader(data: str | os.PathLike[str] | None, dataset: str | None = None, *, size: int | None = None) -> Reader:
    """Read images by key without listing them, where the listing was done elsewhere; arguments as before."""
    return _Drawn(str(dataset), size or _EMBEDDED_SIZE) if data is None else Storage(local_path(data) or data)


def ignored_lines(ignored: Counter[str]) -> Iterator[str]:
    """What a summary says of :attr:`Source.ignored`: a line, or none."""
    if ignored:
        kinds = printable(", ".join(f"{count} {kind}" for kind, count in sorted(ignored.items())))
        yield f"ignored  {ignored.total()} files that are no images: {kinds}"


def _remote(url: str) -> Source:
    """As :func:`_folder`, by names alone: an object store has no folders, so none that are empty."""
    names = sorted(Storage(url).sizes())
    hidden = {name for name in names if any(map(is_hidden, name.split("/")))}
    classes = sorted({name.partition("/")[0] for name in names if "/" in name and name not in hidden})
    images = [name for name in names if "/" in name and name not in hidden and _suffix(name) in IMAGE_SUFFIXES]
    listed = [name for name in images if str(PurePosixPath(name)) == name]  # a key may be "owl//1.png", a path may not
    if not listed:
        raise DataError(f"found no image in a class folder of {url}")
    label_of = {name: label for label, name in enumerate(classes)}
    reader = open_reader(url)
    items = [Item(name, name.partition("/")[0], label_of[name.partition("/")[0]], reader) for name in listed]
    loose, ignored = _others(names, set(images))
    odd = [Skipped(name, "its name is not a path") for name in images if str(PurePosixPath(name)) != name]
    return Source(url, items, classes, odd + _without_label(loose), ignored)


def _folder(root: Path) -> Source:
    items, skipped = [], []
    reader = open_reader(root)
    entries = list_images(root)
    for entry in entries:
        if _printable(entry.key):
            items.append(Item(entry.key, entry.class_name, entry.label, reader))
        else:
            skipped.append(Skipped(entry.key, "its name is not valid UTF-8"))
    names = (path.relative_to(root).as_posix() for path in files_below(root, hidden=True))
    loose, ignored = _others(names, {entry.key for entry in entries})
    return Source(str(root), items, class_folders(root), skipped + _without_label(loose), ignored)


def _printable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _others(names: Iterable[str], listed: set[str]) -> tuple[list[str], Counter[str]]:
    """Images outside the class folders, and a count of every other file that is not listed."""
    loose: list[str] = []
    ignored: Counter[str] = Counter()
    for key in names:
        if key in listed:
            continue
        hidden = any(map(is_hidden, key.split("/")))
        if "/" not in key and _suffix(key) in IMAGE_SUFFIXES and not hidden:
            loose.append(key)
        else:
            ignored["hidden" if hidden else _suffix(key) or "no suffix"] += 1
    return sorted(loose), ignored


def _without_label(loose: Iterable[str]) -> list[Skipped]:
    return [Skipped(key, "it lies in no class folder, so it has no label") for key in loose]


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _embedded(name: str, size: int) -> Source:
    reader = _Drawn(name, size)
    classes = list(reader.images.classes)
    items = [
        Item(key, classes[label], label, reader) for key, label in zip(reader.rows, reader.images.targets, strict=True)
    ]
    return Source(f"{name} (embedded)", items, classes, [], Counter())


class _Drawn:
    """The images of an embedded data set, under the names that their files would have."""

    def __init__(self, name: str, size: int) -> None:
        self.images = get_dataset(name, split="train", size=size)
        self.rows = {key: row for row, key in enumerate(self.images.source_keys)}

    def read(self, key: str) -> bytes:
        if key not in self.rows:
            raise DataError(f"the embedded data set has no image {key}")
        return content_of(self.images, self.rows[key])

    def path(self, key: str) -> str:
        return key
