"""How much of the object each saliency and mask preset keeps, on photographs with true masks.

    OMP_NUM_THREADS=1 python benchmarks/masks_ladder.py DATA [--size 224] [--write docs/choosing.md]

DATA holds ``images/`` and ``masks/`` with the same stems. Prints a Markdown table: means over the images and
their standard errors; medians of milliseconds an image on one core, map and mask apart. ``--write`` puts the
table between the ladder markers of a page.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sgdmix_albu.audit.measures import coverage, spill
from sgdmix_albu.masks import get_mask
from sgdmix_albu.saliency import get_backend

RUNGS = [
    ("spectral_residual", "otsu"),
    ("spectral_residual", "guided"),
    ("spectral_residual", "grabcut"),
    ("manifold_ranking", "otsu"),
    ("manifold_ranking", "guided"),
    ("manifold_ranking", "grabcut"),
]
_BLOCK = 8


def load(data: Path, size: int) -> tuple[Tensor, Tensor]:
    """Photographs (N, 3, size, size) uint8 and their true masks (N, size, size) bool."""
    images, masks = [], []
    for path in sorted((data / "images").iterdir()):
        photograph = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        outline = Image.open(data / "masks" / f"{path.stem}.png").convert("L")
        images.append(torch.from_numpy(np.array(photograph)).movedim(-1, 0))
        masks.append(torch.from_numpy(np.array(outline.resize((size, size), Image.Resampling.NEAREST)) > 127))
    return torch.stack(images), torch.stack(masks)


def measure(saliency: str, preset: str, images: Tensor, truth: Tensor) -> str:
    """One row of the table."""
    backend, mask = get_backend(saliency), get_mask(preset)
    found, map_ms, mask_ms = [], [], []
    for block in images.split(_BLOCK):
        start = time.perf_counter()
        maps = backend.coarse(block)
        mapped = time.perf_counter()
        found.append(mask(maps, block).masks)
        map_ms.append(1000 * (mapped - start) / len(block))
        mask_ms.append(1000 * (time.perf_counter() - mapped) / len(block))
    masks = torch.cat(found)
    iou = (masks & truth).flatten(1).sum(1) / (masks | truth).flatten(1).sum(1)
    figures = [
        f"{v.mean():.3f} ± {v.std() / len(v) ** 0.5:.3f}" for v in (coverage(masks, truth), spill(masks, truth), iou)
    ]
    times = [f"{statistics.median(ms):.1f}" for ms in (map_ms, mask_ms)]
    return f"| `{saliency}` | `{preset}` | {' | '.join(figures + times)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)

    images, truth = load(options.data, options.size)
    table = ["| saliency | mask | coverage | spill | IoU | map ms | mask ms |", "|---|---|---|---|---|---|---|"]
    print(*table, sep="\n")
    for rung in RUNGS:
        table.append(measure(*rung, images, truth))
        print(table[-1], flush=True)
    if options.write:
        page = options.write.read_text("utf-8")
        marked = re.compile(r"(<!-- ladder: begin.*?-->\n).*?(\n<!-- ladder: end -->)", re.DOTALL)
        options.write.write_text(marked.sub(lambda m: f"{m[1]}\n" + "\n".join(table) + f"\n{m[2]}", page), "utf-8")


if __name__ == "__main__":
    main()
