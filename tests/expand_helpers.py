"""Small photographs for the tests of the offline stage: a bright disc somewhere on a dull texture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sgdmix_albu.expand import Settings, generate
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.types import Foreground


def photograph(seed: int, size: tuple[int, int] = (40, 48)) -> np.ndarray:
    """(H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    picture = rng.integers(40, 100, (height, width, 3))
    centre, radius = rng.uniform(0.3, 0.7, 2) * size, rng.uniform(0.12, 0.3) * min(size)
    disc = np.hypot(rows - centre[0], columns - centre[1]) < radius
    picture[disc] = rng.integers(180, 256, 3)
    return picture.astype(np.uint8)


def write_tree(root: Path, classes: int = 3, images: int = 4, suffix: str = ".png") -> Path:
    """A class-per-folder tree of photographs of several sizes."""
    for label in range(classes):
        for number in range(images):
            seed = 100 * label + number
            path = root / f"class {label}" / f"{number:03d}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photograph(seed, [(40, 48), (48, 40), (40, 48), (72, 96)][number % 4])).save(path)
    return root


def brightness(images: Tensor, labels: Tensor | None = None) -> Tensor:
    """A saliency that can be checked by hand: (B, H, W), the mean of the channels over 255."""
    return images.float().mean(1) / 255


def bright(maps: Tensor, images: Tensor) -> Foreground:
    """A mask preset that can be checked by hand: above one half."""
    return Foreground(brightness(images) > 0.5, torch.full((len(images),), 0.5))


def pixels(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 of an RGB file."""
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


MINE = Settings(saliency="brightness", mask="bright", fill="source", multiplier=3)  # two are registered by hand
REAL = Settings(saliency="spectral_residual", mask="otsu", fill="source", multiplier=3)


def expand(data: Path | str | None, out: Path | str, settings: Settings = MINE, **options: Any) -> Any:
    """``generate`` with two workers, silently."""
    return generate(data, out, settings=settings, **{"workers": 2, "progress": Progress(quiet=True), **options})


def rows_of(out: Path) -> list[dict[str, Any]]:
    """The manifest."""
    return [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the lock and the settings, which hold paths."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".sgdmix-lock", ".sgdmix-run.json")
    }


class Stop(Progress):
    """Ctrl-C after so many results."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def over(self, items: Any, label: str, total: int, **_: Any) -> Iterator[Any]:
        for item in items:
            if self.after == 0:
                raise KeyboardInterrupt
            self.after -= 1
            yield item
