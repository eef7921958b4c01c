"""The ways: what a worker does for a sample, for a batch, and what the main process does after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.speed.photographs import photographs
from sgdmix_albu import SGDMix
from sgdmix_albu.albumentations import SGDMix as SampleMix
from sgdmix_albu.masks import get_mask
from sgdmix_albu.saliency import SaliencyMap, WithMaps, build_bank, collate, get_backend

CLASSES = 10
_DONORS = 50
Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class Way:
    """One way to train on mixed images.

    Attributes:
        name: As the table has it.
        data: The data set; its work is a worker's.
        collate: Samples into a batch, in a worker too.
        after: What the main process does with a batch on the training device; None for nothing.
    """

    name: str
    data: Dataset[Any]
    collate: Callable[[list[Any]], Batch] = default_collate
    after: Callable[..., Batch] | None = None


class Mixed:
    """A ``collate_fn`` that mixes; what is not asked for, the maps, does not leave the worker."""

    def __init__(self, mix: Callable[..., Any], stack: Callable[[list[Any]], Any] = default_collate) -> None:
        self.mix, self.stack = mix, stack

    def __call__(self, samples: list[Any]) -> Batch:
        """Mixed images, and their labels."""
        images, *_, labels = self.mix(*self.stack(samples))
        return images, labels


class Outlines:
    """The default saliency and masks, as a backend for a bank: what it keeps are finished masks."""

    def __init__(self) -> None:
        self._backend, self._preset = get_backend("salient_object"), get_mask("guided")

    def __call__(self, images: Tensor) -> Tensor:
        """Masks (B, H, W) of images (B, 3, H, W), as numbers 0 and 1."""
        return self._preset(self._backend.coarse(images), images).masks.float()


class SampleBySample(Dataset[Any]):
    """The Albumentations transform: each image is mixed by itself, with donors that are given before."""

    def __init__(self, photos: ImageFolder, size: int) -> None:
        self.photos = photos
        self.pipeline = A.Compose([A.RandomResizedCrop((size, size)), A.HorizontalFlip(p=0.5), SampleMix(p=1)])
        chosen = range(0, len(photos), max(1, len(photos) // _DONORS))[:_DONORS]
        fit = A.Compose([A.Resize(size, size)])
        self.donors = [{"image": fit(image=np.array(photos[k][0]))["image"], "id": k} for k in chosen]

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.photos[index]
        mixed = self.pipeline(image=np.array(image), id=index, sgdmix_metadata=self.donors)["image"]
        return torch.from_numpy(np.ascontiguousarray(mixed)).movedim(-1, 0).contiguous(), label


def write_photographs(source: Path | None, out: Path, count: int, side: int) -> Path:
    """JPEG files of ten classes, as a training set has them."""
    for number, image in enumerate(photographs(source, count, side).movedim(1, -1).numpy()):
        path = out / f"class-{number % CLASSES}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, quality=90)
    return out


def ways(photos: Path, work: Path, size: int) -> Iterator[Way]:
    """All ways; those that mix nothing, or cut, are there to compare with.

    Args:
        photos: A tree of photographs.
        work: Folder for the banks.
        size: Of the crops, in pixels.
    """
    plain = ImageFolder(photos)
    moves = v2.Compose([v2.ToImage(), v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()])
    cropped = ImageFolder(photos, v2.Compose([moves, v2.ToPureTensor()]))
    side = max(Image.open(plain.samples[0][0]).size)
    maps = build_bank(photos, work / "maps", "salient_object", size=side, progress=False)
    masks = build_bank(photos, work / "masks", Outlines(), size=side, progress=False)
    given, cheapest = SGDMix("given", mask="otsu"), SGDMix("given", mask="otsu", fill="source")
    yield Way("no mixing", cropped)
    yield Way("CutMix in `collate_fn`", cropped, Mixed(v2.CutMix(num_classes=CLASSES)))
    yield Way("the Albumentations transform in `__getitem__`, 50 donors", SampleBySample(plain, size))
    yield Way("`SGDMix()` in `collate_fn`", cropped, Mixed(SGDMix()))
    yield Way("`SGDMix()` after the loader", cropped, after=SGDMix())
    banked = WithMaps(plain, maps, moves)
    yield Way('bank of maps, `SGDMix("given")` in `collate_fn`', banked, Mixed(SGDMix("given"), collate))
    outlined = WithMaps(plain, masks, moves)
    yield Way('bank of masks, `SGDMix("given", mask="otsu")` in `collate_fn`', outlined, Mixed(given, collate))
    name = 'bank of masks, `SGDMix("given", mask="otsu", fill="source")` in `collate_fn`'
    yield Way(name, outlined, Mixed(cheapest, collate))
    yield Way('bank of masks, `SGDMix("given", mask="otsu")` after the loader', outlined, collate, AfterLoader(given))


class AfterLoader:
    """Mixing of a batch with maps, whose type a loader that pins memory drops."""

    def __init__(self, mix: SGDMix) -> None:
        self.mix = mix

    def __call__(self, images: Tensor, maps: Tensor, labels: Tensor) -> Batch:
        """Mixed images, and their labels."""
        images, _, labels = self.mix(images, SaliencyMap(maps), labels)
        return images, labels


def loader_of(way: Way, batch: int, workers: int, *, pinned: bool) -> DataLoader[Any]:
    """A way's loader, whose workers stay from epoch to epoch."""
    return DataLoader(
        way.data, batch, shuffle=True, drop_last=True, collate_fn=way.collate, num_workers=workers,
        persistent_workers=workers > 0, pin_memory=pinned,
    )  # fmt: skip
