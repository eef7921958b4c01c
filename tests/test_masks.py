"""Stage 3 against scikit-image, OpenCV and the definition of Otsu's criterion."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.filters import threshold_otsu
from torch.nn.functional import avg_pool2d

from sgdmix_albu.errors import InvalidInputError, UnknownNameError
from sgdmix_albu.mixing.masks import above, get_mask, otsu, otsu_threshold, rounded, working_maps
from sgdmix_albu.mixing.stretching import upsampled

maps_8bit = hnp.arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)))


def as_maps(levels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(levels).float() / 255


def between_class_variance(levels: np.ndarray, threshold: int) -> float:
    """Otsu's criterion by its definition: w0 w1 (mean0 - mean1)^2 of the two classes."""
    low, high = levels[levels <= threshold].astype(float), levels[levels > threshold].astype(float)
    if not low.size or not high.size:
        return 0.0
    return low.size * high.size / levels.size**2 * (low.mean() - high.mean()) ** 2


@given(maps_8bit)
def test_otsu_maximises_the_between_class_variance(levels):
    thresholds = otsu_threshold(as_maps(levels)) * 255 - 0.5
    for one, threshold in zip(levels, thresholds.tolist(), strict=True):
        best = max(between_class_variance(one, level) for level in range(256))
        assert between_class_variance(one, round(threshold)) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_otsu_splits_like_scikit_image_and_opencv(seed):
    rng = np.random.default_rng(seed)
    smooth = cv2.GaussianBlur(rng.random((64, 48)), (0, 0), 2 + seed)
    levels = np.uint8(255 * (smooth - smooth.min()) / np.ptp(smooth))
    mask = as_maps(levels[None]) > otsu_threshold(as_maps(levels[None]))[:, None, None]
    np.testing.assert_array_equal(mask[0].numpy(), levels > threshold_otsu(levels))
    np.testing.assert_array_equal(mask[0].numpy(), cv2.threshold(levels, 0, 1, cv2.THRESH_OTSU)[1].astype(bool))


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_flat_map_has_an_empty_mask(level):
    maps = torch.full((1, 5, 7), level / 255)
    assert not otsu(maps, torch.zeros(1, 3, 5, 7)).masks.any()


def test_one_hot_map_keeps_its_one_pixel():
    maps = torch.zeros(2, 6, 6)
    maps[0, 2, 3] = 1
    maps[1, 5, 5] = 1 / 255
    masks = otsu(maps, torch.zeros(2, 3, 6, 6)).masks
    assert masks.flatten(1).sum(1).tolist() == [1, 1]
    assert masks[0, 2, 3]
    assert masks[1, 5, 5]


def test_one_hot_pixel_survives_the_working_resolution():
    maps = torch.zeros(1, 224, 224)
    maps[0, 100, 30] = 1
    masks = otsu(maps, torch.zeros(1, 3, 224, 224)).masks
    assert masks.nonzero().tolist() == [[0, 100, 30]]


def test_threshold_at_working_resolution_is_close_to_the_full_one():
    rng = np.random.default_rng(0)
    smooth = np.stack([cv2.GaussianBlur(rng.random((224, 224)), (0, 0), 12) for _ in range(8)])
    maps = torch.from_numpy(smooth - smooth.min((1, 2), keepdims=True)).float()
    maps /= maps.amax((1, 2), keepdim=True)
    difference = (otsu(maps, torch.zeros(8, 3, 224, 224)).thresholds - otsu_threshold(maps)).abs()
    assert difference.max() <= 3 / 255


@pytest.mark.parametrize(("size", "expected"), [((64, 50), (64, 50)), ((128, 129), (43, 43)), ((224, 224), (56, 56))])
def test_working_resolution(size, expected):
    assert working_maps(torch.rand(2, *size)).shape == (2, *expected)


def test_coarse_maps_give_masks_of_the_images_size():
    maps = torch.zeros(1, 4, 4)
    maps[:, 1:3, 1:3] = 1
    masks, thresholds = otsu(maps, torch.zeros(1, 3, 40, 20))
    assert masks.shape == (1, 40, 20)
    assert thresholds.shape == (1,)
    assert masks[0, 20, 10]
    assert not masks[0, 0].any()


