"""What there is to read, listed once for all commands: a class-per-folder tree, its URL, or an embedded data set."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from PIL import Image

from sgdmix_albu.datasets import EMBEDDED, get_dataset, list_datasets
from sgdmix_albu.datasets.tree import as_png
from sgdmix_albu.datasets.truth import MaskFolder, TrueMasks
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.io.images import IMAGE_SUFFIXES, class_folders, files_below, is_hidden, list_images
from sgdmix_albu.io.places import local_path
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.printable import printable

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
        class_name: Its label; empty where images have none.
        label: Index of the label among the set's classes; 0 where there are none.
        reader: Reads any image of the set.
        sha256: What its file must be, in hexadecimal; None for any.
    """

    key: str
    class_name: str
    label: int
    reader: Reader
    sha256: str | None = None

    @property
    def file(self) -> Path | None:
        """Its file; None where it is drawn, or lies on another machine."""
        reader = self.reader
        return Path(reader.path(self.key)) if isinstance(reader, Storage) and reader.local else None


@dataclass(frozen=True)
class Skipped:
    """An image that is not in the output, and why."""

    key: str
    reason: str

    def __str__(self) -> str:
        return printable(f"{self.key}: {self.reason}")


@dataclass(frozen=True)
class Source:
    """A set of images, listed but not read.

    Each folder of the first level is a class, with images in it or without, in sorted order: torchvision's ImageFolder
    counts alike, and so does a classifier that was trained there. An object store has no folders: there, a class is
    what has a file. Hidden folders are none.

    Attributes:
        name: What the user calls it.
        items: What may be read, in the order of the set.
        class_names: Label index to name; empty where images have no classes.
        skipped: Image files that have no place in the set.
        ignored: Other files found there: what they are, and how many.
        truth: True masks of the items, where there are any.
    """

    name: str
    items: list[Item]
    class_names: list[str]
    skipped: list[Skipped]
    ignored: Counter[str]
    truth: TrueMasks | None = None

    def thinned(self, limit: int | None) -> Source:
        """At most ``limit`` items, spread evenly over the set."""
        total = len(self.items)
        if limit is None or limit >= total:
            return self
        return replace(self, items=[self.items[k * total // limit] for k in range(limit)])


def open_source(
    data: str | os.PathLike[str] | None,
    dataset: str | None = None,
    *,
    size: int | None = None,
    flat: bool = False,
    masks: str | os.PathLike[str] | None = None,
) -> Source:
    """List a folder or an embedded data set.

    Args:
        data: A class-per-folder image tree or its URL; None with ``dataset``.
        dataset: Name of an embedded data set ("aviary"), which brings its own true masks; None with ``data``.
        size: Side in pixels at which an embedded data set is drawn.
        flat: Where no image lies in a class folder, take those of the folder itself, without classes.
        masks: Folder of true masks: for ``owl/1.jpg`` the file ``owl/1.png``, object light, background dark. Images
            without a mask are left out.

    Raises:
        InvalidInputError: Both or none of ``data`` and ``dataset``, ``masks`` with ``dataset``, or a data set that is
            read from a folder of its own.
        UnknownNameError: No such embedded data set.
        DataError: No such folder, no image in a class folder, or none that has a mask.
    """
    if (data is None) == (dataset is None):
        raise InvalidInputError(f"expected either data or dataset, got data={data!r} and dataset={dataset!r}")
    if dataset is None:
        folder = local_path(str(data))
        source = _remote(str(data)) if folder is None else _folder(folder, flat)
        return source if masks is None else _with_masks(source, MaskFolder(Path(masks).expanduser()))
    if masks is not None:
        raise InvalidInputError(f"dataset {dataset!r} brings its own true masks; leave masks out")
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


def _folder(root: Path, flat: bool) -> Source:
    try:
        entries = list_images(root)
    except DataError:
        found = _flat(root) if flat and root.is_dir() else None
        if found is None or not found.items:
            raise
        return found
    reader = open_reader(root)
    items, odd = _readable(Item(entry.key, entry.class_name, entry.label, reader) for entry in entries)
    names = (path.relative_to(root).as_posix() for path in files_below(root, hidden=True))
    loose, ignored = _others(names, {entry.key for entry in entries})
    return Source(str(root), items, class_folders(root), odd + _without_label(loose), ignored)


def _flat(root: Path) -> Source:
    reader = open_reader(root)
    images, ignored = _others((path.name for path in root.iterdir() if not path.is_dir()), set())
    items, odd = _readable(Item(name, "", 0, reader) for name in images)
    return Source(str(root), items, [], odd, ignored)


def _readable(listed: Iterable[Item]) -> tuple[list[Item], list[Skipped]]:
    """The items, and those that no manifest can name."""
    items, odd = [], []
    for item in listed:
        try:
            item.key.encode()
            items.append(item)
        except UnicodeEncodeError:
            odd.append(Skipped(item.key, "its name is not valid UTF-8"))
    return items, odd


def _with_masks(source: Source, masks: MaskFolder) -> Source:
    """The items of which there is a true mask."""
    items = [item for item in source.items if masks.has(item.key)]
    if not items:
        key = source.items[0].key
        raise DataError(
            f"found no true mask for any of {len(source.items)} images; for {key} expected {masks.path(key)}"
        )
    return replace(source, items=items, truth=masks)


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
    drawn = _Drawn(name, size)
    classes = list(drawn.images.classes)
    rows = zip(drawn.rows, drawn.images.targets, strict=True)
    items = [Item(key, classes[label], label, drawn) for key, label in rows]
    return Source(f"{name} (embedded)", items, classes, [], Counter(), drawn)


class _Drawn:
    """The images of an embedded data set, under the names that their files would have, and their masks."""

    def __init__(self, name: str, size: int) -> None:
        self.images = get_dataset(name, split="train", size=size)
        self.rows = {key: row for row, key in enumerate(self.images.source_keys)}
        self._last: tuple[str, Any] = ("", None)  # an image is often followed by its mask

    def read(self, key: str) -> bytes:
        return as_png(Image.fromarray(self._sample(key).image))

    def mask(self, key: str, size: tuple[int, int]) -> Image.Image:
        return Image.fromarray(self._sample(key).mask)

    def path(self, key: str) -> str:
        return key

    def _sample(self, key: str) -> Any:
        if key not in self.rows:
            raise DataError(f"the embedded data set has no image {key}")
        if self._last[0] != key:
            self._last = (key, self.images.render(self.rows[key]))
        return self._last[1]
