"""Tiny data sets in the exact layouts of the official archives: 3 classes, 2 to 4 images of each in each split."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import io

CLASSES, TRAIN, TEST = 3, 4, 2
SPECIES = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]


# Compressed, as Matlab itself writes them: then a damaged byte is noticed. In plain files it makes scipy crash.
_savemat = partial(io.savemat, do_compression=True)


def _photograph(path: Path, colour: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(colour).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    pixels[6:18, 8:24] = (40 * (colour % 6), 255 - 40 * (colour % 6), 128)
    Image.fromarray(pixels).save(path)


def _bird(label: int, place: int) -> str:
    """The same bird has the same file name in both of the data sets that follow."""
    return f"{SPECIES[label]}/{SPECIES[label][4:]}_{place:04d}_{7001 + label * (TRAIN + TEST) + place}.jpg"


def _tests(place: int) -> bool:
    return place % 3 == 1  # train and test alternate, as they do there


def cub(folder: Path) -> Path:
    root = folder / "CUB_200_2011"
    images, labels, splits, number = [], [], [], 0
    for label in range(CLASSES):
        for place in range(TRAIN + TEST):
            number += 1
            _photograph(root / "images" / _bird(label, place), number)
            images.append(f"{number} {_bird(label, place)}")
            labels.append(f"{number} {label + 1}")
            splits.append(f"{number} {int(not _tests(place))}")
    tables = {
        "classes.txt": [f"{label} {name}" for label, name in enumerate(SPECIES, start=1)],
        "images.txt": images,
        "image_class_labels.txt": labels,
        "train_test_split.txt": splits,
    }
    for name, lines in tables.items():
        (root / name).write_text("\n".join(lines) + "\n")
    return root


def aircraft(folder: Path) -> Path:
    root = folder / "fgvc-aircraft-2013b"
    variants = ["707-320", "Boeing 717", "F/A-18"]
    number, lists = 34309, {"train": [], "val": [], "test": []}
    for split, count in (("train", TRAIN), ("val", TEST), ("test", TEST)):
        for variant in variants:
            for _ in range(count):
                number += 11
                _photograph(root / f"data/images/{number:07d}.jpg", number)
                lists[split].append(f"{number:07d} {variant}")
    lists["trainval"] = lists["train"] + lists["val"]
    (root / "data/variants.txt").write_text("\n".join(variants) + "\n")
    for split, lines in lists.items():
        (root / f"data/images_variant_{split}.txt").write_text("\n".join(lines) + "\n")
    return root


def cars(folder: Path) -> Path:
    root = folder / "stanford_cars"
    (root / "devkit").mkdir(parents=True)
    names = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012"]
    _savemat(root / "devkit/cars_meta.mat", {"class_names": np.array(names, dtype=object)})
    kinds = [(name, "O") for name in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
    for split, count, file in (
        ("train", TRAIN, "devkit/cars_train_annos.mat"),
        ("test", TEST, "cars_test_annos_withlabels.mat"),
    ):
        rows = []
        for number in range(1, CLASSES * count + 1):
            _photograph(root / f"cars_{split}/{number:05d}.jpg", number)
            rows.append((1, 1, 30, 20, (number * 2) % CLASSES + 1, f"{number:05d}.jpg"))
        _savemat(root / file, {"annotations": np.array(rows, dtype=kinds)})
    return root


def flowers(folder: Path) -> Path:
    root = folder / "flowers-102"
    count = 2 * TRAIN * CLASSES
    labels = [(number * 5) % CLASSES + 1 for number in range(1, count + 1)]
    for number in range(1, count + 1):
        _photograph(root / f"jpg/image_{number:05d}.jpg", number)
    _savemat(root / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    # Neighbours are of different classes, so each split has them all, in any order.
    order = np.random.default_rng(0).permuted(np.arange(1, count + 1, dtype=np.uint16).reshape(-1, CLASSES), axis=1)
    order = np.random.default_rng(1).permutation(order).ravel()
    train, val = TRAIN * CLASSES, (TRAIN + TEST) * CLASSES
    _savemat(
        root / "setid.mat",
        {"trnid": order[None, :train], "valid": order[None, train:val], "tstid": order[None, val:]},
    )
    return root


def pets(folder: Path) -> Path:
    root = folder / "oxford-iiit-pet"
    (root / "annotations").mkdir(parents=True)
    breeds = ["Abyssinian", "american_bulldog", "Bengal"]
    for split, first, count in (("trainval", 100, TRAIN), ("test", 200, TEST)):
        lines = []
        for label, breed in enumerate(breeds, start=1):
            for number in range(first, first + count):
                _photograph(root / f"images/{breed}_{number}.jpg", label * number)
                lines.append(f"{breed}_{number} {label} {1 + (breed[0].islower())} 1")
        (root / f"annotations/{split}.txt").write_text("\n".join(lines) + "\n")
    return root


def waterbirds(folder: Path) -> Path:
    """The birds of :func:`cub` on other backgrounds, training and test birds alike; validation has a few more."""
    root = folder / "waterbird_complete95_forest2water2"
    rows = ["img_id,img_filename,y,split,place,place_filename"]
    number = 0
    for label in range(CLASSES):
        for place in range(TRAIN + 2 * TEST):
            number += 1
            split = 1 if place >= TRAIN + TEST else 2 if _tests(place) else 0
            _photograph(root / _bird(label, place), 100 + number)
            bird, water = int(label == 1), (number + label) % 2
            rows.append(f'{number},{_bird(label, place)},{bird},{split},{water},"/o/ocean/0000{number}.jpg"')
    (root / "metadata.csv").write_text("\n".join(rows) + "\n")
    return root


def folders(folder: Path) -> Path:
    root = folder / "photos"
    photograph = 0
    for split, count in (("train", TRAIN), ("val", TEST), ("test", TEST)):
        for name in ("Übergang 2", "owl", "tit"):
            for number in range(count):  # the first ones have one name in two folders, and in all splits
                photograph += 1
                below = f"{number}/1.jpg" if number < 2 else f"{split} {number}.jpg"
                _photograph(root / split / name / below, photograph)
    return root


WRITERS: dict[str, Callable[[Path], Path]] = {
    "aircraft": aircraft,
    "cars": cars,
    "cub": cub,
    "flowers": flowers,
    "folders": folders,
    "pets": pets,
    "waterbirds": waterbirds,
}
