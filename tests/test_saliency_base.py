"""The contract's own checks, and from what a user passes to a backend."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from saliency_models import cnn, images
from torch import Tensor, nn

from sgdmix_albu import albumentations, torchvision
from sgdmix_albu.errors import InvalidInputError, MissingExtraError, SGDMixError, UnknownNameError
from sgdmix_albu.masks import get_mask
from sgdmix_albu.registry import Registry
from sgdmix_albu.saliency import SaliencyBackend, get_backend, list_backends, normalize_maps, register_backend
from sgdmix_albu.saliency import catalogue as catalogue_module
from sgdmix_albu.saliency import resolve as resolve_module
from sgdmix_albu.saliency.base import FunctionBackend, resize_maps


@settings(max_examples=50, deadline=None)
@given(hnp.arrays("float32", (3, 4, 5), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_normalized_maps(values: Any) -> None:
    maps = normalize_maps(torch.from_numpy(values))
    assert maps.isfinite().all()
    for raw, out in zip(values.astype("float64"), maps.double().numpy(), strict=True):
        span = raw.max() - raw.min()
        if span <= abs(raw).max() * 2e-7:
            assert not out.any() or span > 0
        else:
            assert abs(out - (raw - raw.min()) / span).max() < 1e-5


def test_rounding_noise_is_not_contrast() -> None:
    maps = torch.full((1, 8, 8), 0.3)
    maps[0, 0, 0] += 2e-8
    assert not normalize_maps(maps).any()


def test_resizing() -> None:
    maps = torch.rand(2, 4, 4)
    assert resize_maps(maps, (4, 4)) is maps
    assert resize_maps(maps, (8, 6)).shape == (2, 8, 6)
    assert resize_maps(maps[:0], (8, 6)).shape == (0, 8, 6)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.rand(3, 8, 8), r"\(B, C, H, W\) image tensor of .*, got torch.float32 \(3, 8, 8\)"),
        (torch.rand(2, 4, 8, 8), r"grey or RGB images.*got \(2, 4, 8, 8\)"),
        (torch.rand(2, 3, 0, 8), r"image tensor of .*, got torch.float32 \(2, 3, 0, 8\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), "uint8, uint16, int16 from 0 on or float images.*got torch.int64"),
        ([1, 2], "image tensor of integers or floats, got list"),
    ],
)
def test_images_that_do_not_fit(batch: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        get_backend("manifold_ranking")(batch)


def test_a_function_may_write_into_its_images_and_keep_the_channel() -> None:
    batch = images(3)
    before = batch.clone()
    maps = get_backend(lambda given: given.sub_(given.mean()).abs_().mean(1, keepdim=True))(batch)
    assert torch.equal(batch, before)
    torch.testing.assert_close(maps, normalize_maps((before - before.mean()).abs().mean(1)), atol=1 / 65535, rtol=0)


@pytest.mark.parametrize("channels", [2, 4, 12])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.int32, torch.float64, torch.bool])
def test_what_needs_no_colours_takes_any_channels(channels: int, dtype: torch.dtype) -> None:
    batch = torch.zeros(2, channels, 48, 48)
    batch[:, :, 10:30, 12:28] = 1
    raw = batch.to(dtype)
    maps = get_backend(lambda images: images.mean(1))(raw)
    assert torch.equal(maps, batch[:, 0])
    of_grey = get_backend("spectral_residual").coarse(batch[:, :1])
    assert torch.allclose(get_backend("spectral_residual").coarse(raw), of_grey, atol=1e-5)
    for preset in ("otsu", "guided", "grabcut"):
        masks = get_mask(preset)(maps, raw).masks
        wrong = (masks != batch[:, 0].bool()).float().mean()
        assert wrong < 0.02, preset


def test_labels_of_another_batch() -> None:
    with pytest.raises(InvalidInputError, match=r"one label for each of 2 images as .*, got torch.int64 \(3,\)"):
        get_backend("spectral_residual")(images(2), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("microbatch", [None, 1, 2])
@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["spectral_residual", "manifold_ranking"])
def test_broken_pixels(name: str, number: float, microbatch: int | None) -> None:
    batch = images(5)
    batch[3, 0, 5, 5] = batch[4, 1, 0, 0] = number
    with pytest.raises(InvalidInputError, match=r"image\(s\) \[3, 4\] of the batch hold NaN or infinite pixels"):
        get_backend(name, microbatch=microbatch)(batch)


@pytest.mark.parametrize("microbatch", [None, 1, 2])
def test_a_function_is_blamed_for_its_own_faults_only(microbatch: int | None) -> None:
    batch = images(5)
    batch[3] = 0.0
    broken = get_backend(lambda part: part.mean(1) / part.amax((1, 2, 3), keepdim=True)[:, 0], microbatch=microbatch)
    with pytest.raises(SGDMixError, match=r"FunctionBackend gave NaN or infinite saliency for image\(s\) \[3\]"):
        broken(batch)
    batch[1, 0, 5, 5] = torch.nan
    with pytest.raises(InvalidInputError, match=r"image\(s\) \[1\] of the batch hold NaN or infinite pixels"):
        broken(batch)


@pytest.mark.parametrize("microbatch", [0, -1])
def test_microbatch_must_be_positive(microbatch: int) -> None:
    with pytest.raises(InvalidInputError, match="positive integer or None"):
        get_backend("spectral_residual", microbatch=microbatch)


# ---- functions and objects as backends


def test_function() -> None:
    backend = get_backend(lambda batch: batch.mean(1), microbatch=2)
    torch.testing.assert_close(backend(images()), normalize_maps(images().mean(1)))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda batch: batch.mean((1, 2)), r"must return a \(3, h, w\) tensor of maps, got shape \(3, 32\)"),
        (lambda batch: batch.mean(1)[:1], r"got shape \(1, 32, 32\)"),
        (lambda batch: batch.mean(1).numpy(), "got ndarray"),
        (lambda batch: batch.mean(1) / 0, "NaN or infinite"),
    ],
)
def test_function_that_returns_no_maps(function: Any, message: str) -> None:
    with pytest.raises(SGDMixError, match=message):
        get_backend(function)(images())


class Brightness(SaliencyBackend):
    """Brightness to a power."""

    def __init__(self, power: float, *, microbatch: int | None = None) -> None:
        super().__init__(microbatch=microbatch)
        self.power = power

    def _raw(self, images: Tensor, labels: Tensor | None) -> Tensor:
        return images.mean(1) ** self.power


def test_backend_object_and_class() -> None:
    backend = Brightness(2.0)
    assert get_backend(backend) is backend
    assert get_backend(Brightness, power=2.0).power == 2.0
    with pytest.raises(InvalidInputError, match=r"Brightness needs power= .*\. Its options: power, microbatch"):
        get_backend(Brightness)
    with pytest.raises(InvalidInputError, match="has no option 'power'"):
        get_backend(backend, power=3.0)


@pytest.mark.parametrize("spec", [None, 3, dict, "given"])
def test_what_is_no_backend(spec: Any) -> None:
    with pytest.raises(InvalidInputError, match="SaliencyBackend, a captum|come with the samples"):
        get_backend(spec)


def test_module_as_function_is_left_as_it_was() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = cnn().features.train()

        def forward(self, batch: Tensor) -> Tensor:
            assert not self.training
            return self.features(batch).sum(1)

    net = Net().train()
    before = net.features[1].running_mean.clone()
    assert get_backend(net)(images()).shape == (3, 32, 32)
    assert net.training
    assert torch.equal(net.features[1].running_mean, before)


# ---- names


@pytest.fixture
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    registry = Registry("saliency backend", group="sgdmix_albu.saliency")
    for module in (catalogue_module, resolve_module):
        monkeypatch.setattr(module, "BACKENDS", registry)
    return registry


def test_registering(fresh_registry: Registry) -> None:
    register_backend("test_class", Brightness)
    register_backend("test_lazy", f"{__name__}:Brightness")
    register_backend("test_ready", Brightness(1.0))
    register_backend("test_function", lambda batch: batch.mean(1))
    assert {"test_class", "test_lazy", "test_ready", "test_function"} <= set(list_backends())
    expected = get_backend("test_function")(images())
    assert torch.equal(get_backend("test_ready")(images()), expected)
    assert torch.equal(get_backend("test_lazy", power=1.0)(images()), expected)
    assert isinstance(get_backend("test_function"), FunctionBackend)
    with pytest.raises(InvalidInputError, match="'test_class' needs power="):
        get_backend("test_class")


def test_names_that_cannot_be_registered(fresh_registry: Registry) -> None:
    register_backend("test_twice", Brightness)
    with pytest.raises(InvalidInputError, match="registered already"):
        register_backend("test_twice", Brightness)
    with pytest.raises(InvalidInputError, match="come with the samples"):
        register_backend("given", Brightness)
    register_backend("test_missing", "no_such_package.module:Thing")
    with pytest.raises(MissingExtraError, match="pip install no_such_package"):
        get_backend("test_missing")


def test_entry_points(fresh_registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint("test_plugin", f"{__name__}:Brightness", "sgdmix_albu.saliency")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry] if group == entry.group else [])
    assert "test_plugin" in list_backends()
    assert get_backend("test_plugin", power=1.0)(images()).shape == (3, 32, 32)


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown saliency backend 'gradcamm'; did you mean 'gradcam'"):
        get_backend("gradcamm")


def test_listing_is_light() -> None:
    code = (
        "import sys; from sgdmix_albu.saliency import list_backends; assert 'gradcam' in list_backends()\n"
        "heavy = {'torch', 'captum', 'torchvision', 'numpy', 'cv2'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_captum_is_imported_only_when_it_is_needed() -> None:
    code = (
        "import sys, torch; from sgdmix_albu.saliency import get_backend\n"
        "get_backend('spectral_residual')(torch.rand(1, 3, 8, 8)); assert 'captum' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("transform", [torchvision.SGDMix, albumentations.SGDMix])
def test_a_misspelt_argument_of_a_transform_is_told_in_its_words(transform: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"SGDMix has no argument 'candidate'; did you mean 'candidates'\?"):
        transform(candidate=3)
    with pytest.raises(InvalidInputError, match="To look through a classifier pass saliency='gradcam'"):
        transform(model="x.pt")
