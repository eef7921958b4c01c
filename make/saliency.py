"""Train the embedded saliency network anew: ``make saliency PHOTOGRAPHS="DIR..." ENCODER=FILE``.

A pretrained EfficientNet-Lite0 as encoder, distilled from a teacher's maps: each DIR holds ``images/`` and ``maps/``
with the same stems, the maps of the whole picture as PNG in 8 bits. The drawn birds, whose masks are exact, are added.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sgdmix_albu.datasets import get_dataset
from sgdmix_albu.datasets.pixels import load_image
from sgdmix_albu.datasets.source import open_source
from sgdmix_albu.distillation.run import agreement_of, to_file
from sgdmix_albu.distillation.training import Examples, Schedule, batches_of, train
from sgdmix_albu.io.files import write_whole
from sgdmix_albu.saliency.network import SaliencyNetwork

_SIDE = 224  # at which examples are kept
_DRAWN = 0.08  # share of the drawn birds
_HELD_OUT = 12  # every so many photographs of the first folder are for validation
_EPSILON = 1e-3  # of the encoder's batch normalisation
_EVERY = 200  # steps between two validations


def main() -> None:
    """Train, and write the file whenever it is judged."""
    parser = argparse.ArgumentParser(prog="python -m make.saliency", description=__doc__)
    parser.add_argument("photographs", type=Path, nargs="+", help="folders with images/ and maps/")
    parser.add_argument(
        "--encoder", type=Path, required=True, help="state dict in the order of timm's tf_efficientnet_lite0"
    )
    parser.add_argument("--shares", type=float, nargs="+", help="how often each is drawn from")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("sgdmix_albu/saliency/embedded/salient_object.safetensors"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    shares = arguments.shares or [1.0] * len(arguments.photographs)
    sets = [read_pairs(folder) for folder in arguments.photographs]
    held = torch.arange(len(sets[0][0])) % _HELD_OUT == 0
    validation = tuple(part[held] for part in sets[0])
    sets[0] = tuple(part[~held] for part in sets[0])
    birds = drawn_birds()
    examples = Examples(
        torch.cat([images for images, _ in (*sets, birds)]),
        torch.cat([maps for _, maps in (*sets, birds)]),
        torch.cat(
            [torch.full((len(images),), share / len(images)) for (images, _), share in zip(sets, shares, strict=True)]
            + [torch.full((len(birds[0]),), _DRAWN * sum(shares) / len(birds[0]))]
        ),
    )
    network = SaliencyNetwork()
    take_encoder(network, torch.load(arguments.encoder, map_location="cpu", weights_only=True))
    for part in (network.stem, *network.stages[:2]):  # edges and colours: they need no more training
        part.requires_grad_(False)
    schedule = Schedule(arguments.steps, arguments.batch)
    begun = time.monotonic()
    losses: list[float] = []

    def said(step: int, loss: float, mean: SaliencyNetwork) -> None:
        losses.append(loss)
        if (step + 1) % _EVERY == 0 or step + 1 == schedule.steps:
            agreement, _ = agreement_of(mean, *validation)
            print(
                f"step {step + 1}  loss {statistics.mean(losses):.3f}  validation IoU {agreement:.3f}  "
                f"{(time.monotonic() - begun) / 60:.1f} min",
                flush=True,
            )
            losses.clear()
            notes = {"teacher": "U2-Net", "photographs": str(len(examples)), "steps": str(step + 1)}
            write_whole(arguments.out, lambda file: file.write(to_file(mean, notes)))

    train(network, beside(examples, schedule), schedule, device=torch.device("cpu"), said=said)


def read_pairs(folder: Path) -> tuple[Tensor, Tensor]:
    """(N, 3, S, S) uint8 photographs and (N, S, S) uint8 maps."""
    source = open_source(folder / "images", flat=True, masks=folder / "maps")
    assert source.truth is not None  # a source with masks has them
    images, maps = [], []
    for item in source.items:
        photograph, _ = load_image(item)
        images.append(_squashed(photograph).movedim(-1, 0))
        maps.append(_squashed(source.truth.mask(item.key, photograph.size).convert("L")))
    return torch.stack(images), torch.stack(maps)


def drawn_birds() -> tuple[Tensor, Tensor]:
    """The embedded data set with its exact masks."""
    birds = get_dataset("aviary", size=_SIDE, species=48, per_species=8)
    samples = [birds.render(i) for i in range(len(birds))]
    images = [torch.from_numpy(np.array(sample.image)).movedim(-1, 0) for sample in samples]
    return torch.stack(images), torch.stack([torch.from_numpy(sample.mask * np.uint8(255)) for sample in samples])


def _squashed(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)))


def take_encoder(network: SaliencyNetwork, weights: Mapping[str, Tensor]) -> None:
    """Take an EfficientNet-Lite0's weights, which come in the order of its layers, whatever their names.

    Its batch normalisations, at rest, are linear: they go into the convolutions before them.
    """
    parts = iter(value for name, value in weights.items() if "num_batches_tracked" not in name)
    with torch.no_grad():
        for unit in (*network.stem.modules(), *network.stages.modules()):
            if isinstance(unit, nn.Conv2d):
                kernel, scale, shift, mean, variance = (next(parts).float() for _ in range(5))
                gain = scale / (variance + _EPSILON).sqrt()
                unit.weight.copy_(kernel * gain[:, None, None, None])
                unit.bias.copy_(shift - mean * gain)


def beside(examples: Examples, schedule: Schedule) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches, made by another process while this one trains."""
    queue: Any = multiprocessing.get_context("fork").Queue(4)

    def draw() -> None:
        torch.set_num_threads(1)
        for images, maps in batches_of(examples, schedule):
            queue.put((images.numpy(), maps.numpy()))  # as bytes: tensors are gone with the process that made them

    multiprocessing.get_context("fork").Process(target=draw, daemon=True).start()
    for _ in range(schedule.steps):
        images, maps = queue.get()
        yield torch.from_numpy(images), torch.from_numpy(maps)


if __name__ == "__main__":
    main()
