"""Guided masks: the filter against a plain loop over windows, outlines on edges, edge cases."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from sgdmix_albu import mix_batch
from sgdmix_albu.masks import otsu
from sgdmix_albu.mixing.guided import guided, guided_filter, guided_maps


def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two images with a disc, a blurred saliency map beside its place, and the true mask."""
    y, x = torch.meshgrid(torch.arange(96), torch.arange(128), indexing="ij")
    truth = torch.stack([(y - 48) ** 2 + (x - 60) ** 2 < 900, (y - 40) ** 2 + (x - 80) ** 2 < 700])
    noise = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0)) * 0.1
    images = torch.where(truth[:, None], 0.8, 0.2) + noise
    maps = torch.nn.functional.avg_pool2d(truth[:, None].float(), 25, stride=1, padding=12)[:, 0].roll(4, 2)
    return maps, images, truth


def iou(mask: torch.Tensor, truth: torch.Tensor) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def fitted_windows(target: np.ndarray, guide: np.ndarray, radius: int, smoothness: float) -> np.ndarray:
    """He et al. 2013, equation 21: target (h, w), guide (h, w, 3)."""
    mean = window_coefficients(target, guide, radius, smoothness)
    return (mean[..., :3] * guide).sum(2) + mean[..., 3]


def window_coefficients(target: np.ndarray, guide: np.ndarray, radius: int, smoothness: float) -> np.ndarray:
    """Equations 19 and 20, one window at a time, and the mean over the windows of a pixel: (h, w, 4)."""
    height, width = target.shape
    around = [
        (slice(max(0, y - radius), y + radius + 1), slice(max(0, x - radius), x + radius + 1))
        for y in range(height)
        for x in range(width)
    ]
    fits = np.empty((height * width, 4))
    for i, window in enumerate(around):
        colours, values = guide[window].reshape(-1, 3), target[window].ravel()
        spread = np.cov(colours.T, bias=True) + smoothness * np.eye(3)
        with_values = (colours * values[:, None]).mean(0) - colours.mean(0) * values.mean()
        slope = np.linalg.solve(spread, with_values)
        fits[i] = *slope, values.mean() - slope @ colours.mean(0)
    fits = fits.reshape(height, width, 4)
    return np.array([fits[window].reshape(-1, 4).mean(0) for window in around]).reshape(height, width, 4)


@pytest.mark.parametrize("size", [(14, 17), (3, 6), (1, 1)])
def test_filter_equals_a_loop_over_windows(size):
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, *size, generator=generator, dtype=torch.float64)
    guides = torch.rand(2, 3, *size, generator=generator, dtype=torch.float64)
    guides[1] = 0.5 + 0.02 * guides[1]  # hardly more contrast than counts as one surface
    filtered = guided_filter(maps, guides)
    for i in range(2):
        expected = fitted_windows(maps[i].numpy(), guides[i].movedim(0, -1).numpy(), radius=4, smoothness=1e-4)
        np.testing.assert_allclose(filtered[i], expected, atol=1e-8)


@pytest.mark.parametrize("size", [(14, 17), (56, 56)])
def test_maps_are_that_loop_at_eight_bits(size):
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(1, *size, generator=generator, dtype=torch.float64)
    guides = torch.rand(1, 3, *size, generator=generator, dtype=torch.float64)
    eight = (guides[0].movedim(0, -1) * 255).round().numpy() / 255
    expected = fitted_windows(maps[0].numpy(), eight, radius=4, smoothness=1e-4)
    # Four coefficients, each to half of a step of 1/65536, and the last bits of float32.
    np.testing.assert_allclose(guided_maps(maps, guides)[0], expected.clip(0, 1), atol=4 * 0.5 / 65536 + 1e-6, rtol=0)


