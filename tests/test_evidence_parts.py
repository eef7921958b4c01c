"""``benchmarks/accuracy``: views, tasks, rows and given masks do what the tables say of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from benchmarks.accuracy import given
from benchmarks.accuracy.rows import Method, Views
from benchmarks.accuracy.tasks import TASKS, Task, by_share
from benchmarks.accuracy.views import seen, views

CLASSES = 5


# Views


def _smooth(side: int) -> Tensor:
    """(1, 3, side, side) float: slow waves, unlike their mirror image, so that ways to interpolate hardly differ."""
    y, x = torch.meshgrid(torch.arange(side) / side, torch.arange(side) / side, indexing="ij")
    waves = [torch.sin(3 * x + 1.5 * y), torch.cos(2 * x - 2.5 * y), x * x - 0.5 * y]
    return torch.stack(waves)[None] * 100 + 128


@pytest.mark.parametrize(("left", "top", "width", "height"), [(0, 0, 40, 40), (5, 11, 30, 24), (12, 3, 25, 36)])
@pytest.mark.parametrize("flip", [False, True])
def test_a_view_is_torchvisions_crop_resize_and_flip(left: int, top: int, width: int, height: int, flip: bool) -> None:
    image, affine = _smooth(40), torch.zeros(1, 2, 3)
    # As views() writes it: half the extent, and where the crop's middle is, from -1 to 1.
    affine[0, 0, 0], affine[0, 0, 2] = width / 40 * (-1 if flip else 1), (2 * left + width) / 40 - 1
    affine[0, 1, 1], affine[0, 1, 2] = height / 40, (2 * top + height) / 40 - 1
    oracle = functional.resized_crop(image, top, left, height, width, [32, 32], antialias=False)
    oracle = functional.horizontal_flip(oracle) if flip else oracle
    inside = (..., slice(2, -2), slice(2, -2))  # at the border, one clamps to the crop and the other to the image
    torch.testing.assert_close(seen(image, affine, 32)[inside], oracle[inside], atol=0.05, rtol=0)


def test_drawn_crops_lie_in_the_image_and_spread_as_torchvisions_do() -> None:
    torch.manual_seed(0)
    affine = views(4000)
    width, height = affine[:, 0, 0].abs(), affine[:, 1, 1]
    area, ratio = width * height, width / height
    assert float(area.min()) >= 0.5 - 1e-6
    assert float(area.max()) <= 1 + 1e-6
    assert 3 / 4 - 1e-5 <= float(ratio.min()) < 0.77
    assert 1.3 < float(ratio.max()) <= 4 / 3 + 1e-5
    for axis, extent in ((0, width), (1, height)):
        assert bool((affine[:, axis, 2].abs() + extent <= 1 + 1e-5).all())
    assert float((affine[:, 0, 0] < 0).float().mean()) == pytest.approx(0.5, abs=0.03)
    # The oracle: what is drawn evenly in area and log ratio, given that it fits into the unit square.
    generator = np.random.default_rng(0)
    areas, ratios = (
        generator.uniform(0.5, 1, 100_000),
        np.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3), 100_000)),
    )
    fits = (areas * ratios <= 1) & (areas / ratios <= 1)
    assert float(area.mean()) == pytest.approx(areas[fits].mean(), abs=0.008)
    assert float(ratio.log().std()) == pytest.approx(np.log(ratios[fits]).std(), abs=0.006)


def test_plain_crops_are_squares_of_one_size() -> None:
    affine = views(50, "plain")
    torch.testing.assert_close(affine[:, 0, 0].abs(), torch.full((50,), 8 / 9))
    torch.testing.assert_close(affine[:, 1, 1], torch.full((50,), 8 / 9))


def test_a_mask_goes_where_its_object_goes() -> None:
    torch.manual_seed(1)
    masks = torch.zeros(20, 40, 40)
    masks[:, 8:25, 14:31] = 1
    shown = seen(torch.stack([masks * 255, masks], 1), views(20), 32)
    assert torch.equal(shown[:, 0] > 127.5, shown[:, 1] > 0.5)
    assert len({int(mask.sum()) for mask in shown[:, 1] > 0.5}) > 10


# Tasks


def test_the_tail_is_that_of_cui_et_al() -> None:
    # n_i = n * mu ** (i / (C - 1)), with mu = 0.1: 100, 56.2, 31.6, 17.8, 10.
    assert Task(shots=None, epochs=1, imbalance=0.1).counts(5, 100) == [100, 56, 32, 18, 10]
    assert Task(shots=None, epochs=1, imbalance=0.1).counts(1, 100) == [100]
    assert Task(shots=7, epochs=1).counts(3, 100) == [7, 7, 7]


@pytest.mark.parametrize("name", sorted(TASKS))
def test_images_follow_from_the_seed_alone_and_none_is_taken_twice(name: str) -> None:
    labels = torch.arange(CLASSES).repeat_interleave(30)
    torch.manual_seed(1)
    first = TASKS[name].chosen(labels, 3)
    torch.manual_seed(2)
    assert torch.equal(first, TASKS[name].chosen(labels, 3))
    assert len(first.unique()) == len(first)
    found = sorted(labels[first].bincount(minlength=CLASSES).tolist(), reverse=True)
    expected = {"shots-5": [5] * 5, "shots-10": [10] * 5, "tail": [30, 17, 9, 5, 3]}  # 30, 16.87, 9.49, 5.33, 3
    assert found == expected.get(name, [30] * 5)
    if TASKS[name].shots or name == "tail":
        assert not torch.equal(first.sort()[0], TASKS[name].chosen(labels, 4).sort()[0])


def test_the_tail_takes_other_classes_with_another_seed() -> None:
    labels = torch.arange(CLASSES).repeat_interleave(30)
    rarest = {int(labels[TASKS["tail"].chosen(labels, seed)].bincount().argmin()) for seed in range(12)}
    assert len(rarest) > 2


def test_accuracy_by_share_of_the_training_images() -> None:
    truth = torch.tensor([0, 0, 1, 1, 2, 2])
    right = torch.tensor([True, True, True, False, False, False])
    found = by_share(right, truth, torch.tensor([4, 30, 10]))
    assert found == {"many": 0.5, "medium": 0.0, "few": 1.0}


# Rows


def _epoch(count: int = 50, side: int = 24) -> Views:
    torch.manual_seed(7)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
    return Views(images, torch.arange(count) % CLASSES, None, None)


def _method(**spec: Any) -> Method:
    return Method(spec, CLASSES, nn.Identity())


def _batches(method: Method, epoch: Views, size: int = 25) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Images, soft labels, and what they were."""
    shown = method.epoch(epoch)
    parts = zip(shown.split(size), epoch.labels.split(size), epoch.images.split(size), strict=True)
    return [(*method.batch(images, labels, plain), images, labels) for images, labels, plain in parts]


