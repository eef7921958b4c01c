"""Painting the target's object out, against pull-push by matrices and SciPy's distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.fill import grown, inpaint, inpaint_into, inpaint_nearest
from sgdmix_albu.mixing.pyramid import enlarged, enlarged_at

DTYPES = [torch.uint8, torch.int16, torch.uint16, torch.int64, torch.float16, torch.float32, torch.float64]
SIZES = st.tuples(st.integers(1, 20), st.integers(1, 20))


def pictures(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    images = torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
    return images.to(dtype) if dtype.is_floating_point else (255 * images).to(dtype)


def holes_in(seed: int, n: int, height: int, width: int, share: float = 0.7) -> torch.Tensor:
    """Anywhere, but never all of an image."""
    stream = torch.Generator().manual_seed(seed)
    holes = torch.rand(n, height, width, generator=stream) < share
    places = torch.randint(height * width, (n, 1), generator=stream)
    holes.flatten(1).scatter_(1, places, False)
    return holes


def coarser(length: int) -> np.ndarray:
    """(length / 2, length): what each coarse cell takes of the fine ones."""
    cells = np.zeros((-(-length // 2), length))
    for cell, row in enumerate(cells):
        for place, weight in ((2 * cell - 1, length % 2), (2 * cell, 1 + length % 2), (2 * cell + 1, 1)):
            if 0 <= place < length:
                row[place] = weight
    return cells


def finer(values: np.ndarray, length: int) -> np.ndarray:
    """Columns of coarse cells read by linear interpolation at the fine pixels' centres."""
    cells = np.arange(len(values))
    centres = np.arange(length) / 2 if length % 2 else (np.arange(length) + 0.5) / 2 - 0.5
    return np.stack([np.interp(centres, cells, column) for column in values.T], axis=1)


def pull_push(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    if known.all():
        return image
    rows, columns = (coarser(length) for length in image.shape)
    weight = rows @ known @ columns.T
    means = rows @ np.where(known, image, 0) @ columns.T / np.maximum(weight, 1)
    pushed = finer(finer(pull_push(means, weight > 0), len(image)).T, image.shape[1]).T
    return np.where(known, image, pushed)


@given(st.integers(0, 1000), SIZES)
def test_inpaint_is_pull_push(seed, size):
    images, holes = pictures(seed, 2, 3, *size, dtype=torch.float64), holes_in(seed, 2, *size)
    expected = [
        [pull_push(channel.numpy(), ~hole.numpy()) for channel in image]
        for image, hole in zip(images, holes, strict=True)
    ]
    np.testing.assert_allclose(inpaint(images, holes).numpy(), np.array(expected), atol=1e-12)


@pytest.mark.parametrize("paint", [inpaint, inpaint_nearest])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.bfloat16, torch.bool])
@pytest.mark.parametrize("shape", [(3, 9, 14), (3, 2, 16, 16), (3, 2, 2, 7, 8), (0, 3, 4, 4), (2, 0, 4, 4)])
def test_the_rest_is_bit_identical(paint, dtype, shape):
    images = pictures(0, *shape, dtype=dtype)
    holes = holes_in(1, len(images), *shape[-2:])
    before = images.clone()
    painted = paint(images, holes)
    assert painted.dtype == dtype
    assert torch.equal(images, before)
    assert painted.data_ptr() != images.data_ptr() or not images.numel()
    rest = ~holes.view(len(images), *[1] * (images.ndim - 3), *shape[-2:]).expand(shape)
    assert np.array_equal(painted.float()[rest], images.float()[rest])


@pytest.mark.parametrize("dtype", DTYPES)
@given(seed=st.integers(0, 1000), size=SIZES, level=st.integers(0, 255))
def test_one_colour_stays_one_colour(dtype, seed, size, level):
    images = torch.full((2, 1, *size), level / 255 if dtype.is_floating_point else level)
    holes = holes_in(seed, 2, *size)
    painted = inpaint(images.masked_fill(holes[:, None], 9).to(dtype), holes)
    images = images.to(dtype)
    if dtype.is_floating_point:
        torch.testing.assert_close(painted, images, rtol=1e-6 if dtype == torch.float32 else 1e-3, atol=0)
    else:
        assert torch.equal(painted, images)


