"""Images as their bits, against torch's own choosing, adding up and comparing."""

from __future__ import annotations

import pytest
import torch
from fake_gpu import back, fake_gpu, on_gpu
from hypothesis import example, given
from hypothesis import strategies as st

from sgdmix_albu.mixing import bits

DTYPES = [
    *(torch.uint8, torch.int8, torch.bool, torch.uint16, torch.int16, torch.float16, torch.bfloat16, torch.float32),
    *(torch.int32, torch.uint32, torch.float64, torch.int64, torch.uint64),
]
sizes = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 19), st.integers(1, 19))


def images_of(size, dtype, seed=0):
    """Any bits at all: NaN of every kind among them."""
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.rand(size, generator=generator) < 0.5
    length = torch.empty(0, dtype=dtype).element_size()
    raw = torch.randint(256, (*size[:-1], size[-1] * length), dtype=torch.uint8, generator=generator)
    return raw.view(dtype)


def as_bytes(images):
    return images.contiguous().view(torch.uint8)


@given(size=sizes, dtype=st.sampled_from(DTYPES), seed=st.integers(0, 99), channels_last=st.booleans())
@example(size=(2, 3, 3, 3), dtype=torch.float32, seed=0, channels_last=True)
def test_the_source_stays_where_the_mask_holds_and_the_target_stands_elsewhere(size, dtype, seed, channels_last):
    images = images_of(size, dtype, seed)
    if channels_last:
        images = images.movedim(1, -1).contiguous().movedim(-1, 1)
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(size[0], size[:1], generator=generator)
    masks = torch.rand(size[0], *size[2:], generator=generator) < 0.5
    expected = as_bytes(images).clone()
    length = images.element_size()
    for i, row in enumerate(target.tolist()):
        elsewhere = (~masks[i]).repeat_interleave(length, 1).expand(expected[i].shape)
        expected[i][elsewhere] = as_bytes(images)[row][elsewhere]
    for pool in (images, list(images)):
        found = bits.overlaid(images, pool, target, masks)
        assert found.dtype == dtype
        assert found.stride() == images.stride()
        assert torch.equal(as_bytes(found), expected)
        gathered = bits.gathered(pool, target, like=images)
        assert torch.equal(as_bytes(gathered), as_bytes(torch.stack([images[row] for row in target.tolist()])))


@pytest.mark.parametrize("size", [(3, 1, 1), (2, 7, 5), (4, 224, 224), (1, 130, 257), (2, 64, 256), (0, 8, 8)])
def test_areas_are_counts(size):
    masks = torch.rand(size) < 0.7
    assert bits.areas(masks).tolist() == [int(mask.sum()) for mask in masks]
    assert bits.areas(torch.ones_like(masks)).tolist() == [size[1] * size[2]] * size[0]
    assert bits.areas(masks[:, 1:]).tolist() == [int(mask.sum()) for mask in masks[:, 1:]]  # views that begin anywhere
    for row in range(size[0]):
        assert bits.areas(masks[row:]).tolist() == [int(mask.sum()) for mask in masks[row:]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_images_have_equal_sums_in_every_format(dtype):
    images = images_of((3, 3, 9, 7), dtype)
    images[2] = images[0]
    for form in (images, images.movedim(1, -1).contiguous().movedim(-1, 1), images[:, :, :, ::2]):
        sums = bits.bit_sums(form)
        assert sums[0] == sums[2] != sums[1]
    assert torch.equal(bits.bit_sums(images), bits.bit_sums(images.movedim(1, -1).contiguous().movedim(-1, 1)))


@pytest.mark.parametrize("place", [(0, 0, 0), (2, 30, 30), (1, 17, 5), (0, 1, 1), (0, 30, 0)])
def test_images_that_differ_in_one_pixel_are_two(place):
    images = torch.zeros(2, 3, 31, 31, dtype=torch.uint8)
    images[(1, *place)] = 1
    assert bits.same_pixels(images, images).tolist() == [[True, False], [False, True]]
    with fake_gpu():
        assert back(bits.same_pixels(on_gpu(images), on_gpu(images))).tolist() == [[True, False], [False, True]]


def test_on_a_gpu_no_two_of_many_small_changes_look_alike():
    """What adding up would not tell apart: pixels exchanged, or one brighter and one darker."""
    images = torch.zeros(400, 1, 20, 20, dtype=torch.uint8)
    images.view(400, 400)[range(400), range(400)] = 128
    swapped = torch.full((1, 1, 20, 20), 100, dtype=torch.uint8)
    pairs = swapped.repeat(399, 1, 1, 1)
    pairs.view(399, 400)[range(399), range(399)] += 1
    pairs.view(399, 400)[range(399), range(1, 400)] -= 1
    with fake_gpu():
        sums = back(bits.bit_sums(on_gpu(torch.cat([images, swapped, pairs]))))
    assert len(set(sums.tolist())) == 800


def test_two_tensors_are_one_pool():
    images, further = images_of((3, 2, 4, 5), torch.float32), images_of((4, 2, 4, 5), torch.float32, 1)
    target = torch.tensor([6, 0, 3, 2, 4])
    expected = torch.cat([images, further])[target]
    assert torch.equal(as_bytes(bits.gathered(bits.Joined(images, further), target)), as_bytes(expected))
    with fake_gpu() as gpu:
        joined = bits.Joined(on_gpu(images), on_gpu(further))
        assert torch.equal(as_bytes(back(bits.gathered(joined, on_gpu(target)))), as_bytes(expected))
        assert not gpu.waits
