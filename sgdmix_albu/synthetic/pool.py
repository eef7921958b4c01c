"""The images that ``sgdmix generate`` wrote, from class folders or tar shards."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import groupby, repeat
from pathlib import Path
from typing import Any

from PIL import Image

from sgdmix_albu.arguments import said
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.expand.names import METADATA
from sgdmix_albu.expand.store.manifest import manifest_row
from sgdmix_albu.expand.store.shards import image_places
from sgdmix_albu.io.files import open_regular, read_part
from sgdmix_albu.io.images import decode_image, read_image
from sgdmix_albu.io.places import local_path
from sgdmix_albu.io.storage import Storage


class SyntheticPool:
    """The images that ``sgdmix generate`` wrote, by source and class. Cheap to pickle.

    Args:
        out: The folder: images or tar shards, with ``metadata.jsonl``.

    Attributes:
        labels: Class of every image.
        numbers: Its index in the set that was expanded.
        by_source: Key of a real image to the places of what was made from it.
        by_class: Class to the places of its images.
        sha256: Key of every real image that took part, source or target, to the SHA-256 of its file.

    Raises:
        InvalidInputError: A URL.
        DataError: Not finished, damaged, without an image, or a file that the manifest names is not there.
    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        if not isinstance(out, str | os.PathLike):
            raise InvalidInputError(f"expected a folder that sgdmix generate wrote, got {said(out)}")
        local = local_path(out)
        if local is None:
            raise InvalidInputError(f"expected a folder on this machine, got the URL {out}; copy it here first")
        self.out = local
        self.names: list[str] = []
        self.shards: list[str | None] = []
        self.labels: list[str] = []
        self.numbers: list[int] = []
        self.by_source: dict[str, list[int]] = {}
        self.by_class: dict[str, list[int]] = {}
        self.sha256: dict[str, str] = {}
        self._inside: list[tuple[int, int] | None] = []  # where in its shard an image begins, and its size
        for place, (row, inside) in enumerate(_with_places(_rows(self.out))):
            self.names.append(row["file_name"])
            self.shards.append(row.get("shard"))
            self._inside.append(inside)
            self.labels.append(row["label"])
            self.numbers.append(row["label_index"])
            self.by_source.setdefault(row["source"], []).append(place)
            self.by_class.setdefault(row["label"], []).append(place)
            self._note(row["source"], row["source_sha256"])
            if row["target"] is not None:  # else the image is its source, as it is
                self._note(row["target"], row["target_sha256"])
        self._check()

    def __len__(self) -> int:
        return len(self.names)

    def image(self, place: int) -> Image.Image:
        """One image, RGB.

        Raises:
            DataError: It cannot be read.
        """
        shard, inside = self.shards[place], self._inside[place]
        if shard is None or inside is None:
            return read_image(self.out / self.names[place])
        with open_regular(self.out / shard) as file:
            return decode_image(read_part(file, *inside), f"{self.names[place]} in {self.out / shard}")

    def check_classes(self, classes: Collection[str]) -> None:
        """Refuse images of a class that the real data set has not.

        Raises:
            DataError: There is one.
        """
        strangers = sorted(self.by_class.keys() - set(classes))
        if strangers:
            raise DataError(f"{self.out} has the class {strangers[0]!r}, the real data set has {list(classes)[:5]}")

    def _note(self, key: str, sha256: str) -> None:
        if self.sha256.setdefault(key, sha256) != sha256:
            raise DataError(f"{self.out / METADATA} is damaged: it lists two different files {key}")

    def _check(self) -> None:
        if not self.names:
            raise DataError(f"{self.out / METADATA} lists no image: all were left out")
        name, count = Counter(self.names).most_common(1)[0]
        if count > 1:
            raise DataError(f"{self.out / METADATA} is damaged: it names {name} {count} times")
        wanted = [shard or name for shard, name in zip(self.shards, self.names, strict=True)]
        missing = sorted(set(wanted) - Storage(self.out).sizes().keys())
        if missing:
            raise DataError(
                f"{len(missing)} files that {self.out / METADATA} lists are missing, such as {missing[0]}; "
                "run the same `sgdmix generate` again"
            )


def opened(out: str | os.PathLike[str] | SyntheticPool) -> SyntheticPool:
    """A pool, read now unless it was read before."""
    return out if isinstance(out, SyntheticPool) else SyntheticPool(out)


def _with_places(rows: Iterator[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], tuple[int, int] | None]]:
    """Rows, and where in its shard each one's image is; None of a file."""
    for shard, those in groupby(rows, lambda row: row.get("shard")):
        if shard is None:
            yield from zip(those, repeat(None))
        else:
            together = list(those)
            yield from zip(together, image_places(together), strict=True)


def _rows(out: Path) -> Iterator[Mapping[str, Any]]:
    storage = Storage(out)
    if not storage.has(METADATA):
        raise DataError(f"{out} has no {METADATA}: expected a folder that sgdmix generate or mix has finished")
    for number, line in enumerate(storage.lines(METADATA), start=1):
        row = manifest_row(line)
        if row is None or (row["target"] is None) != (row["target_sha256"] is None):
            raise DataError(
                f"line {number} of {out / METADATA} is damaged: expected an image's row as sgdmix generate writes it"
            )
        yield row
