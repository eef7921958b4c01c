"""What there is to read, listed once for all commands: a class-per-folder tree, its URL, or an embedded data set."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from PIL import Image

from sgdmix_albu.datasets import EMBEDDED, get_dataset, list_datasets
from sgdmix_albu.datasets.tree import as_png
from sgdmix_albu.datasets.truth import MaskFolder, TrueMasks
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.io.images import IMAGE_SUFFIXES, class_folders, files_below, is_hidden
from sgdmix_albu.io.places import local_path
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.printable import printable

if TYPE_CHECKING:
    from sgdmix_albu.datasets.aviary import Aviary

_EMBEDDED_SIZE = 224
_SPLITS = {"train", "test", "val", "valid", "validation", "dev"}


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


class Skipped(NamedTuple):
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
        raise InvalidInputError(f"dataset {dataset!r} has its own true masks; do not pass masks")
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
        yield f"ignored  {ignored.total()} files that are not images: {kinds}"


def _remote(url: str) -> Source:
    return _listed(url, Storage(url).sizes())


def _folder(root: Path, flat: bool) -> Source:
    try:
        names = (path.relative_to(root).as_posix() for path in files_below(root, hidden=True))
        return _listed(str(root), names, class_folders(root))
    except DataError:
        if flat and root.is_dir():
            with suppress(DataError):
                return _listed(str(root), (path.name for path in root.iterdir() if not path.is_dir()), flat=True)
        raise


def _listed(root: str, names: Iterable[str], folders: Iterable[str] = (), *, flat: bool = False) -> Source:
    """A source by the names of its files, and of folders that are classes without any; all of no class where flat."""
    keys: list[str] = []
    skipped: list[Skipped] = []
    ignored: Counter[str] = Counter()
    classes = set(folders)
    for name in sorted(names):
        suffix, parts = PurePosixPath(name).suffix.lower(), name.split("/")
        if any(map(is_hidden, parts)):
            ignored["hidden"] += 1
            continue
        classes |= {parts[0]} if len(parts) > 1 else set()
        if suffix not in IMAGE_SUFFIXES:
            ignored[suffix or "no suffix"] += 1
        elif len(parts) == 1 and not flat:
            skipped.append(Skipped(name, "it is not in a class folder, so it has no label"))
        elif str(PurePosixPath(name)) != name:  # an object's key may be "owl//1.png"
            skipped.append(Skipped(name, "its name is not a path"))
        elif not _printable(name):
            skipped.append(Skipped(name, "its name is not valid UTF-8"))
        else:
            keys.append(name)
    if not keys:
        raise DataError(
            f"found no image in a class folder of {root}; known suffixes: {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    if len(classes) > 1 and classes <= _SPLITS and any(key.count("/") > 1 for key in keys):
        raise DataError(
            f"the folders of {root} are splits, not classes: {', '.join(sorted(classes))}; give one of them, such as "
            f"{root.rstrip('/')}/{next(key for key in keys if key.count('/') > 1).partition('/')[0]}"
        )
    reader, class_names = open_reader(root), sorted(classes)
    label_of = {name: label for label, name in enumerate(class_names)}
    named = [("" if flat else key.partition("/")[0], key) for key in keys]
    items = [Item(key, name, label_of.get(name, 0), reader) for name, key in sorted(named)]
    return Source(root, items, class_names, skipped, ignored)


def _printable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _with_masks(source: Source, masks: MaskFolder) -> Source:
    """The items of which there is a true mask."""
    items = [item for item in source.items if masks.has(item.key)]
    if not items:
        key = source.items[0].key
        raise DataError(
            f"found no true mask for any of {len(source.items)} images; for {key} expected {masks.path(key)}"
        )
    return replace(source, items=items, truth=masks)


def _embedded(name: str, size: int) -> Source:
    drawn = _Drawn(name, size)
    classes = list(drawn.images.classes)
    rows = zip(drawn.rows, drawn.images.targets, strict=True)
    items = [Item(key, classes[label], label, drawn) for key, label in rows]
    return Source(f"{name} (embedded)", items, classes, [], Counter(), drawn)


class _Drawn:
    """The images of an embedded data set, under the names that their files would have, and their masks."""

    def __init__(self, name: str, size: int) -> None:
        self.images = cast("Aviary", get_dataset(name, split="train", size=size))  # the one that is embedded
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
        last = self._last
        if last[0] != key:
            self._last = last = (key, self.images.render(self.rows[key]))
        return last[1]  # not the attribute's, which another thread may have replaced