@pytest.mark.parametrize("size", [(112, 112), (1, 168), (100, 150), (300, 40), (56, 30)])
def test_coefficients_are_shrunk_and_stretched_as_torch_does(size):
    """A plain filter in float64 with ``F.interpolate`` throughout; windows whole or broken, either axis longer."""
    generator = torch.Generator().manual_seed(1)
    maps = torch.rand(2, 20, 20, generator=generator)
    guides = torch.randint(0, 256, (2, 3, *size), generator=generator).float() / 255
    small = [max(1, round(length * min(1, 56 / max(size)))) for length in size]
    colour = torch.nn.functional.interpolate(guides.double(), small, mode="area")
    target = torch.nn.functional.interpolate(maps.double()[:, None], small, mode="bilinear")
    for i in range(2):
        fits = window_coefficients(target[i, 0].numpy(), colour[i].movedim(0, -1).numpy(), radius=4, smoothness=1e-4)
        full = torch.nn.functional.interpolate(torch.from_numpy(fits).movedim(-1, 0)[None], size, mode="bilinear")[0]
        expected = (full[:3] * guides[i]).sum(0) + full[3]
        np.testing.assert_allclose(guided_filter(maps, guides)[i], expected, atol=1e-4)
        np.testing.assert_allclose(guided_maps(maps, guides)[i], expected.clip(0, 1), atol=1e-4)


def test_a_map_that_the_guide_explains_is_kept_at_full_resolution():
    _, images, _ = scene()
    explained = (images * torch.tensor([0.3, 0.5, 0.1])[:, None, None]).sum(1)
    away = (guided_filter(explained, images) - explained).abs()
    assert away.mean() < 0.01
    assert away.max() < 0.1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_the_outline_moves_to_the_edges(dtype):
    maps, images, truth = scene()
    images = (images * 255).to(torch.uint8) if dtype == torch.uint8 else images.to(dtype)
    refined, plain = guided(maps, images).masks, otsu(maps, images).masks
    for i in range(2):
        assert iou(refined[i], truth[i]) > iou(plain[i], truth[i]) + 0.03
        assert iou(refined[i], truth[i]) > 0.9


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_do_not_know_of_each_other(dtype):
    """Of 320 x 320 pixels a CPU takes one at a time, of 96 x 128 all."""
    maps, images, _ = scene()
    images = (images * 255).to(torch.uint8) if dtype == torch.uint8 else images
    for big in (images, functional.resize(images, [320, 320])):
        whole = guided(maps, big)
        for i in range(2):
            alone = guided(maps[i : i + 1], big[i : i + 1])
            assert torch.equal(alone.masks[0], whole.masks[i])
            assert torch.equal(alone.thresholds[0], whole.thresholds[i])
        turned = big.to(memory_format=torch.channels_last)
        assert torch.equal(guided(maps, turned).masks, whole.masks)


def test_the_reading_of_floats_is_the_batchs_whatever_the_blocks():
    maps, images, _ = scene()
    images = functional.resize(images, [320, 320]).clamp(0, 1)
    images[1] = 0.5 + 0.02 * images[1]  # by itself it would pass for one in [0, 1] after normalisation
    statistics = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    found = guided(maps, functional.normalize(images, *statistics)).masks
    assert (found != guided(maps, images).masks).float().mean() < 1e-4


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_flat_saliency_has_an_empty_mask(level):
    _, images, _ = scene()
    assert not guided(torch.full((2, 20, 20), level), images).masks.any()


@pytest.mark.parametrize("size", [(8, 8), (5, 300), (224, 224)])
def test_any_size_and_one_channel(size):
    generator = torch.Generator().manual_seed(0)
    maps, images = torch.rand(2, 24, 24, generator=generator), torch.rand(2, 1, *size, generator=generator)
    assert guided(maps, images).masks.shape == (2, *size)


def test_flat_images_keep_the_map():
    maps, images, _ = scene()
    assert iou(guided(maps, torch.full_like(images, 0.4)).masks, otsu(maps, images).masks) > 0.75


def test_empty_batch_and_mixing():
    maps, images, _ = scene()
    assert guided(maps[:0], images[:0]).masks.shape == (0, 96, 128)
    assert mix_batch(images, maps, mask="guided").plan.applied.all()


PEAK = """
import resource, torch
from sgdmix_albu.masks import get_mask
from sgdmix_albu.saliency import get_backend

torch.set_num_threads(1)
backend, mask = get_backend("manifold_ranking"), get_mask("guided")
mask(backend.coarse(torch.rand(1, 3, 64, 64)), torch.rand(1, 3, 64, 64))  # whatever is loaded once
image = torch.randint(0, 256, (1, 3, 4000, 5000), dtype=torch.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
mask(backend.coarse(image), image)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / image[0, 0].numel())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss has another unit elsewhere")
def test_memory_for_one_channel_at_a_time() -> None:
    """Bytes for each pixel: colours in float32 (12), and three images of one channel in float64. It was 101."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 50
