"""What is decided about some pictures, as hashes: run in other environments, which must print the same.

``python fingerprints.py BATCH`` works on the pictures in batches of that size.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sgdmix_albu import mix_batch
from sgdmix_albu.masks import get_mask
from sgdmix_albu.mixing.fill import grown, inpaint
from sgdmix_albu.saliency import get_backend

BACKENDS = ("spectral_residual", "manifold_ranking")
MASKS = ("otsu", "guided", "grabcut")


def pictures() -> torch.Tensor:
    """(N, 3, 120, 160) uint8: discs and stripes on textures, and photographs where they are at hand."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:120, :160]
    made = []
    for _ in range(12):
        picture = rng.integers(0, 90, (120, 160, 3)) + (60 * np.sin(columns / rng.uniform(5, 30)) ** 2)[..., None]
        y, x, radius = rng.uniform(30, 90), rng.uniform(40, 120), rng.uniform(10, 35)
        picture[np.hypot(rows - y, columns - x) < radius] += rng.integers(60, 160, 3)
        made.append(np.clip(picture, 0, 255).astype(np.uint8))
    made.append(np.full((120, 160, 3), 102, np.uint8))
    folder = Path(os.environ.get("SGDMIX_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    for path in sorted(folder.glob("objects/images/*.jpg"))[:12]:
        with Image.open(path) as image:
            made.append(np.asarray(image.convert("RGB").resize((160, 120))))
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous()


def fingerprints(batch: int) -> dict[str, str]:
    """Hashes of maps, masks, targets and mixed pictures, by backend and preset."""
    images, found = pictures(), {}
    for backend in BACKENDS:
        maps = torch.cat([get_backend(backend).coarse(part) for part in images.split(batch)])
        found[f"{backend} maps"] = _hash(maps)
        for mask in MASKS:
            parts = zip(maps.split(batch), images.split(batch), strict=True)
            masks = torch.cat([get_mask(mask)(*part).masks for part in parts])
            found[f"{backend} {mask} masks"] = _hash(masks)
        ways = (
            ("source", "source", 0),
            ("source", "source", 6),
            ("inpaint", "source", None),
            ("inpaint", "random", None),
        )
        for fill, place, feather in ways:
            draws = torch.Generator().manual_seed(1)
            options = {"mask": "guided", "candidates": 8, "fill": fill, "place": place, "feather": feather}
            mixed = mix_batch(images, maps, generator=draws, **options)
            found[f"{backend} targets"] = _hash(mixed.plan.target)
            found[f"{backend} {fill} {place} feather {feather}"] = _hash(mixed.images)
        parts = zip((images / 255).split(batch), grown(mixed.foreground).split(batch), strict=True)
        found[f"{backend} paint"] = _hash(torch.cat([inpaint(*part) for part in parts]))
    return found


def _hash(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()[:16]


if __name__ == "__main__":
    print(json.dumps(fingerprints(int(sys.argv[1]))))