def test_no_mixing_leaves_images_and_labels() -> None:
    epoch = _epoch()
    for images, soft, plain, labels in _batches(_method(mix="none"), epoch):
        assert torch.equal(images, plain)
        assert torch.equal(soft, F.one_hot(labels, CLASSES).float())
    assert torch.equal(_method(mix="none").epoch(epoch), epoch.images)


@pytest.mark.parametrize("mix", ["cutmix", "mixup", "timm"])
def test_labels_are_mixed_as_the_pixels_are(mix: str) -> None:
    """Flat images whose grey is their class: an image's mean grey is then its soft label's mean class."""
    labels = torch.arange(25) % CLASSES
    images = (labels * 50).to(torch.uint8)[:, None, None, None].expand(-1, 3, 24, 24).contiguous()
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  timm draws from it
    method, mixed = _method(mix=mix, p=1.0), 0
    for _ in range(10):
        shown, soft = method.batch(images, labels, images)
        assert shown.dtype == torch.uint8
        torch.testing.assert_close(soft.sum(1), torch.ones(25))
        grey = soft @ (torch.arange(CLASSES) * 50.0)
        torch.testing.assert_close(shown.float().mean((1, 2, 3)), grey, atol=0.51, rtol=0)
        mixed += int((soft.max(1)[0] < 1).any())
    assert mixed > 5


@pytest.mark.parametrize("p", [None, 0.25, 1.0])
def test_a_share_of_the_batches_is_mixed(p: float | None) -> None:
    method = _method(mix="mixup") if p is None else _method(mix="mixup", p=p)
    torch.manual_seed(0)
    images, labels = torch.zeros(5, 3, 4, 4, dtype=torch.uint8), torch.arange(5)
    mixed = [float(method.batch(images, labels, images)[1].max(1)[0].min()) < 1 for _ in range(300)]
    assert np.mean(mixed) == pytest.approx(0.5 if p is None else p, abs=0.08)