@pytest.mark.parametrize(("old", "new"), [((64, 64), (224, 200)), ((7, 9), (7, 40)), ((40, 40), (30, 8))])
def test_upsampling_is_bilinear_interpolation(old, new):
    maps = torch.rand(3, *old, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(maps[:, None], size=new, mode="bilinear")[:, 0]
    torch.testing.assert_close(upsampled(maps, torch.zeros(3, 3, *new)), expected)


def test_empty_batch():
    masks, thresholds = otsu(torch.zeros(0, 4, 4), torch.zeros(0, 3, 8, 8))
    assert masks.shape == (0, 8, 8)
    assert thresholds.shape == (0,)


@pytest.mark.parametrize("preset", ["guided", "grabcut"])
def test_presets_that_read_floats_refuse_bytes(preset):
    with pytest.raises(InvalidInputError, match="floating-point maps, got torch.uint8"):
        get_mask(preset)(torch.zeros(1, 8, 8, dtype=torch.uint8), torch.zeros(1, 3, 8, 8))


def test_integer_maps_but_bytes_are_refused():
    with pytest.raises(InvalidInputError, match="floating-point maps, got torch.int64"):
        otsu_threshold(torch.zeros(1, 2, 2, dtype=torch.int64))


@pytest.mark.parametrize("size", [(9, 7), (64, 64), (65, 130), (224, 224)])
@pytest.mark.parametrize("levels", [(0, 255), (0, 1, 2, 254, 255), (7,), (255,), range(256)])
def test_bytes_are_the_floats_that_they_stand_for(size, levels):
    levels = torch.tensor(list(levels), dtype=torch.uint8)
    maps = levels[torch.randint(len(levels), (4, *size))]
    images = torch.zeros(4, 3, *size)
    masks, thresholds = otsu(maps, images)
    step = -(-max(size) // 64)
    seen = maps[:, ::step, ::step]
    expected = [threshold_otsu(one) if len(levels) > 1 else one.max() for one in seen.numpy()]
    assert torch.equal(masks, maps > torch.tensor(np.array(expected))[:, None, None])
    assert torch.equal(thresholds, otsu_threshold(seen / 255))


@pytest.mark.parametrize("size", [(64, 64), (65, 130), (224, 200), (1500, 7)])
def test_working_maps_are_means_of_windows(size):
    maps = torch.randint(256, (3, *size), dtype=torch.uint8)
    factor = -(-max(size) // 64)
    expected = avg_pool2d(maps[:, None].double() / 255, factor, ceil_mode=True)[:, 0]
    for form in (maps, maps / 255, maps.double() / 255):
        found = working_maps(form)
        assert found.dtype == (torch.float64 if factor == 1 and form.dtype == torch.float64 else torch.float32)
        assert (found - expected).abs().max() <= 0.5 / 65535 + 1e-7


def test_preset_names():
    assert get_mask("otsu") is otsu
    assert get_mask(otsu) is otsu
    with pytest.raises(UnknownNameError, match="did you mean 'otsu'"):
        get_mask("otso")
    with pytest.raises(InvalidInputError, match="got int"):
        get_mask(3)


@pytest.mark.parametrize("length", range(3, 100, 2))
def test_a_pixel_that_meets_the_threshold_is_background(length):
    """The middle of a step from 0 to 1 is one half, but for rounding errors."""
    found = above(torch.tensor([[[0.0, 1.0]]]), torch.tensor([0.5]), torch.zeros(1, 1, 1, length))[0, 0]
    assert found.tolist() == [False] * (length // 2 + 1) + [True] * (length // 2)


def test_rounded_maps_are_whole_steps():
    maps = torch.rand(1, 50, 50, dtype=torch.float64)
    steps = rounded(maps).double() * 65535
    assert (steps - steps.round()).abs().max() < 0.01
    assert (rounded(maps).double() - maps).abs().max() <= 0.5 / 65535 + 1e-7
    assert rounded(torch.tensor([[[0.0, 1.0]]], dtype=torch.float64)).tolist() == [[[0.0, 1.0]]]
