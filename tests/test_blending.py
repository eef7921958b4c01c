"""Stage 4 against the equation, pixel by pixel."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.blending import blend, feathered, softened

DTYPES = [torch.uint8, torch.bool, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64]


def batch_of(dtype: torch.dtype, *shape: int, seed: int = 0) -> torch.Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 255).to(dtype)


def random_masks(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        *product([(3, 3, 5, 8), (3, 1, 4, 4), (3, 6, 7), (3, 2, 2, 4, 5), (0, 3, 4, 4)], ["contiguous", "sliced"]),
        ((3, 3, 5, 8), "channels_last"),
    ],
)
def test_hard_blend_is_the_equation(dtype, shape, layout):
    images = batch_of(dtype, *shape)
    if layout == "channels_last":
        images = images.contiguous(memory_format=torch.channels_last)
    if layout == "sliced":
        images = images.repeat_interleave(2, dim=-1)[..., ::2]
    before = images.clone()
    masks = random_masks(shape[0], *shape[-2:])
    target = torch.arange(shape[0]).roll(1)
    mixed = blend(images, images, target, masks)
    assert mixed.dtype == dtype
    assert mixed.shape == images.shape
    assert torch.equal(images, before)
    for i, j in enumerate(target.tolist()):
        for y in range(shape[-2]):
            for x in range(shape[-1]):
                expected = images[i] if masks[i, y, x] else images[j]
                assert torch.equal(mixed[i, ..., y, x], expected[..., y, x])


@pytest.mark.parametrize("rows", [list, torch.Tensor.clone])
def test_output_is_fresh_memory_in_the_same_layout(rows):
    images = batch_of(torch.float32, 2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    mixed = blend(images, rows(images), torch.tensor([0, 1]), torch.ones(2, 4, 4, dtype=torch.bool))
    assert torch.equal(mixed, images)
    assert mixed.data_ptr() != images.data_ptr()
    assert mixed.is_contiguous(memory_format=torch.channels_last)


def test_nan_of_the_other_image_does_not_leak():
    images = torch.tensor([1.0, torch.nan])[:, None, None, None].expand(2, 1, 2, 2)
    masks = torch.tensor([[[True, False], [True, True]]]).expand(2, 2, 2)
    mixed = blend(images, images, torch.tensor([1, 0]), masks)
    assert mixed[0].isnan().tolist() == [[[False, True], [False, False]]]
    assert mixed[1].isnan().tolist() == [[[True, False], [True, True]]]


def test_pool_may_be_a_list_of_images():
    images = batch_of(torch.float32, 3, 3, 4, 5)
    masks = random_masks(3, 4, 5)
    target = torch.tensor([2, 2, 0])
    for feather in (0, 2):
        expected = blend(images, images, target, masks, feather=feather)
        assert torch.equal(blend(images, list(images), target, masks, feather=feather), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("width", [1, 2, 5, 9.5])
def test_feather_keeps_the_source_inside_and_the_target_far_outside(dtype, width):
    images = batch_of(dtype, 2, 3, 40, 48)
    masks = torch.zeros(2, 40, 48, dtype=torch.bool)
    masks[:, 15:25, 18:30] = True
    masks[:, 20, 5:18] = True  # a leg one pixel wide
    mixed = blend(images, images, torch.tensor([1, 0]), masks, feather=width)
    keep = masks[:, None].expand_as(images)
    assert torch.equal(mixed[keep], images[keep])
    far = torch.ones(40, 48, dtype=torch.bool)
    reach = int(width) + 2
    far[max(0, 15 - reach) : 25 + reach, max(0, 5 - reach) : 30 + reach] = False
    assert far.any()
    assert torch.equal(mixed[0][:, far], images[1][:, far])
    low, high = torch.minimum(images[0], images[1]).float(), torch.maximum(images[0], images[1]).float()
    slack = 1 if dtype in (torch.float16, torch.bfloat16) else 1e-3
    assert ((mixed[0].float() >= low - slack) & (mixed[0].float() <= high + slack)).all()


@given(st.integers(1, 12), st.integers(0, 1000))
def test_feather_weights_fall_from_one_to_zero(width, seed):
    masks = torch.zeros(1, 30, 60, dtype=torch.bool)
    masks[:, :, :20] = True
    weights = feathered(masks, width)[0, 15]
    assert (weights[:20] == 1).all()
    assert (weights.diff() <= 1e-6).all()
    assert (weights[20 + width + 2 :] == 0).all()
    assert 0 < weights[20] < 1


@given(st.integers(1, 40), st.integers(0, 1000))
def test_feather_is_a_box_blur_repeated_and_doubled(width, seed):
    """By scipy, which does not cut windows at the border: only the middle is compared."""
    radius = max(1, round(width / 2))
    masks = random_masks(2, 60 + 4 * radius, 50 + 4 * radius, seed=seed)
    blurred = masks.double().numpy()
    for _ in range(2):
        blurred = ndimage.uniform_filter(blurred, (1, 2 * radius + 1, 2 * radius + 1), mode="constant")
    expected = np.maximum(np.minimum(2 * blurred, 1), masks.numpy())
    middle = np.s_[:, 2 * radius : -2 * radius, 2 * radius : -2 * radius]
    np.testing.assert_allclose(feathered(masks, width).numpy()[middle], expected[middle], atol=1 / 65536)


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 12))
def test_softened_is_the_share_of_the_neighbourhood(seed, height, width):
    masks = random_masks(2, height, width, seed=seed).numpy()
    inside, all_of_it = (
        ndimage.convolve(part.astype(float), np.ones((1, 3, 3)), mode="constant") for part in (masks, masks | True)
    )
    np.testing.assert_allclose(softened(torch.from_numpy(masks)).numpy(), inside / all_of_it, atol=1 / 65536)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_soft_border_is_two_pixels_wide(dtype):
    images = batch_of(dtype, 2, 3, 9, 12)
    masks = torch.zeros(2, 9, 12, dtype=torch.bool)
    masks[:, :, :6] = True
    mixed = blend(images, images, torch.tensor([1, 0]), masks, feather=None)
    assert torch.equal(mixed[..., :5], images[..., :5])
    assert torch.equal(mixed[..., 7:], images.flip(0)[..., 7:])
    own, other = images.double(), images.flip(0).double()
    for column, share in ((5, 2 / 3), (6, 1 / 3)):
        expected = share * own[..., column] + (1 - share) * other[..., column]
        slack = 0.51 if dtype == torch.uint8 else 0.01
        torch.testing.assert_close(mixed[..., column].double(), expected, rtol=0, atol=slack)


@pytest.mark.parametrize("width", [6, None])
def test_feathered_bytes_are_rounded_exactly(width):
    """Halves go to the even number, as in numpy; the weights are whole steps, so nothing else is rounded."""
    images = torch.randint(0, 256, (2, 3, 30, 30), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    masks = random_masks(2, 30, 30)
    weights = softened(masks) if width is None else feathered(masks, width)
    steps = (weights.double() * 65536).numpy()
    assert (steps == steps.round()).all()
    own, other = images.numpy().astype(np.int64), images.flip(0).numpy().astype(np.int64)
    doubled = 65536 * other + steps.astype(np.int64)[:, None] * (own - other)
    whole, rest = np.divmod(doubled, 65536)
    expected = whole + ((rest > 32768) | ((rest == 32768) & (whole % 2 == 1)))
    assert np.array_equal(blend(images, images, torch.tensor([1, 0]), masks, feather=width).numpy(), expected)


@pytest.mark.parametrize("pool", ["tensor", "list"])
@pytest.mark.parametrize("feather", [0, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_gradients_flow_to_both_images(dtype, feather, pool):
    """The gradient of a pixel is its weight for the source, and the rest for the target."""
    images = batch_of(dtype, 2, 1, 12, 12).requires_grad_()
    masks = random_masks(2, 12, 12)
    rows = images if pool == "tensor" else list(images)
    mixed = blend(images, rows, torch.tensor([1, 0]), masks, feather=feather)
    mixed[0].sum().backward()
    weight = feathered(masks, feather)[0] if feather else masks[0].float()
    close = {"atol": 2e-3, "rtol": 0}
    torch.testing.assert_close(images.grad[0, 0].float(), weight, **close)
    torch.testing.assert_close(images.grad[1, 0].float(), 1 - weight, **close)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"masks": torch.zeros(2, 3, 4, dtype=torch.bool)},
            r"masks \(2, 4, 4\) for images \(2, 3, 4, 4\), got torch.bool \(2, 3, 4\)",
        ),
        ({"masks": torch.zeros(2, 4, 4)}, "torch.float32"),
        ({"target": torch.tensor([0])}, "one target for each of 2 images"),
        ({"pool": torch.zeros(2, 3, 5, 4)}, r"got torch.float32 \(3, 5, 4\)"),
        ({"pool": torch.zeros(2, 3, 4, 4, dtype=torch.half)}, "got torch.float16"),
        ({"feather": -1}, "got -1"),
        ({"feather": float("nan")}, "got nan"),
        ({"feather": float("inf")}, "got inf"),
        ({"feather": "soft"}, "or None, got 'soft'"),
        ({"target": torch.tensor([1.0, 0.0])}, r"whole numbers, got torch.float32 \(2,\)"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {
        "source": torch.zeros(2, 3, 4, 4),
        "pool": torch.zeros(2, 3, 4, 4),
        "target": torch.tensor([1, 0]),
        "masks": torch.zeros(2, 4, 4, dtype=torch.bool),
    }
    with pytest.raises(InvalidInputError, match=message):
        blend(**{**arguments, **change})
