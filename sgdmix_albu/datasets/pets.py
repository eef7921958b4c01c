"""Oxford-IIIT Pets (Parkhi et al., 2012): 37 breeds, 3,680 training and 3,669 test photographs."""

from __future__ import annotations

from sgdmix_albu.datasets.photographs import Listing, Photographs, columns, number
from sgdmix_albu.errors import DataError

_LISTS = {"train": "annotations/trainval.txt", "test": "annotations/test.txt"}


class Pets(Photographs):
    """Oxford-IIIT Pets as its two archives unpack beside each other; "train" is the official list *trainval*.

    Arguments and attributes are those of :class:`Photographs`.

    ```text
    oxford-iiit-pet/
      annotations/trainval.txt  annotations/test.txt
      images/Abyssinian_100.jpg
    ```
    """

    title = "Oxford-IIIT Pets"
    folder = "oxford-iiit-pet"
    splits = ("train", "test")

    def needs(self) -> tuple[str, ...]:
        """The split's list and the images."""
        return (_LISTS[self.split], "images/")

    def _list(self) -> Listing:
        table = self.root / _LISTS[self.split]
        rows = [(file, number(label, table) - 1) for file, label, _ in columns(table, 3)]
        breed_of = {label: file.rpartition("_")[0] for file, label in rows}
        missing = sorted(set(range(len(breed_of))) - breed_of.keys())
        if missing:
            raise DataError(f"{table} has no image of the breed {missing[0] + 1}")
        names = [" ".join(part.title() for part in breed_of[label].split("_")) for label in range(len(breed_of))]
        return Listing(names, [f"images/{file}.jpg" for file, _ in rows], [label for _, label in rows])
