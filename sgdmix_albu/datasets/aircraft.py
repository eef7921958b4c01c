"""FGVC-Aircraft (Maji et al., 2013): 100 variants, 3,334 training, 3,333 validation and 3,333 test photographs."""

from __future__ import annotations

from sgdmix_albu.datasets.photographs import Listing, Photographs, columns
from sgdmix_albu.errors import DataError


class Aircraft(Photographs):
    """FGVC-Aircraft as ``fgvc-aircraft-2013b.tar.gz`` unpacks; the labels are the variants.

    Arguments and attributes are those of :class:`Photographs`. Papers mostly train on the split "trainval".

    ```text
    fgvc-aircraft-2013b/data/
      variants.txt  images_variant_train.txt  images_variant_val.txt  images_variant_test.txt  ...
      images/0034309.jpg
    ```
    """

    title = "FGVC-Aircraft"
    folder = "fgvc-aircraft-2013b"
    splits = ("train", "val", "trainval", "test")

    def needs(self) -> tuple[str, ...]:
        """The variants, the split's list and the images."""
        return ("data/variants.txt", f"data/images_variant_{self.split}.txt", "data/images/")

    def _list(self) -> Listing:
        names = [name.strip() for (name,) in columns(self.root / "data/variants.txt", 1)]
        label_of = {name: label for label, name in enumerate(names)}
        table = self.root / f"data/images_variant_{self.split}.txt"
        rows = [(number, name.strip()) for number, name in columns(table, 2)]
        strangers = sorted({name for _, name in rows} - label_of.keys())
        if strangers:
            raise DataError(f"{table} has the variant {strangers[0]!r}, which variants.txt does not list")
        return Listing(names, [f"data/images/{number}.jpg" for number, _ in rows], [label_of[name] for _, name in rows])
