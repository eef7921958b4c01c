"""timm's loaders and its Mixup around SGDMix: what its page (docs/how-to/timm.md) says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm.data import FastCollateMixup, create_loader
from timm.data.loader import fast_collate
from timm.data.mixup import mixup_target
from torchvision.transforms import v2

from sgdmix_albu import SGDMix, SyntheticMix
from sgdmix_albu.datasets.aviary import Aviary
from sgdmix_albu.expand import Settings, generate
from sgdmix_albu.io.progress import Progress

PLAIN = {"input_size": (3, 32, 32), "batch_size": 8, "no_aug": True, "device": torch.device("cpu"), "num_workers": 0}


@pytest.fixture
def birds() -> Aviary:
    return Aviary(species=4, per_species=4, size=32)


def test_normalised_batches_of_its_prefetcher_mix_as_the_pixels_do(birds: Aviary) -> None:
    """Its own normalisation is recognised: pixels mixed before it give the same images."""
    torch.manual_seed(1)
    before = create_loader(birds, collate_fn=lambda samples: SGDMix()(*fast_collate(samples)), **PLAIN)
    mixed_pixels = [images for images, _ in before]
    torch.manual_seed(1)
    after = [SGDMix()(images, labels)[0] for images, labels in create_loader(birds, **PLAIN)]
    plain = [images for images, _ in create_loader(birds, **PLAIN)]
    for one, other, unmixed in zip(mixed_pixels, after, plain, strict=True):
        # uint8 is composited in whole numbers
        assert (one - other).abs().max() < 0.02
        assert (one - unmixed).abs().mean() > 0.1


def test_an_expanded_set_takes_the_transform_of_its_loader(tmp_path: Path) -> None:
    real = Aviary(species=12, per_species=1, size=40)
    settings = Settings(size=40, multiplier=1, saliency="spectral_residual", mask="otsu")
    generate(None, tmp_path / "out", dataset="aviary", limit=12, settings=settings, progress=Progress(quiet=True))
    for given in ({}, {"transform": v2.Grayscale()}):
        mixed = SyntheticMix(real, tmp_path / "out", p=0.5, mode="class", **given)
        shapes = [(tuple(images.shape), len(labels)) for images, labels in create_loader(mixed, **PLAIN)]
        assert shapes == [((8, 3, 32, 32), 8), ((4, 3, 32, 32), 4)]
        assert mixed.transform is real.transform is not None
        assert SyntheticMix(real, mixed.pool, p=1.0, mode="class")[0][0].shape == (3, 32, 32)


def test_mixup_after_it_makes_the_labels_that_it_makes_alone(birds: Aviary) -> None:
    mix = SGDMix()

    class SGDMixThenMixup(FastCollateMixup):
        def __call__(self, samples, _=None):
            images, labels = mix(*fast_collate(samples))
            return super().__call__(list(zip(images, labels.tolist(), strict=True)))

    birds.transform = v2.PILToTensor()
    samples = [birds[index] for index in range(0, 16, 2)]
    labels = torch.tensor([label for _, label in samples])
    collate = SGDMixThenMixup(mixup_alpha=1.0, num_classes=4, label_smoothing=0.1)
    collate._params_per_batch = lambda: (0.75, False)
    torch.manual_seed(2)
    images, soft = collate(samples)
    torch.manual_seed(2)
    mixed, _ = mix(*fast_collate(samples))
    assert torch.equal(soft, mixup_target(labels, 4, 0.75, 0.1))
    expected = 0.75 * mixed.float() + 0.25 * mixed.flip(0).float()
    assert images.dtype == torch.uint8
    assert (images.float() - expected).abs().max() <= 0.5
    assert not torch.equal(mixed, fast_collate(samples)[0])

    loader = create_loader(birds, is_training=True, collate_fn=collate, **{**PLAIN, "no_aug": False})
    del collate._params_per_batch
    loader.mixup_enabled = False
    assert all((rows > 0.9).sum(1).eq(1).all() for _, rows in loader)