@pytest.mark.parametrize(("p", "share"), [(None, 0.5), (0.25, 0.25), (1.0, 1.0)])
def test_sgdmix_mixes_a_share_of_the_images_and_leaves_labels(p: float | None, share: float) -> None:
    epoch = _objects(200)
    spec = {"mix": "sgdmix", "given": "segmenter"} | ({} if p is None else {"p": p})
    method = _method(**spec)
    batches = _batches(method, epoch)
    for images, soft, plain, labels in batches:
        assert torch.equal(images, plain)  # mixed before, as an epoch
        assert torch.equal(soft, F.one_hot(labels, CLASSES).float())
    shown = torch.cat([images for images, *_ in batches])
    changed = float((shown != epoch.images).flatten(1).any(1).float().mean())
    assert method.figures() == {"mixed": pytest.approx(changed)}
    assert changed == pytest.approx(share, abs=0.1)


def _objects(count: int) -> Views:
    """Objects of 200 to 255 on backgrounds of 0 to 99, at places of their own, and their true maps and masks."""
    torch.manual_seed(3)
    masks = torch.zeros(count, 24, 24, dtype=torch.bool)
    for mask, (top, left) in zip(masks, torch.randint(2, 14, (count, 2)).tolist(), strict=True):
        mask[top : top + 8, left : left + 8] = True
    low, high = torch.randint(0, 100, (count, 3, 1, 1)), torch.randint(200, 256, (count, 3, 1, 1))
    images = torch.where(masks[:, None], high, low).to(torch.uint8)
    return Views(images, torch.arange(count) % CLASSES, masks.float(), masks)


@pytest.mark.parametrize("fill", ["inpaint", "source"])
def test_each_image_is_mixed_by_its_own_given_mask(fill: str) -> None:
    epoch = _objects(60)
    shown = _method(mix="sgdmix", given="segmenter", p=1.0, fill=fill, feather=0, candidates=5).epoch(epoch)
    assert epoch.masks is not None
    kept = epoch.masks[:, None].expand_as(shown)
    assert torch.equal(shown[kept], epoch.images[kept])
    assert not torch.equal(shown[~kept], epoch.images[~kept])


def test_a_long_epoch_is_mixed_in_parts_with_the_masks_of_each() -> None:
    epoch = _objects(260)
    shown = _method(mix="sgdmix", given="segmenter", p=1.0, feather=0, candidates=3).epoch(epoch)
    assert epoch.masks is not None
    kept = epoch.masks[:, None].expand_as(shown)
    assert torch.equal(shown[kept], epoch.images[kept])
    assert float((shown != epoch.images).flatten(1).any(1).float().mean()) > 0.95


def test_cutmix_instead_starts_from_unmixed_images() -> None:
    labels, flat = torch.arange(5), torch.full((5, 3, 8, 8), 40, dtype=torch.uint8)
    ours = torch.full_like(flat, 200)
    torch.manual_seed(0)
    either, then = _method(mix="sgdmix", instead="cutmix"), _method(mix="sgdmix", also="cutmix")
    for _ in range(20):
        images, soft = either.batch(ours, labels, flat)
        one_hot = torch.equal(soft, F.one_hot(labels, CLASSES).float())
        assert set(images.unique().tolist()) == {200 if one_hot else 40} or one_hot  # a box of CutMix may be empty
        assert set(then.batch(ours, labels, flat)[0].unique().tolist()) == {200}


def test_erasing_and_randaugment_leave_labels() -> None:
    for spec in ({"mix": "erasing", "p": 1.0}, {"mix": "none", "randaugment": True}):
        epoch = _epoch()
        batches = _batches(_method(**spec), epoch)
        assert all(torch.equal(soft, F.one_hot(labels, CLASSES).float()) for _, soft, _, labels in batches)
        assert not torch.equal(torch.cat([images for images, *_ in batches]), epoch.images)


def test_a_slip_of_the_pen_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown mix 'cutmx'"):
        _method(mix="cutmx")
    with pytest.raises(ValueError, match="got fil too"):
        _method(mix="sgdmix", fil="source")


# Masks that were made before


def _square(top: int, left: int, size: int = 8, side: int = 40) -> Tensor:
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[top : top + size, left : left + size] = True
    return mask


def test_masks_shift_by_that_share_of_the_side() -> None:
    torch.manual_seed(0)
    masks = _square(16, 16).expand(30, -1, -1)
    shifted = given.spoilt(masks, "shift", 0.2)
    assert shifted.flatten(1).sum(1).tolist() == pytest.approx([64] * 30, abs=9)
    middles = torch.stack([mask.nonzero().float().mean(0) for mask in shifted]) - 19.5
    torch.testing.assert_close(middles.norm(dim=1), torch.full((30,), 8.0), atol=0.8, rtol=0)
    angles = torch.atan2(*middles.unbind(1))
    assert float(angles.min()) < -1.5
    assert float(angles.max()) > 1.5


