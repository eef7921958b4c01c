"""Waterbirds (Sagawa et al., ICLR 2020): birds of CUB on land and water, where the background misleads."""

from __future__ import annotations

import csv
import io
import os
from typing import Any

from sgdmix_albu.datasets.photographs import Listing, Photographs, table_text
from sgdmix_albu.errors import DataError, InvalidInputError

_SPLITS = ("train", "val", "test")  # the column "split" counts them
_COLUMNS = ("img_filename", "y", "split", "place")


class Waterbirds(Photographs):
    """Waterbirds as ``waterbird_complete95_forest2water2.tar.gz`` unpacks.

    In training 95% of the birds are on their own background; in validation and test half are. The four groups are
    what robustness is measured on. Arguments and attributes are otherwise those of :class:`Photographs`.

    ```text
    waterbird_complete95_forest2water2/
      metadata.csv
      001.Black_footed_Albatross/Black_Footed_Albatross_0001_796111.jpg
    ```

    Args:
        root: The folder, or the one around it.
        labels: "birds", land or water; or "species", the 200 of CUB, for a classifier that was trained on CUB.
        options: ``split``, ``transform`` and ``target_transform``.

    Raises:
        InvalidInputError: Other labels, or no such split.
        DataError: Something is missing in the folder, or damaged; the message names it.
    """

    title = "Waterbirds"
    folder = "waterbird_complete95_forest2water2"
    splits = _SPLITS
    group_names = ("landbird on land", "landbird on water", "waterbird on land", "waterbird on water")

    def __init__(self, root: str | os.PathLike[str], *, labels: str = "birds", **options: Any) -> None:
        if labels not in ("birds", "species"):
            raise InvalidInputError(f"labels must be 'birds' or 'species', got {labels!r}")
        self.labels = labels
        super().__init__(root, **options)

    def needs(self) -> tuple[str, ...]:
        """The table; the folders of the images are named in it."""
        return ("metadata.csv",)

    def _list(self) -> Listing:
        rows = self._rows()
        species = sorted({row["img_filename"].partition("/")[0] for row in rows})
        chosen = [row for row in rows if row["split"] == str(_SPLITS.index(self.split))]
        files = [row["img_filename"] for row in chosen]
        birds, places = [int(row["y"]) for row in chosen], [int(row["place"]) for row in chosen]
        groups = [2 * bird + place for bird, place in zip(birds, places, strict=True)]
        if self.labels == "species":
            label_of = {name: label for label, name in enumerate(species)}
            return Listing(species, files, [label_of[file.partition("/")[0]] for file in files], groups)
        return Listing(["landbird", "waterbird"], files, birds, groups)

    def _rows(self) -> list[dict[str, str]]:
        path = self.root / "metadata.csv"
        try:
            lines = io.StringIO(table_text(path), newline="")
            rows = list(csv.DictReader(line for line in lines if line.strip()))
        except csv.Error as error:
            raise DataError(f"cannot read {path}: {error}") from error
        for number, row in enumerate(rows, start=2):
            sound = all(isinstance(row.get(name), str) for name in _COLUMNS)
            if not sound or row["y"] not in ("0", "1") or row["place"] not in ("0", "1"):
                raise DataError(
                    f"line {number} of {path}: expected {', '.join(_COLUMNS)} with y and place 0 or 1, got {row}"
                )
        return rows
