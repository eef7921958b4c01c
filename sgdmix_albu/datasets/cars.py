"""Stanford Cars (Krause et al., 2013): 196 models, 8,144 training and 8,041 test photographs."""

from __future__ import annotations

import numpy as np

from sgdmix_albu.datasets.photographs import Listing, Photographs, matlab


class Cars(Photographs):
    """Stanford Cars as its archives unpack beside each other, as torchvision's ``StanfordCars`` has them.

    Arguments and attributes are those of :class:`Photographs`.

    ```text
    stanford_cars/
      devkit/cars_meta.mat  devkit/cars_train_annos.mat
      cars_test_annos_withlabels.mat
      cars_train/00001.jpg  cars_test/00001.jpg
    ```

    Kaggle's copy has a folder more, ``cars_train/cars_train/00001.jpg``; it is read too.
    """

    title = "Stanford Cars"
    folder = "stanford_cars"
    splits = ("train", "test")

    def needs(self) -> tuple[str, ...]:
        """The class names, the split's labels and images."""
        return ("devkit/cars_meta.mat", self._labels(), f"cars_{self.split}/")

    def _labels(self) -> str:
        return "devkit/cars_train_annos.mat" if self.split == "train" else "cars_test_annos_withlabels.mat"

    def _list(self) -> Listing:
        names = np.atleast_1d(matlab(self.root / "devkit/cars_meta.mat", "class_names")["class_names"])
        rows = np.atleast_1d(matlab(self.root / self._labels(), "annotations")["annotations"])
        folder = self.root / f"cars_{self.split}"
        # Kaggle's archive has the folder twice.
        images = f"{folder.name}/{folder.name}" if (folder / folder.name).is_dir() else folder.name
        return Listing(
            [str(name) for name in names],
            [f"{images}/{row['fname']}" for row in rows],
            [int(row["class"]) - 1 for row in rows],
        )
