"""Which range images are in: recognised with a margin, said, or refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.colour import to_float, to_rgb
from sgdmix_albu.mixing.guides import eight_bits, reading_of_guides, to_guide

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
CLIP = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}


def photographs(n: int = 3, side: int = 40) -> torch.Tensor:
    """Like photographs in what matters here: black and white and all between, with edges."""
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(n, 3, side // 4, side // 4, generator=generator)
    images = torch.nn.functional.interpolate(low, (side, side), mode="bilinear")
    images[..., 4:9, 4:9], images[..., 12:20, 12:20] = 0.0, 1.0
    return images


@pytest.mark.parametrize("value", [1.0001, -0.0001, 1.3, -0.4])
def test_one_stray_pixel_changes_nothing(value) -> None:
    images = photographs()
    images[0, :, 0, 0] = value
    torch.testing.assert_close(to_rgb(images), images.clamp(0, 1), rtol=0, atol=0)


@pytest.mark.parametrize("antialias", [True, False])
def test_overshoot_is_clamped(antialias) -> None:
    images = functional.resize(photographs(), [64, 64], interpolation=v2.InterpolationMode.BICUBIC, antialias=antialias)
    assert images.min() < 0
    assert images.max() > 1
    assert torch.equal(to_rgb(images), images.clamp(0, 1))


@pytest.mark.parametrize("kernel", [cv2.INTER_CUBIC, cv2.INTER_LANCZOS4])
def test_overshoot_of_opencv_is_clamped(kernel) -> None:
    array = cv2.resize(photographs(1)[0].permute(1, 2, 0).numpy(), (90, 90), interpolation=kernel)
    images = torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)[None]
    assert images.max() > 1
    assert torch.equal(to_rgb(images), images.clamp(0, 1))


@pytest.mark.parametrize("statistics", [IMAGENET, CLIP], ids=["imagenet", "clip"])
def test_what_is_said_is_undone(statistics) -> None:
    images = photographs()
    normalised = functional.normalize(images, **statistics)
    torch.testing.assert_close(to_rgb(normalised, **statistics), images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("statistics", [{"mean": [0.5] * 3, "std": [0.5] * 3}, {"mean": (0.5,), "std": (0.5,)}])
def test_halves_must_be_said(statistics) -> None:
    images = photographs()
    normalised = functional.normalize(images, [0.5] * 3, [0.5] * 3)
    torch.testing.assert_close(to_rgb(normalised, **statistics), images, rtol=0, atol=1e-6)
    with pytest.raises(InvalidInputError, match=r"from -1 to 1, .*mean = std = 0.5 would fit.*Pass mean="):
        to_rgb(normalised)


def test_imagenets_statistics_are_recognised_for_the_whole_batch() -> None:
    images = photographs()
    images[1] = 0.6  # by itself it would pass for an image in [0, 1]
    normalised = functional.normalize(images, **IMAGENET)
    torch.testing.assert_close(to_rgb(normalised), images, rtol=0, atol=1e-6)


def test_dull_images_with_imagenets_statistics_are_not_taken_for_overshoot() -> None:
    """Their extremes lie where an overshoot's may, but too many of their values do."""
    images = 0.4 + 0.3 * torch.rand(4, 3, 60, 60, generator=torch.Generator().manual_seed(0))
    standardised = functional.normalize(images, **IMAGENET)
    assert -0.5 < standardised.min() < 0
    assert 1 < standardised.max() < 1.5
    torch.testing.assert_close(to_rgb(standardised), images, atol=1e-5, rtol=0)


