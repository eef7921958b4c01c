"""Oxford 102 Flowers (Nilsback and Zisserman, 2008): 1,020 training, 1,020 validation and 6,149 test photographs."""

from __future__ import annotations

import numpy as np
from torchvision.datasets import Flowers102

from sgdmix_albu.datasets.photographs import Listing, Photographs, matlab

_LISTS = {"train": ("trnid",), "val": ("valid",), "test": ("tstid",), "all": ("trnid", "valid", "tstid")}


class Flowers(Photographs):
    """Oxford 102 Flowers as published, the archive of images unpacked.

    Arguments and attributes are those of :class:`Photographs`. "all" is the three official lists, one after the other:
    "train" has 10 images of each class, too few to cut a long tail from. The data set has no file of class names; they
    are those of torchvision's ``Flowers102``.

    ```text
    flowers-102/
      imagelabels.mat  setid.mat
      jpg/image_00001.jpg
    ```
    """

    title = "Oxford 102 Flowers"
    folder = "flowers-102"
    splits = tuple(_LISTS)

    def needs(self) -> tuple[str, ...]:
        """Labels, splits and images."""
        return ("imagelabels.mat", "setid.mat", "jpg/")

    def _list(self) -> Listing:
        labels = np.atleast_1d(matlab(self.root / "imagelabels.mat", "labels")["labels"])
        lists = matlab(self.root / "setid.mat", *_LISTS[self.split])
        numbers = [int(number) for name in _LISTS[self.split] for number in np.atleast_1d(lists[name])]
        known = range(1, len(labels) + 1)
        return Listing(
            list(Flowers102.classes),
            [f"jpg/image_{number:05d}.jpg" for number in numbers],
            [int(labels[number - 1]) - 1 if number in known else -1 for number in numbers],
        )
