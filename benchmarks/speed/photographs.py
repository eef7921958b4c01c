"""The images that speed is measured on."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor

from sgdmix_albu.datasets.aviary import Aviary
from sgdmix_albu.errors import DataError
from sgdmix_albu.io.images import read_image

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def photographs(folder: Path | None, count: int, size: int) -> Tensor:
    """Images (count, 3, size, size) uint8: the middles of a folder's first, or the embedded birds where there is none.

    Raises:
        DataError: The folder holds fewer.
    """
    if folder is None:
        birds = Aviary("train", species=10, per_species=-(-count // 10), size=size)
        found = [birds[index][0] for index in range(count)]
    else:
        paths = islice(sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES), count)
        found = [ImageOps.fit(read_image(path), (size, size)) for path in paths]
    if len(found) < count:
        raise DataError(f"expected at least {count} images below {folder}, found {len(found)}")
    return torch.stack([torch.from_numpy(np.array(image)).movedim(-1, 0) for image in found])
