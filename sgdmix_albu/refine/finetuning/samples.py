"""What the refiner can do so far, as a picture: a few classes, from a real image to pure noise."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from sgdmix_albu.io.files import write_whole
from sgdmix_albu.refine.catalogue import RefinerSpec
from sgdmix_albu.refine.components import Components
from sgdmix_albu.refine.denoise import denoise
from sgdmix_albu.refine.finetuning.data import TrainingImages

_CLASSES = 8
_STRENGTHS = (0.5, 0.9, 1.0)


def save_samples(
    path: Path, components: Components, spec: RefinerSpec, prompts: list[str], images: TrainingImages, seed: int
) -> None:
    """Write a grid: a row for each of some classes; a real image, refined at S = 0.5 and 0.9, and made from noise.

    Args:
        path: A PNG.
        components: The model as it is now.
        spec: Steps and guidance.
        prompts: Of all classes.
        images: For the real ones.
        seed: The same seed, the same noise: grids of one run can be compared.
    """
    classes = sorted(set(images.labels.tolist()))[:_CLASSES]
    real = torch.stack([images[int((images.labels == label).nonzero()[0, 0])] for label in classes])
    columns = [real]
    for strength in _STRENGTHS:
        # Nothing of the image is left for the last column: it starts on grey.
        start = real.float() / 255 if strength < 1 else torch.full(real.shape, 0.5)
        found = denoise(
            components,
            start.to(components.device),
            [prompts[label] for label in classes],
            strengths=[strength] * len(classes),
            seeds=[seed + row for row in range(len(classes))],
            steps=spec.steps,
            guidance=spec.guidance,
        ).images
        columns.append((found.cpu() * 255).round().to(torch.uint8))
    rows = torch.cat(columns, dim=3)  # a class's pictures side by side; the rows one below the other
    sheet = Image.fromarray(torch.cat(rows.unbind(), dim=1).permute(1, 2, 0).numpy())
    enlarged = max(1, 128 // images.resolution)
    sheet = sheet.resize((sheet.width * enlarged, sheet.height * enlarged), Image.Resampling.NEAREST)
    write_whole(path, lambda out: sheet.save(out, "PNG"))
