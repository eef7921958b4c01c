"""Rows that train on an expanded set: ``generate`` makes it of a run's training images, ``SyntheticMix`` draws."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sgdmix_albu import SyntheticMix
from sgdmix_albu.expand import Settings, generate
from sgdmix_albu.synthetic import SyntheticPool

MULTIPLIER = 5


class Real(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """A run's training images, as ``SyntheticMix`` wants them."""

    def __init__(self, images: Tensor, labels: Tensor, paths: list[Path], classes: list[str]) -> None:
        self.images, self.targets, self.classes, self.transform = images, labels.tolist(), classes, None
        self.source_keys = [f"{path.parent.name}/{path.name}" for path in paths]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], self.targets[index]


def expanded(paths: list[Path], out: Path) -> Path:
    """The expanded set of these images, made unless another process did; five images of each, without a refiner."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (out / "metadata.jsonl").exists():
            tree = out.with_name(f"{out.name}-tree")
            shutil.rmtree(tree, ignore_errors=True)
            for path in paths:
                (tree / path.parent.name).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, tree / path.parent.name / path.name)
            generate(tree, out, settings=Settings(size=227, multiplier=MULTIPLIER), overwrite=True)
    return out


class Drawn:
    """Batches of ``SyntheticMix``; each synthetic image is decoded once."""

    def __init__(self, real: Real, out: Path, spec: dict[str, Any], device: Any) -> None:
        self._side, self._device = real.images.shape[-1], device
        pool = _Remembered(out, self._side)
        self._mix = SyntheticMix(real, pool, p=spec["p"], mode=spec["mode"], transform=lambda image: image)

    def __call__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, K, K) uint8 and (B,) labels, on the device."""
        items = [self._mix[i] for i in indices.tolist()]
        images, labels = zip(*items, strict=True)
        return torch.stack(images).to(self._device), torch.tensor(labels, device=self._device)


class _Remembered(SyntheticPool):
    """A pool whose images are tensors of one size, kept once they were read."""

    def __init__(self, out: Path, side: int) -> None:
        super().__init__(out)
        self._side, self._kept = side, {}

    def image(self, place: int) -> Any:
        """(3, K, K) uint8."""
        if place not in self._kept:
            image = super().image(place).resize((self._side, self._side), Image.Resampling.LANCZOS)
            self._kept[place] = torch.from_numpy(np.array(image)).movedim(-1, 0)
        return self._kept[place]
