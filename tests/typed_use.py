"""What a typed program sees of the public names: read by mypy (``make check``), never run.

Under ``strict`` an ignored error that is none is an error: so each line with ``type: ignore`` proves a refusal.
"""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import torch
from torch import Tensor, nn

from sgdmix_albu import SGDMix, mix_batch
from sgdmix_albu.albumentations import SGDMix as OverSamples
from sgdmix_albu.datasets import get_dataset
from sgdmix_albu.datasets.aviary import Aviary
from sgdmix_albu.datasets.photographs import Photographs
from sgdmix_albu.expand import Expansion, Forecast, RefinerSettings, Settings, generate
from sgdmix_albu.refine import Refiner, get_refiner
from sgdmix_albu.saliency import SaliencyBackend, get_backend, register_backend
from sgdmix_albu.types import MixedBatch


def brightness(images: Tensor) -> Tensor:
    return images.mean(1)


class Classifier(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


class Captum:
    """As a ``captum.attr`` attribution."""

    def attribute(self, inputs: Tensor, target: Tensor | None = None) -> Tensor:
        return inputs


def expands(data: Path, dry: bool) -> None:
    assert_type(generate(data, "out"), Expansion)
    assert_type(generate(data, "out", dry_run=False, settings=Settings(multiplier=5)), Expansion)
    assert_type(generate(data, "out", dry_run=True, refiner=RefinerSettings("cub")).outputs, int)
    assert_type(generate(data, "out", dry_run=dry), Expansion | Forecast)
    generate(data, "out", worker=2)  # type: ignore[call-overload]
    generate(data, "out", dry_run=True).written  # type: ignore[attr-defined]  # noqa: B018


def chooses_saliency() -> None:
    for face in (SGDMix, OverSamples):
        (
            face(),
            face("gradcam"),
            face(Path("saliency.safetensors")),
            face(brightness),
            face(Classifier()),
            face(Captum()),
        )
    backend = assert_type(get_backend("gradcam", model=Classifier()), SaliencyBackend)
    SGDMix(backend), SGDMix(type(backend))
    register_backend("brightness", brightness)
    SGDMix(saliency=7)  # type: ignore[arg-type]
    OverSamples(saliency=None)  # type: ignore[arg-type]
    SGDMix(fill="paint")  # type: ignore[arg-type]


def mixes(images: Tensor) -> None:
    mixed = assert_type(mix_batch(images, brightness(images), generator=torch.Generator()), MixedBatch)
    assert_type(mixed.plan.target, Tensor)


def reads(name: str) -> None:
    birds = assert_type(get_dataset("aviary", species=3), Aviary)
    assert_type(birds.targets, list[int])
    assert_type(get_dataset("cub", root="CUB_200_2011"), Photographs)
    assert_type(get_dataset(name).source_keys, list[str])


def refines(images: Tensor) -> None:
    refiner = assert_type(get_refiner("cub"), Refiner)
    assert_type(refiner.refine(images, prompts=["a bird"], seeds=[0]).images, Tensor)