def test_overshoot_before_imagenets_normalisation() -> None:
    images = functional.resize(photographs(), [64, 64], interpolation=v2.InterpolationMode.BICUBIC)
    normalised = functional.normalize(images, **IMAGENET)
    torch.testing.assert_close(to_rgb(normalised), images.clamp(0, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("scale", "message"), [(255, "from 0 to 255, .*image.s. .0, 1, 2. of 3.*divide"), (65535, "65535")]
)
def test_floats_of_another_scale_are_refused(scale, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        to_rgb(photographs() * scale)


def test_grey_images() -> None:
    images = photographs()[:, :1]
    assert torch.equal(to_rgb(images), images.expand(-1, 3, -1, -1))
    mnist = functional.normalize(images, [0.1307], [0.3081])
    torch.testing.assert_close(
        to_rgb(mnist, mean=[0.1307], std=[0.3081]), images.expand(-1, 3, -1, -1), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16])
def test_integers_are_scaled_as_torchvision_scales_them(dtype) -> None:
    images = (photographs() * torch.iinfo(dtype).max).to(dtype)
    expected = functional.to_dtype(images, torch.float32, scale=True)
    torch.testing.assert_close(to_rgb(images), expected)
    torch.testing.assert_close(to_rgb(images, **IMAGENET), expected)  # integers were never normalised
    torch.testing.assert_close(to_float(images), expected)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 4, 8, 8), r"got \(1, 4, 8, 8\): for other channels"),
        (torch.zeros(1, 2, 8, 8), r"got \(1, 2, 8, 8\)"),
        (torch.zeros(3, 8, 8), r"got \(3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "got torch.int64"),
        (torch.full((1, 3, 8, 8), -5, dtype=torch.int16), "int16 with negative values"),
        (torch.full((2, 3, 8, 8), torch.nan), r"image\(s\) \[0, 1\] of the batch hold NaN"),
        (torch.full((1, 3, 8, 8), torch.inf), r"NaN or infinite"),
    ],
)
def test_what_has_no_colours_is_refused(images, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        to_rgb(images)


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ({"mean": [0.5]}, "got std=None"),
        ({"std": [0.5]}, "got mean=None"),
        ({"mean": 0.5, "std": 0.5}, "got mean=0.5"),
        ({"mean": "0.5", "std": [0.5]}, "got mean='0.5'"),
        ({"mean": [], "std": [0.5]}, r"got mean=\[\]"),
        ({"mean": ["a"], "std": [0.5]}, r"got mean=\['a'\]"),
        ({"mean": [0.5], "std": [0.0]}, "must be positive"),
        ({"mean": [float("inf")], "std": [1.0]}, "must be finite"),
        ({"mean": [0.5, 0.5], "std": [0.5]}, "mean has 2 numbers, and the images have 3"),
    ],
)
def test_statistics_are_checked(statistics, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        to_rgb(photographs(), **statistics)


def test_nothing_in_nothing_out() -> None:
    assert to_rgb(torch.zeros(0, 3, 8, 8)).shape == (0, 3, 8, 8)


def test_photographs_standardised_or_resized_are_told_apart(shared_data) -> None:
    from sgdmix_albu.io.images import read_image

    files = sorted((shared_data / "birds").rglob("*.jpg"))[::40][:12]
    for file in files:
        image = functional.to_dtype(functional.to_image(read_image(file)), torch.float32, scale=True)[None]
        resized = functional.resize(image, [224, 224], interpolation=v2.InterpolationMode.BICUBIC)
        assert torch.equal(to_rgb(resized), resized.clamp(0, 1))
        standardised = functional.normalize(image, **IMAGENET)
        torch.testing.assert_close(to_rgb(standardised), image, rtol=0, atol=1e-5)
        with pytest.raises(InvalidInputError, match="Pass mean="):
            to_rgb(functional.normalize(image, [0.5] * 3, [0.5] * 3))


def test_guides_at_eight_bits_are_the_same_whatever_holds_them() -> None:
    """Of bytes the bytes; of floats, halves and normalised ones the same; without colours, stretched grey."""
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, -1, -1).clone()
    images[1] = images[1].flip(-1)
    floats = images / 255
    for held in (images, floats, floats.double(), functional.normalize(floats, **IMAGENET), images.short() * 128 + 64):
        found = eight_bits(held[1:], reading_of_guides(held))
        assert found.dtype == torch.uint8
        assert torch.equal(found, images[1:])
    many = torch.stack([floats[0, 0], 3 * floats[0, 0]])[None]
    assert reading_of_guides(many) is None
    assert torch.equal(eight_bits(many, None), images[:1])
    assert torch.equal(to_guide(images), floats)
