"""What the base learns from: birds drawn here, with captions. The species of demo and tests are kept away."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sgdmix_albu.datasets.aviary import MAX_SPECIES, Aviary, describe_species

HELD_OUT = 24  # the first six families, all four siblings: fine-tuning must have something to learn
SPECIES = range(HELD_OUT, MAX_SPECIES)
SIZE = 64


def birds(per_species: int, seed: int = 0) -> Aviary:
    """The training set; ``seed`` is for other pictures of the same species."""
    return Aviary("train", species=list(SPECIES), per_species=per_species, size=SIZE, seed=seed)


def drawn(per_species: int, cache: Path) -> Tensor:
    """(N, 3, 64, 64) uint8, drawn once."""
    path = cache / f"pictures-{per_species}.npy"
    if not path.exists():
        total = per_species * len(SPECIES)
        pictures = np.empty((total, SIZE, SIZE, 3), np.uint8)
        blocks = [range(start, min(start + 256, total)) for start in range(0, total, 256)]
        with ProcessPoolExecutor(2) as pool:
            results = pool.map(_block, [per_species] * len(blocks), blocks)
            for block, result in tqdm(zip(blocks, results, strict=True), "draw birds", len(blocks)):
                pictures[block.start : block.stop] = result
        partial = path.with_suffix(".part.npy")
        np.save(partial, pictures)
        partial.rename(path)
    return torch.from_numpy(np.load(path)).permute(0, 3, 1, 2).contiguous()


def _block(per_species: int, block: range) -> np.ndarray:
    source = birds(per_species)
    return np.stack([np.asarray(source[i][0]) for i in block])


def caption(source: Aviary, index: int, chance: np.random.Generator) -> str:
    """One of the ways to say what a picture shows.

    Sometimes nothing (for classifier-free guidance), sometimes the species' name alone, which is the place that a
    learned token takes later; else attributes, some of them left out, with or without stance and surroundings.
    """
    kind = chance.random()
    if kind < 0.1:
        return ""
    scene = source.scene(index)
    around = source.caption(index).removeprefix(describe_species(scene.species)).strip(", ").split(", ")
    if kind < 0.15:
        subject = "a bird"
    elif kind < 0.4:
        subject = f"a {scene.species.name} bird"
    else:
        first, *rest = describe_species(scene.species).split(", ")
        keep = 1.0 if kind < 0.75 else chance.random()
        subject = ", ".join([first, *(part for part in rest if chance.random() < keep)])
    keep = (0.0, 1.0, 0.5)[chance.integers(3)]
    said = [part for part in around if chance.random() < keep]
    return "a photo of " + ", ".join([subject, *said])
