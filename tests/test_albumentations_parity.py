"""One set of pixels from three doors: the pure function, the Albumentations face and the torchvision face."""

from __future__ import annotations

from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch

from sgdmix_albu import SGDMix as TorchvisionSGDMix
from sgdmix_albu import mix_batch
from sgdmix_albu.albumentations import SGDMix
from sgdmix_albu.mixing import draw
from sgdmix_albu.saliency import get_backend

B, H, W = 7, 48, 36
SETTINGS: list[dict[str, Any]] = [
    {},
    {"feather": 3},
    {"max_coverage": 0.3},
    {"target_class": "different"},
    {"exclude_duplicates": True},
    {"fill": "inpaint"},
    {"fill": "inpaint", "feather": 3},
    {"fill": "inpaint", "max_coverage": 0.2},
]


@pytest.fixture(params=["uint8", "float32"])
def images(request: pytest.FixtureRequest) -> np.ndarray:
    """Smooth pictures with an object each, the last one a repeat of the first."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:H, :W]
    pictures = np.empty((B, H, W, 3), np.uint8)
    for picture in pictures:
        picture[:] = rng.integers(0, 120, 3) + (20 * np.sin(x / rng.uniform(3, 9)))[..., None] + 20
        there = (y - rng.uniform(10, H - 10)) ** 2 + (x - rng.uniform(10, W - 10)) ** 2 < rng.uniform(30, 90)
        picture[there] = rng.integers(150, 255, 3)
    pictures[-1] = pictures[0]
    return pictures if request.param == "uint8" else (pictures / np.float32(255)).astype(np.float32)


@pytest.fixture
def maps(images: np.ndarray) -> np.ndarray:
    return get_backend("spectral_residual")(channels_first(images)).numpy()


def channels_first(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def channels_last(images: torch.Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy()


LABELS = np.arange(B) % 3


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("saliency", ["given", "spectral_residual"])
def test_every_door_gives_the_same_pixels(images, maps, saliency, settings):
    tensor, labels = channels_first(images), torch.from_numpy(LABELS)
    pure_maps = torch.from_numpy(maps) if saliency == "given" else get_backend(saliency).coarse(tensor)
    pure = channels_last(mix_batch(tensor, pure_maps, labels=labels, mask="otsu", **settings).images)
    assert not np.array_equal(pure, images)

    through_torchvision = TorchvisionSGDMix(saliency, mask="otsu", **settings)
    sample = {"images": tensor, "labels": labels}
    if saliency == "given":
        sample["saliency"] = torch.from_numpy(maps)
    assert np.array_equal(channels_last(through_torchvision(sample)["images"]), pure)

    in_batch, alone = (SGDMix(saliency, mask="otsu", p=1, **settings) for _ in range(2))
    batch = {"images": images, "label": LABELS}
    extra = {"masks": maps, "saliency": maps} if saliency == "given" else {}
    pipeline = A.Compose([in_batch], additional_targets={"saliency": "masks"})
    assert np.array_equal(pipeline(**batch, **extra)["images"], pure)

    rows = [{"image": image, "label": label} for image, label in zip(images, LABELS, strict=True)]
    if saliency == "given":
        rows = [{**row, "mask": z, "saliency": z} for row, z in zip(rows, maps, strict=True)]
    pipeline = A.Compose([alone], additional_targets={"saliency": "mask"})
    for i, row in enumerate(rows):
        mixed = pipeline(**row, sgdmix_metadata=rows[:i] + rows[i + 1 :])["image"]
        assert np.array_equal(mixed, pure[i]), i
    assert in_batch.guard_counts == alone.guard_counts == through_torchvision.guard_counts


@pytest.mark.parametrize("candidates", [1, 3])
def test_the_recorded_seed_repeats_the_draws(images, maps, candidates):
    pipeline = A.ReplayCompose([SGDMix("spectral_residual", mask="otsu", candidates=candidates, p=1)])
    out = pipeline(images=images)
    params = out["replay"]["transforms"][0]["params"]
    params = params.get("params", params)  # albumentationsx wraps them
    draws = draw(B, B, candidates=candidates, generator=torch.Generator().manual_seed(params["seed"]))
    tensor = channels_first(images)
    pure = mix_batch(tensor, get_backend("spectral_residual").coarse(tensor), mask="otsu", draws=draws)
    assert np.array_equal(out["images"], channels_last(pure.images))
    assert params["target"] == pure.plan.target.tolist()
    assert params["guards"] == pure.plan.guards.counts()
