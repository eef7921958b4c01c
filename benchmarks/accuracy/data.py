"""Photographs as tensors, read once: training and test images, U2-Net's masks of both, and the test images' plates."""

from __future__ import annotations

import hashlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.accuracy.shifted import make_plates
from sgdmix_albu.datasets import get_dataset
from sgdmix_albu.datasets.aviary import home_of

AVIARY = "aviary"
_PART = 50
_CORRELATION = 0.95  # of species and habitat in training; none in the test


@dataclass(frozen=True)
class Photographs:
    """One split.

    Attributes:
        images: (N, 3, K, K) uint8.
        labels: (N,) int64.
        maps: (N, K, K) uint8, what the best segmenter at hand sees; of the aviary the true masks.
        plates: (N, 3, K, K) uint8, the images without their objects; empty for the training split.
        home: (N,) bool, aviary only: the bird is in its own species' habitat; else empty.
    """

    images: Tensor
    labels: Tensor
    maps: Tensor
    plates: Tensor
    home: Tensor

    def to(self, device: str) -> Photographs:
        """The same on a device."""
        return Photographs(*(value.to(device) for value in vars(self).values()))


@dataclass(frozen=True)
class Data:
    """A data set.

    Attributes:
        train: Its training images.
        test: Its test images.
        classes: Names.
        paths: Of the training images, in their order; empty for the aviary.
        sha: The first digits of the SHA-256 of all files.
    """

    train: Photographs
    test: Photographs
    classes: list[str]
    paths: list[str]
    sha: str


def read(folder: Path, maps: Path, kept: int, jobs: int = 1) -> Data:
    """A tree ``train/CLASS/*.jpg``, ``test/CLASS/*.jpg``, and U2-Net's maps under the same names.

    Args:
        folder: The tree.
        maps: What ``benchmarks.accuracy.segment`` wrote, with train/ and test/ too.
        kept: Side in pixels to which the square photographs are brought.
        jobs: Processes to read with.
    """
    digest, splits, paths = hashlib.sha256(), [], []
    classes = sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())
    with ProcessPoolExecutor(jobs) as pool:
        for split in ("train", "test"):
            paths = sorted((folder / split).rglob("*.jpg"))
            for path in paths:
                digest.update(path.read_bytes())
            images = torch.stack(list(pool.map(partial(_pixels, side=kept), paths, chunksize=16)))
            own = [maps / path.relative_to(folder).with_suffix(".png") for path in paths]
            seen = torch.stack(list(pool.map(partial(_pixels, side=kept), own, chunksize=16)))[:, 0]
            plates = images[:0]
            if split == "test":
                plates = torch.cat(list(pool.map(make_plates, images.split(_PART), (seen > 127).split(_PART))))
            labels = torch.tensor([classes.index(path.parent.name) for path in paths])
            splits.append(Photographs(images, labels, seen, plates, torch.zeros(0).bool()))
    train = sorted((folder / "train").rglob("*.jpg"))
    return Data(splits[0], splits[1], classes, [str(path) for path in train], digest.hexdigest()[:12])


def aviary(kept: int) -> Data:
    """The embedded birds: in training 95% of them in their species' own habitat, in the test any."""
    splits = []
    for split, correlation in (("train", _CORRELATION), ("test", 0.0)):
        birds = get_dataset(AVIARY, split=split, correlation=correlation, size=kept)
        drawn = [birds.render(i) for i in range(len(birds))]
        images = torch.stack([torch.from_numpy(sample.image).movedim(-1, 0) for sample in drawn])
        masks = torch.stack([torch.from_numpy(sample.mask) for sample in drawn])
        homes = [home_of(species) for species in birds.species]
        home = torch.tensor([sample.habitat == homes[sample.label] for sample in drawn])
        plates = make_plates(images, masks) if split == "test" else images[:0]
        labels = torch.tensor([sample.label for sample in drawn])
        splits.append(Photographs(images, labels, masks.to(torch.uint8) * 255, plates, home))
    return Data(splits[0], splits[1], birds.classes, [], f"{AVIARY}-{_CORRELATION}")


def _pixels(path: Path, side: int) -> Tensor:
    """(C, side, side) uint8."""
    image = Image.open(path)
    image = image.convert("RGB" if path.suffix == ".jpg" else "L").resize((side, side), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.atleast_3d(np.array(image))).movedim(-1, 0).contiguous()
