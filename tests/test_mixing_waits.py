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
