"""Photographs of your own: a folder for each split, and in it one for each class."""

from __future__ import annotations

from pathlib import Path

from sgdmix_albu.datasets.photographs import Listing, Photographs
from sgdmix_albu.errors import DataError
from sgdmix_albu.io.images import class_folders, list_images


class Folders(Photographs):
    """Class-per-folder trees of two or three splits; arguments and attributes are those of :class:`Photographs`.

    ```text
    photos/
      train/warbler/0001.jpg
      test/warbler/0002.jpg
      val/warbler/0003.jpg  (if there is a validation split)
      train/owl/barn/1.jpg  train/owl/snowy/1.jpg  (two images of the class "owl")
    ```
    """

    title = "a data set of your own"
    folder = "."
    splits = ("train", "val", "test")

    def needs(self) -> tuple[str, ...]:
        """The split, and the training split, which has all classes."""
        return ("train/",) if self.split == "train" else ("train/", f"{self.split}/")

    def has_split(self, split: str) -> bool:
        """Whether there is such a folder."""
        return split in self.splits and (self.root / split).is_dir()

    def _list(self) -> Listing:
        names = class_folders(self.root / "train")
        entries = list_images(self.root / self.split)
        strangers = sorted({entry.class_name for entry in entries} - set(names))
        if strangers:
            raise DataError(f"{self.root / self.split} has the class {strangers[0]!r}, {self.root / 'train'} has not")
        files = [entry.path.relative_to(self.root).as_posix() for entry in entries]
        return Listing(names, files, [names.index(entry.class_name) for entry in entries])

    def _class_folders(self, names: list[str]) -> list[str]:
        return names

    def _key(self, path: Path, label: int) -> str:
        """Folders below the class stay in the name, as ``sgdmix generate`` has it."""
        return path.relative_to(self.root / self.split).as_posix()