def test_masks_grow_and_shrink_by_that_share_of_the_side() -> None:
    masks = _square(12, 12, size=16)[None]
    assert torch.equal(given.spoilt(masks, "erode", 0.05)[0], _square(14, 14, size=12))  # 2 of 40 pixels on each side
    grown = given.spoilt(masks, "dilate", 0.05)[0]
    rows, columns = grown.any(1).nonzero()[:, 0], grown.any(0).nonzero()[:, 0]
    assert [int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])] == [10, 29, 10, 29]
    assert not bool(grown[10, 10])  # by a disc: corners are round


@pytest.mark.parametrize(("share", "swapped"), [(0.0, 0), (0.25, 5), (1.0, 20)])
def test_a_share_of_the_images_gets_anothers_mask(share: float, swapped: int) -> None:
    torch.manual_seed(0)
    masks = torch.stack([_square(i, i) for i in range(20)])
    found = given.spoilt(masks, "swap", share)
    assert int((found != masks).flatten(1).any(1).sum()) == swapped
    assert sorted(int(mask.nonzero()[0, 0]) for mask in found) == list(range(20))


def test_an_unknown_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown noise 'blur'"):
        given.spoilt(_square(0, 0)[None], "blur", 0.1)


def test_figures_of_two_masks_by_hand() -> None:
    truth = torch.stack([_square(0, 0, size=10), _square(20, 20, size=10)])
    # The first mask has half of its object and nothing else; the second has its object and 100 pixels more.
    masks = torch.stack([_square(0, 0, size=10) & (torch.arange(40) < 5), truth[1] | _square(0, 30, size=10)])
    found = given.figures(masks, truth.to(torch.uint8) * 255, "source")
    assert found["coverage"] == pytest.approx((0.5 + 1) / 2)
    assert found["spill"] == pytest.approx((0 + 100 / 1500) / 2)
    assert found["mask_iou"] == pytest.approx((0.5 + 100 / 200) / 2)
    # Half of the first object is hidden by nobody; the second by its own mask.
    assert found["leak"] == pytest.approx((0.5 + 0) / 2)
    # With "inpaint" the first mask's hole grows by a pixel: 4 of 10 columns still show.
    assert given.figures(masks, truth.to(torch.uint8) * 255, "inpaint")["leak"] == pytest.approx((0.4 + 0) / 2)


def test_leak_counts_what_the_source_covers() -> None:
    truth = torch.stack([_square(0, 0, size=10), _square(20, 20, size=10)])
    masks = torch.stack([torch.zeros(40, 40, dtype=torch.bool), truth[1] | truth[0]])
    assert given.figures(masks, truth.to(torch.uint8) * 255, "source")["leak"] == 0


def test_images_without_an_object_are_left_out_of_the_figures() -> None:
    truth = torch.stack([_square(0, 0), torch.zeros(40, 40, dtype=torch.bool), torch.ones(40, 40, dtype=torch.bool)])
    assert given.figures(truth, truth.to(torch.uint8) * 255, "source")["coverage"] == 1


def _made(spec: dict[str, Any], images: Tensor, labels: Tensor, seen_: Tensor) -> tuple[Tensor, Tensor]:
    return given.made(spec, images, labels, seen_, lambda: None, [])


def test_the_segmenters_maps_and_masks_are_taken_as_they_are() -> None:
    sees = torch.randint(0, 256, (4, 24, 24), dtype=torch.uint8)
    maps, masks = _made({"given": "segmenter"}, torch.zeros(4, 3, 24, 24, dtype=torch.uint8), torch.arange(4), sees)
    torch.testing.assert_close(maps, sees / 255)
    assert torch.equal(masks, sees >= 128)


def test_maps_of_a_backend_and_its_mask_fit_their_images() -> None:
    """Bright squares on dark: in more than one chunk, each mask lies on its own square."""
    places = [(i % 5 * 4, i % 7 * 3) for i in range(40)]
    truth = torch.stack([_square(top, left, size=14) for top, left in places])
    images = (truth[:, None].expand(-1, 3, -1, -1) * 200 + 20).to(torch.uint8)
    spec = {"given": "spectral_residual", "given_mask": "otsu"}
    maps, masks = _made(spec, images, torch.zeros(40).long(), truth.to(torch.uint8))
    assert maps.shape == masks.shape == (40, 40, 40)
    assert (float(maps.min()) >= 0, float(maps.max()) <= 1, masks.dtype) == (True, True, torch.bool)
    torch.testing.assert_close(maps[35:36], _made(spec, images[35:36], torch.zeros(1).long(), truth[:1])[0])
