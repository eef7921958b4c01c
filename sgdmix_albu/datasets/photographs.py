"""What all data sets of photographs have in common: a folder in the official layout, read as it was published."""

from __future__ import annotations

import io
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from PIL import Image
from torch.utils.data import Dataset

from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.io.files import read_regular, stays_below
from sgdmix_albu.io.images import read_image

__all__ = ["Listing", "Photographs", "columns", "matlab", "number", "table_text"]

_MOST_TABLE = 2**28  # bytes; the largest of these tables has 1 MB


class Listing(NamedTuple):
    """What a data set's own files say.

    Attributes:
        names: Official class names, by label.
        files: Image files below the root, with forward slashes.
        targets: Label of each file.
        groups: Group of each file, where the data set has groups.
    """

    names: list[str]
    files: list[str]
    targets: list[int]
    groups: list[int] | None = None


class Photographs(Dataset[tuple[Any, Any]], ABC):
    """A data set in a local folder, in its published layout. Nothing is downloaded.

    Args:
        root: The folder that the official archives unpack to, or the folder around it.
        split: "train", "val" or "test", as far as the data set has them (``splits``).
        transform: Applied to the PIL image.
        target_transform: Applied to the label.

    Attributes:
        classes: Class names fit for folders, which sort as the labels do: ``"003.Boeing_717"``.
        names: The official class names: ``"Boeing 717"``.
        class_to_idx: Class to label.
        targets: Label of every image.
        paths: File of every image.
        source_keys: Name of every image in a class-per-folder tree: ``"003.Boeing_717/0034309.jpg"``.
        groups: Group of every image, or None.
        group_names: Names of the groups.

    Raises:
        InvalidInputError: There is no such split.
        DataError: Something is missing in the folder, or damaged; the message names it.
    """

    title: ClassVar[str]
    folder: ClassVar[str]
    splits: ClassVar[tuple[str, ...]]
    group_names: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        split: str = "train",
        transform: Callable[[Image.Image], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
    ) -> None:
        if split not in self.splits:
            raise InvalidInputError(f"{self.title} has the splits {', '.join(self.splits)}, got {split!r}")
        self.split, self.transform, self.target_transform = split, transform, target_transform
        self.root = self._find(Path(root).expanduser())
        listing = self._list()
        self.names, self.targets, self.groups = listing.names, listing.targets, listing.groups
        self.classes = self._class_folders(listing.names)
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        self._check(listing)
        self.paths = [self.root / file for file in listing.files]
        missing = [path for path in self.paths if not _is_file(path)]
        if missing:
            raise DataError(
                f"{len(missing)} of the {len(self.paths)} images that {self.title} lists for {self.split!r} "
                f"are missing, such as {missing[0]}"
            )
        self.source_keys = [self._key(path, label) for path, label in zip(self.paths, self.targets, strict=True)]
        key, count = Counter(self.source_keys).most_common(1)[0]
        if count > 1:
            raise DataError(f"{self.title} in {self.root} lists {key} {count} times in the split {self.split!r}")

    @abstractmethod
    def needs(self) -> tuple[str, ...]:
        """Files and folders (those end in ``/``) below the root without which the split cannot be read."""

    def has_split(self, split: str) -> bool:
        """Whether the data set is published with such a split."""
        return split in self.splits

    @abstractmethod
    def _list(self) -> Listing: ...

    def _class_folders(self, names: list[str]) -> list[str]:
        """Themselves where they are fit for folders and sort as the labels do; numbered elsewhere."""
        plain = [re.sub(r"[^\w.+-]+", "_", name).strip("_.") for name in names]
        if plain == names and sorted(names) == names:
            return names
        digits = max(3, len(str(len(names) - 1)))
        return [f"{label:0{digits}d}.{name}" for label, name in enumerate(plain)]

    def _key(self, path: Path, label: int) -> str:
        return f"{self.classes[label]}/{path.name}"

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Image (PIL, RGB) and label, each through its transform.

        Raises:
            DataError: The image cannot be read.
        """
        image, label = read_image(self.paths[index]), self.targets[index]
        return (
            image if self.transform is None else self.transform(image),
            label if self.target_transform is None else self.target_transform(label),
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.split!r}, classes={len(self.classes)}, images={len(self)})"

    def _find(self, root: Path) -> Path:
        """The given folder or the one in it that the archive makes, whichever has more of what is needed."""
        if not root.is_dir():
            raise DataError(f"expected the folder of {self.title}, {root} does not exist")
        places = [(_absent(place, self.needs()), place) for place in (root, root / self.folder)]
        missing, found = min(places, key=lambda place: len(place[0]))
        if missing:
            where = dict.fromkeys(str(place) for _, place in places)
            raise DataError(
                f"{self.title} needs {', '.join(self.needs())} in {' or in '.join(where)}; "
                f"missing: {', '.join(missing)}"
            )
        return found

    def _check(self, listing: Listing) -> None:
        """Refuse images of no known class, and files that lie elsewhere."""
        here = f"{self.title} in {self.root}"
        if not listing.targets:
            raise DataError(f"{here} lists no image of the split {self.split!r}")
        strange = [label for label in listing.targets if not 0 <= label < len(listing.names)]
        if strange:
            raise DataError(f"{here} names {len(listing.names)} classes, an image is of class {strange[0] + 1}")
        outside = [file for file in listing.files if not stays_below(file)]
        if outside:
            raise DataError(f"{here} lists an image outside of its folder: {outside[0]!r}")


def table_text(path: Path) -> str:
    """A text file as a whole, without the byte order mark.

    Raises:
        DataError: The file cannot be read, or is no text.
    """
    try:
        return read_regular(path, _MOST_TABLE).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path}: {error}") from error


def columns(path: Path, count: int) -> Iterator[list[str]]:
    """Lines of a text file, each in ``count`` columns that spaces part; spaces in the last one stay.

    Empty lines, Windows' line ends and its byte order mark, which editors leave, are passed over.

    Raises:
        DataError: The file cannot be read, or a line has fewer columns.
    """
    for number, line in enumerate(table_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        cells = line.split(maxsplit=count - 1)
        if len(cells) != count:
            raise DataError(f"line {number} of {path}: expected {count} columns, got {line!r}")
        yield cells


def number(text: str, path: Path) -> int:
    """A whole number of a text file.

    Raises:
        DataError: It is none.
    """
    try:
        return int(text)
    except ValueError:
        raise DataError(f"{path}: expected a whole number, got {text!r}") from None


def matlab(path: Path, *names: str) -> Mapping[str, Any]:
    """Variables of a Matlab file.

    Raises:
        DataError: The file cannot be read, or lacks one of ``names``.
    """
    from scipy.io import loadmat

    packed = io.BytesIO(read_regular(path, _MOST_TABLE))
    try:
        content: Mapping[str, Any] = loadmat(packed, squeeze_me=True)
    # The reader meets damaged files with errors of many kinds.
    except Exception as error:
        raise DataError(f"cannot read {path}: {type(error).__name__} {error}") from error
    missing = [name for name in names if name not in content]
    if missing:
        raise DataError(f"{path} lacks the variable {missing[0]!r}")
    return content


def _absent(root: Path, needs: tuple[str, ...]) -> list[str]:
    return [name for name in needs if not ((root / name).is_dir() if name.endswith("/") else _is_file(root / name))]


def _is_file(path: Path) -> bool:
    """Whether it is a file, under whatever name a table gives it: one that is too long is no file's."""
    try:
        return path.is_file()
    except OSError:
        return False
