"""Mixing on a GPU does not wait: the host's waits are counted on a fake one, and the mixes are the CPU's."""

from __future__ import annotations

import pytest
import torch
from fake_gpu import back, fake_gpu, on_gpu
from torchvision.transforms import v2

from sgdmix_albu import SGDMix, mix_batch

IMAGES = torch.rand(8, 3, 40, 48, generator=torch.Generator().manual_seed(0)) * 0.3
MAPS = torch.zeros(8, 40, 48)
for _row in range(8):
    IMAGES[_row, :, 6 : 18 + _row, 6 + 2 * _row : 26 + _row] += 0.6
    MAPS[_row, 6 : 18 + _row, 6 + 2 * _row : 26 + _row] = 1
LABELS = torch.arange(8) % 3


def mixed(images, maps, labels, **settings):
    """A batch, mixed twice, so that a memory has something to remember."""
    mix = SGDMix("given", generator=torch.Generator().manual_seed(1), **settings)
    sample = {"images": images, "saliency": maps, "labels": labels}
    mix(sample)
    return mix(sample)["images"], mix


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize(
    "settings",
    [
        {"mask": "otsu", "fill": "source"},
        {"mask": "otsu", "fill": "source", "feather": 3},
        {"mask": "otsu", "fill": "inpaint"},
        {"mask": "guided", "fill": "inpaint", "p": 0.5},
        {"mask": "otsu", "fill": "inpaint", "max_coverage": 0.2},
        {"mask": "otsu", "fill": "source", "max_coverage": 0.3, "target_class": "different"},
        {"mask": "otsu", "fill": "inpaint", "memory": 20, "candidates": 5},
        {"mask": "otsu", "fill": "source", "exclude_duplicates": False},
        {"mask": "otsu", "place": "random"},
    ],
    ids=str,
)
def test_a_batch_costs_one_wait_and_is_the_cpus(settings, dtype):
    images = v2.functional.to_dtype(IMAGES, dtype, scale=True)
    expected, here = mixed(images, MAPS, LABELS, **settings)
    with fake_gpu() as gpu:
        found, there = mixed(on_gpu(images), on_gpu(MAPS), on_gpu(LABELS), **settings)
        waits = gpu.waits[:]
        assert here.guard_counts == there.guard_counts
        assert torch.equal(back(found), expected)
    assert len(waits) == 2, "\n".join(waits)  # one for each of the two batches
    assert not torch.equal(expected, images)


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("settings", [{"fill": "source"}, {}, {"place": "random"}, {"memory": 4}], ids=str)
def test_few_images_or_none(count, settings):
    expected, _ = mixed(IMAGES[:count], MAPS[:count], LABELS[:count], mask="otsu", **settings)
    with fake_gpu():
        there = (on_gpu(part[:count]) for part in (IMAGES, MAPS, LABELS))
        assert torch.equal(back(mixed(*there, mask="otsu", **settings)[0]), expected)


@pytest.mark.parametrize("settings", [{"fill": "source"}, {}, {"place": "random"}], ids=str)
def test_the_memory_format_stays(settings):
    images = IMAGES.contiguous(memory_format=torch.channels_last)
    expected, _ = mixed(IMAGES, MAPS, LABELS, mask="otsu", **settings)
    found, _ = mixed(images, MAPS, LABELS, mask="otsu", **settings)
    assert torch.equal(found, expected)
    assert found.stride() == images.stride()
    with fake_gpu():
        there = mixed(on_gpu(images), on_gpu(MAPS), on_gpu(LABELS), mask="otsu", **settings)[0]
        assert torch.equal(back(there), expected)
        assert there.stride() == images.stride()


def test_a_refused_batch_is_neither_remembered_nor_counted():
    with fake_gpu():
        mix = SGDMix("given", mask="otsu", memory=16)
        with pytest.raises(ValueError, match="NaN"):
            mix({"images": on_gpu(IMAGES * torch.nan), "saliency": on_gpu(MAPS)})
        assert not mix.guard_counts
        found = mix({"images": on_gpu(IMAGES), "saliency": on_gpu(MAPS)})["images"]
        assert bool(torch.isfinite(found).all())


def test_labels_may_be_on_another_gpu():
    with fake_gpu():
        mix = SGDMix("given", mask="otsu", target_class="different")
        mix({"images": on_gpu(IMAGES), "saliency": on_gpu(MAPS), "labels": on_gpu(LABELS, "cuda:1")})
        with pytest.raises(ValueError, match="class numbers from 0 on, got -1"):
            mix({"images": on_gpu(IMAGES), "saliency": on_gpu(MAPS), "labels": on_gpu(LABELS - 1, "cuda:1")})


def test_autocast_does_not_count_for_a_mask():
    """Of 24 masks, many pairs cover a half but for a few pixels, which 16 bits cannot tell."""
    maps = torch.zeros(24, 224, 224)
    for row in range(24):
        maps[row, 2 * row : 2 * row + 110, row : row + 150 + row % 5] = 1
    images = torch.rand(24, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = mix_batch(images, maps, mask="otsu", fill="source", max_coverage=0.342).plan
    with torch.autocast("cpu", torch.bfloat16):
        found = mix_batch(images, maps, mask="otsu", fill="source", max_coverage=0.342).plan
    assert torch.equal(found.target, expected.target)
    assert torch.equal(found.guards.over_coverage, expected.guards.over_coverage)
    assert expected.guards.over_coverage.any()


def test_refusals_are_told_at_the_end_of_the_batch():
    images = IMAGES.clone()
    images[3, 0, 0, 0] = torch.nan
    with fake_gpu(), pytest.raises(ValueError, match=r"image\(s\) \[3\] of the batch hold NaN"):
        mix_batch(on_gpu(images), on_gpu(MAPS))
    with fake_gpu(), pytest.raises(ValueError, match=r"must lie in \[0, 1\], got values from 0 to 2"):
        mix_batch(on_gpu(IMAGES), on_gpu(2 * MAPS))


def test_a_repeat_is_found_on_a_gpu_too():
    images = IMAGES[[0, 1, 0, 1, 0, 1, 0, 1]]
    with fake_gpu():
        plan = mix_batch(on_gpu(images), on_gpu(MAPS), mask="otsu").plan
        rows = plan.target.tolist()
    assert [row % 2 for row in rows] == [1, 0] * 4