@given(st.integers(0, 1000), SIZES)
def test_paint_lies_between_the_known_colours(seed, size):
    images, holes = pictures(seed, 3, 2, *size), holes_in(seed, 3, *size)
    images[0] = images[0].round()  # 0 and 1
    painted = inpaint(images, holes)
    assert painted[0].min() >= 0
    assert painted[0].max() <= 1
    known = images.masked_fill(holes[:, None], torch.nan).flatten(2).numpy()
    low, high = np.nanmin(known, 2)[..., None], np.nanmax(known, 2)[..., None]
    values = painted.flatten(2).numpy()
    assert ((values >= low - 1e-6) & (values <= high + 1e-6)).all()


@given(st.integers(0, 1000), SIZES, st.floats(-3, 3), st.floats(-3, 3))
def test_inpainting_is_affine_in_the_colours(seed, size, slope, offset):
    images, holes = pictures(seed, 1, 2, *size, dtype=torch.float64), holes_in(seed, 1, *size)
    torch.testing.assert_close(inpaint(slope * images + offset, holes), slope * inpaint(images, holes) + offset)


@given(st.integers(0, 1000), SIZES)
def test_flips_commute(seed, size):
    images, holes = pictures(seed, 1, 2, *size, dtype=torch.float64), holes_in(seed, 1, *size)
    for dims in ([2], [3], [2, 3]):
        flipped = inpaint(images.flip(dims), holes.flip([dim - 1 for dim in dims]))
        torch.testing.assert_close(flipped.flip(dims), inpaint(images, holes), rtol=0, atol=1e-14)
    turned = inpaint(images.transpose(2, 3), holes.transpose(1, 2)).transpose(2, 3)
    torch.testing.assert_close(turned, inpaint(images, holes), rtol=0, atol=1e-14)


@pytest.mark.parametrize("paint", [inpaint, inpaint_nearest])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_batch_is_its_images_one_by_one(paint, dtype):
    images, holes = pictures(3, 6, 3, 37, 50, dtype=dtype), holes_in(4, 6, 37, 50, share=0.9)
    holes[2] = False
    alone = [paint(images[i : i + 1], holes[i : i + 1]) for i in range(6)]
    assert torch.equal(paint(images, holes), torch.cat(alone))
    assert torch.equal(alone[2][0], images[2])


def test_what_a_hole_hides_does_not_show():
    images, holes = pictures(5, 2, 3, 30, 30), holes_in(6, 2, 30, 30)
    for hidden in (torch.nan, torch.inf, 1e30):
        other = images.masked_fill(holes[:, None], hidden)
        assert torch.equal(inpaint(other, holes), inpaint(images, holes))


def test_paint_is_smooth_where_the_hole_is_wide():
    """A ramp stays a ramp, more or less: neighbours in the hole differ by little more than the ramp rises."""
    images = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    holes = torch.zeros(1, 64, 64, dtype=torch.bool)
    holes[:, 10:50, 20:44] = True
    painted = inpaint(images, holes)
    assert painted.diff(dim=3).abs().max() < 4 / 63
    assert painted.diff(dim=2).abs().max() < 4 / 63
    assert (painted - images).abs().max() < 0.1


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_format_is_kept(memory_format):
    images = pictures(0, 2, 3, 8, 8).contiguous(memory_format=memory_format)
    for paint in (inpaint, inpaint_nearest):
        assert paint(images, holes_in(0, 2, 8, 8)).is_contiguous(memory_format=memory_format)


def test_gradients_flow_outside_holes_alone():
    images, holes = pictures(0, 2, 3, 8, 8).requires_grad_(), holes_in(0, 2, 8, 8)
    inpaint(images, holes).sum().backward()
    assert torch.equal(images.grad, (~holes)[:, None].float().expand(2, 3, 8, 8))


