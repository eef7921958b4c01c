"""Caltech-UCSD Birds-200-2011 (Wah et al., 2011): 200 species, 5,994 training and 5,794 test photographs."""

from __future__ import annotations

from sgdmix_albu.datasets.photographs import Listing, Photographs, columns, number
from sgdmix_albu.errors import DataError


class CUB(Photographs):
    """CUB-200-2011 as ``CUB_200_2011.tgz`` unpacks; arguments and attributes are those of :class:`Photographs`.

    ```text
    CUB_200_2011/
      classes.txt  images.txt  image_class_labels.txt  train_test_split.txt
      images/001.Black_footed_Albatross/Black_Footed_Albatross_0001_796111.jpg
    ```
    """

    title = "CUB-200-2011"
    folder = "CUB_200_2011"
    splits = ("train", "test")

    def needs(self) -> tuple[str, ...]:
        """The four tables and the images."""
        return ("classes.txt", "images.txt", "image_class_labels.txt", "train_test_split.txt", "images/")

    def _list(self) -> Listing:
        names = [name for _, name in columns(self.root / "classes.txt", 2)]
        labels = self.root / "image_class_labels.txt"
        label_of = {image: number(label, labels) - 1 for image, label in columns(labels, 2)}
        train_of = dict(columns(self.root / "train_test_split.txt", 2))
        wanted = "1" if self.split == "train" else "0"
        files, targets = [], []
        for image, file in columns(self.root / "images.txt", 2):
            if image not in label_of or image not in train_of:
                raise DataError(f"image {image} of {self.root / 'images.txt'} has no class or no split")
            if train_of[image] == wanted:
                files.append(f"images/{file}")
                targets.append(label_of[image])
        return Listing(names, files, targets)
