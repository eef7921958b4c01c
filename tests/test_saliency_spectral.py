"""Spectral residual against the paper's equations and against OpenCV-contrib's implementation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor
from torch.nn import functional as F

from sgdmix_albu.saliency import get_backend
from sgdmix_albu.saliency.spectral_residual import SpectralResidual

GOLDEN = Path(__file__).parent / "golden" / "spectral_residual_opencv.npz"


def paper(grey: np.ndarray) -> np.ndarray:
    """Hou and Zhang 2007, section 2.2, line by line, for one 64 x 64 grey image."""
    spectrum = np.fft.fft2(grey)
    amplitude, phase = np.abs(spectrum), np.angle(spectrum)
    log_spectrum = np.log(amplitude)
    residual = log_spectrum - ndimage.uniform_filter(log_spectrum, 3, mode="wrap")
    saliency = np.abs(np.fft.ifft2(np.exp(residual + 1j * phase))) ** 2
    mass = ndimage.gaussian_filter(np.ones_like(saliency), 2.5, mode="constant", truncate=4)
    smooth = ndimage.gaussian_filter(saliency, 2.5, mode="constant", truncate=4) / mass
    return (smooth - smooth.min()) / (smooth.max() - smooth.min())


def scene(seed: int, size: tuple[int, int] = (64, 64)) -> Tensor:
    """(3, H, W) in [0, 1], with 0 and 1 in its grey: smooth noise and a patch of another texture."""
    rng = np.random.default_rng(seed)
    grey = ndimage.gaussian_filter(rng.random(size), 2)
    y, x = rng.integers(8, min(size) - 24, 2)
    grey[y : y + 12, x : x + 14] += 0.3 * rng.random((12, 14))
    grey = (grey - grey.min()) / (grey.max() - grey.min())
    return torch.from_numpy(grey).to(torch.float32).expand(3, -1, -1).clone()


def rank_correlation(a: Tensor, b: np.ndarray) -> float:
    return float(stats.spearmanr(a.flatten().numpy(), b.ravel()).statistic)


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_paper_at_its_own_resolution(seed: int) -> None:
    image = scene(seed)
    ours = SpectralResidual().coarse(image[None])[0].numpy()
    np.testing.assert_allclose(ours, paper(image[0].double().numpy()), atol=2e-3)


@pytest.mark.parametrize("size", [(224, 224), (150, 333), (64, 40), (20, 30)])
def test_other_sizes_are_brought_to_64_without_aliasing(size: tuple[int, int]) -> None:
    image = scene(1, size) if min(size) > 40 else F.interpolate(scene(1)[None], size=size, mode="area")[0]
    small = F.interpolate(image[None], size=(64, 64), mode="bilinear", antialias=True)[0, 0].double().numpy()
    small = (small - small.min()) / (small.max() - small.min())
    assert rank_correlation(SpectralResidual().coarse(image[None])[0], paper(small)) > 0.95


def test_agrees_with_opencv() -> None:
    """Rank correlations with maps that cv2.saliency made of the same images; see golden/make_*.py."""
    golden = np.load(GOLDEN)
    images = torch.from_numpy(golden["images"]).permute(0, 3, 1, 2)
    ours = F.interpolate(SpectralResidual().coarse(images)[:, None], size=golden["maps"].shape[1:], mode="bilinear")
    agreement = [rank_correlation(a[0], b) for a, b in zip(ours, golden["maps"], strict=True)]
    # OpenCV resizes without anti-aliasing, mirrors the spectrum's border and smooths otherwise.
    assert min(agreement) > 0.8
    assert np.mean(agreement) > 0.85


@pytest.mark.parametrize(("scale", "shift"), [(1 / 0.226, -0.449 / 0.226), (255.0, 0.0), (1e-3, 5e-3)])
def test_range_does_not_matter(scale: float, shift: float) -> None:
    batch = torch.stack([scene(seed, (100, 120)) for seed in range(3)])
    expected = SpectralResidual().coarse(batch)
    torch.testing.assert_close(SpectralResidual().coarse(batch * scale + shift), expected, rtol=0, atol=5e-3)


def test_grey_images() -> None:
    batch = torch.stack([scene(seed) for seed in range(2)])
    torch.testing.assert_close(SpectralResidual().coarse(batch[:, :1]), SpectralResidual().coarse(batch))


def test_rounding_errors_are_not_amplified() -> None:
    """Stripes have few frequencies; the others are rounding errors, and must not make the map."""
    stripes = (torch.arange(64.0) * 0.3).sin().mul(0.4).add(0.5).expand(1, 3, 64, 64)
    maps = SpectralResidual().coarse(stripes)
    assert (maps[:, 20:44] - maps[:, 32:33]).abs().max() < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_odd_texture_stands_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grey = ndimage.gaussian_filter(rng.random((128, 128)), 4)
    grey = (grey - grey.min()) / np.ptp(grey)
    grey[40:72, 64:96] += 0.5 * rng.random((32, 32))
    saliency = SpectralResidual()(torch.from_numpy(grey).expand(1, 3, -1, -1))[0]
    inside = saliency[40:72, 64:96].mean()
    saliency[40:72, 64:96] = 0
    outside = saliency.sum() / (128 * 128 - 32 * 32)
    assert inside > 4 * outside


def test_captum_interface() -> None:
    batch = torch.stack([scene(seed, (40, 60)) for seed in range(2)])
    attributions = SpectralResidual().attribute(batch, target=3)
    assert attributions.shape == batch.shape
    assert torch.equal(attributions[:, 1], SpectralResidual()(batch))


def test_rank_correlation_on_photographs(shared_data: Path) -> None:
    """Not an agreement with anything but itself: photographs, standardised or not, give the same order."""
    from sgdmix_albu.io.images import read_image

    paths = sorted(shared_data.glob("birds/train/*/*.jpg"))[::60]
    for path in paths:
        image = torch.from_numpy(np.array(read_image(path))).permute(2, 0, 1)[None]
        standard = (image / 255 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / 0.226
        plain = get_backend("spectral_residual").coarse(image)
        assert rank_correlation(plain, get_backend("spectral_residual").coarse(standard).numpy()) > 0.98