@given(st.integers(0, 1000), SIZES, st.sampled_from([0.3, 0.9, 1.0]))
def test_nearest_is_nearest_by_city_block(seed, size, share):
    holes = holes_in(seed, 2, *size, share=share)
    places = torch.arange(size[0] * size[1]).view(1, 1, *size).expand(2, 1, -1, -1)
    found = inpaint_nearest(places, holes)[:, 0].numpy()
    y, x = np.mgrid[: size[0], : size[1]]
    for place, hole in zip(found, holes.numpy(), strict=True):
        row, column = place // size[1], place % size[1]
        assert not hole[row, column].any()
        expected = ndimage.distance_transform_cdt(hole, metric="taxicab") if hole.any() else np.zeros(size)
        assert np.array_equal(abs(row - y) + abs(column - x), expected)


def test_nearest_copies_what_is_no_number():
    depth = torch.tensor([[[torch.nan, 5.0, 2.0]]])
    painted = inpaint_nearest(depth, torch.tensor([[[False, True, False]]]))
    assert painted[0, 0].isnan().tolist() == [True, True, False]


@given(st.integers(0, 100), st.sampled_from([1, 20, 73, 224]), st.integers(1, 150))
def test_grown_is_dilation_by_a_48th(seed, height, width):
    masks = torch.rand(2, height, width, generator=torch.Generator().manual_seed(seed)) < 0.01
    side = 2 * max(1, round(max(height, width) / 48)) + 1
    expected = ndimage.binary_dilation(masks.numpy(), np.ones((1, side, side)))
    assert np.array_equal(grown(masks).numpy(), expected)


@pytest.mark.parametrize("paint", [inpaint, inpaint_nearest])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": [1]}, r"images \(B, ..., H, W\), got list"),
        ({"holes": torch.zeros(2, 4, 4)}, r"bool holes \(2, 4, 4\) for images \(2, 3, 4, 4\), got torch.float32"),
        ({"holes": torch.zeros(2, 4, 5, dtype=torch.bool)}, r"got torch.bool \(2, 4, 5\)"),
        ({"holes": torch.ones(2, 4, 4, dtype=torch.bool)}, r"image\(s\) \[0, 1\] are all hole"),
    ],
)
def test_wrong_arguments(paint, change, message):
    arguments = {"images": torch.zeros(2, 3, 4, 4), "holes": torch.zeros(2, 4, 4, dtype=torch.bool), **change}
    with pytest.raises(InvalidInputError, match=message):
        paint(**arguments)


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_known_pixels_that_are_no_numbers(number):
    images, holes = torch.zeros(2, 3, 9, 9), holes_in(0, 2, 9, 9)
    holes[1, 4, 4] = False
    images[1, 2, 4, 4] = number
    with pytest.raises(InvalidInputError, match="finite pixels around the holes"):
        inpaint(images, holes)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 2), (7, 8), (8, 7), (33, 64)])
def test_to_look_at_some_pixels_is_to_look_at_all(size):
    values = torch.rand(2, 3, -(-size[0] // 2), -(-size[1] // 2), generator=torch.Generator().manual_seed(0))
    image, row, column = torch.ones(2, *size).nonzero(as_tuple=True)
    expected = enlarged(values, size)
    assert torch.equal(enlarged_at(values, size, image, row, column), expected[image, :, row, column])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("channels_last", [False, True])
def test_painted_where_it_is_seen_and_nowhere_else(dtype, channels_last):
    generator = torch.Generator().manual_seed(3)
    pool = (torch.rand(4, 3, 21, 30, generator=generator) * 200).to(dtype)
    mixed = (torch.rand(3, 3, 21, 30, generator=generator) * 200).to(dtype)
    if channels_last:
        pool, mixed = (part.contiguous(memory_format=torch.channels_last) for part in (pool, mixed))
    target, holes = torch.tensor([3, 0, 3]), torch.zeros(3, 21, 30, dtype=torch.bool)
    holes[:2, 4:15, 6:25] = True
    seen = torch.rand(3, 21, 30, generator=generator) < 0.3
    for rows in (pool, list(pool)):
        done = mixed.clone()
        inpaint_into(done, rows, target, holes, seen)
        assert torch.equal(done, torch.where((holes & seen)[:, None], inpaint(pool[target], holes), mixed))
