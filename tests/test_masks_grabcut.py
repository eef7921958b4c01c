"""GrabCut masks: outlines on edges, holes and pieces against scipy, edge cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from sgdmix_albu import mix_batch
from sgdmix_albu.io.opencv import cv2
from sgdmix_albu.masks import otsu
from sgdmix_albu.mixing.grabcut import _whole, grabcut


def scene(*, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two images with a disc, a blurred saliency map beside its place, and the true mask."""
    y, x = torch.meshgrid(torch.arange(96), torch.arange(128), indexing="ij")
    truth = torch.stack([(y - 48) ** 2 + (x - 60) ** 2 < 900, (y - 40) ** 2 + (x - 80) ** 2 < 700])
    noise = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0)) * 0.1
    images = torch.where(truth[:, None], 0.8, 0.2) + noise
    maps = torch.nn.functional.avg_pool2d(truth[:, None].float(), 25, stride=1, padding=12)[:, 0].roll(6, 2)
    images = (images * 255).to(torch.uint8) if dtype == torch.uint8 else images.to(dtype)
    return maps, images, truth


def iou(mask: torch.Tensor, truth: torch.Tensor) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_the_outline_moves_to_the_edges(dtype):
    maps, images, truth = scene(dtype=dtype)
    refined, plain = grabcut(maps, images).masks, otsu(maps, images).masks
    assert refined.shape == truth.shape
    for i in range(2):
        assert iou(refined[i], truth[i]) > iou(plain[i], truth[i]) + 0.03
        assert iou(refined[i], truth[i]) > 0.85


def test_standardised_images_give_the_same_mask():
    maps, images, _ = scene()
    mean, std = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    assert iou(grabcut(maps, (images - mean) / std).masks, grabcut(maps, images).masks) > 0.99


def test_images_do_not_know_of_each_other_and_repeat():
    maps, images, _ = scene()
    whole = grabcut(maps, images).masks
    assert torch.equal(whole, grabcut(maps, images).masks)
    for i in range(2):
        assert torch.equal(grabcut(maps[i : i + 1], images[i : i + 1]).masks[0], whole[i])


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_flat_saliency_has_an_empty_mask(level):
    _, images, _ = scene()
    assert not grabcut(torch.full((2, 20, 20), level), images).masks.any()


def test_empty_batch_and_mixing():
    maps, images, _ = scene()
    assert grabcut(maps[:0], images[:0]).masks.shape == (0, 96, 128)
    assert mix_batch(images, maps, mask="grabcut").plan.applied.all()


@given(hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_holes_and_pieces_equal_scipy(mask):
    filled = ndimage.binary_fill_holes(mask)
    pieces, count = ndimage.label(filled)
    areas = ndimage.sum_labels(filled, pieces, range(1, count + 1))
    kept = [i + 1 for i, area in enumerate(areas) if area >= 0.3 * max(areas)]
    np.testing.assert_array_equal(_whole(mask), np.isin(pieces, kept))


def test_opencvs_random_numbers_go_on():
    """Whoever seeded OpenCV's generator gets other numbers after other seeds, and the same after the same."""
    maps, images, _ = scene()
    drawn = []
    for seed in (1, 2, 1):
        cv2.setRNGSeed(seed)
        grabcut(maps, images)
        numbers = np.zeros(4, np.int32)
        cv2.randu(numbers, np.zeros(1), np.full(1, 2**31 - 1))
        drawn.append(numbers.tolist())
    assert drawn[0] == drawn[2] != drawn[1]
