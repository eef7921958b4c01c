"""Where the source's object stands: cut out, scaled, moved, pasted; against OpenCV and by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from sgdmix_albu import SGDMix
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing import compose, draw
from sgdmix_albu.mixing.mix import mix_batch
from sgdmix_albu.mixing.placement import moved_instances, moved_masks, pasted, placements, unmoved
from sgdmix_albu.mixing.plan import moved
from sgdmix_albu.saliency import SaliencyMap
from sgdmix_albu.torchvision.erased import moved_along

SIZE = 48


def _disc(y: float, x: float, radius: float, size: tuple[int, int] = (SIZE, SIZE)) -> Tensor:
    rows, columns = (torch.arange(length) + 0.5 for length in size)
    return (rows[:, None] - y) ** 2 + (columns - x) ** 2 < radius**2


def _batch(count: int = 6, seed: int = 0, size: tuple[int, int] = (SIZE, SIZE)) -> tuple[Tensor, Tensor]:
    """Noise images, and maps with a disc at another place in each."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)
    where = torch.rand(count, 3, generator=generator).tolist()
    maps = [_disc(12 + 20 * y, 12 + 20 * x, 5 + 6 * r, size) for y, x, r in where]
    return images, torch.stack(maps).float()


def _box(mask: Tensor) -> tuple[int, int, int, int]:
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32, torch.float64])
@pytest.mark.parametrize("feather", [None, 0, 3])
def test_unmoved_objects_make_the_mix_of_place_source(dtype: torch.dtype, feather: float | None) -> None:
    images, maps = _batch()
    images = images / 255 if dtype.is_floating_point else images
    images = images.to(dtype)
    plan = mix_batch(images, maps, mask="otsu", p=0.7, generator=torch.Generator().manual_seed(1)).plan
    assert plan.applied.any()
    assert not plan.applied.all()
    stay = moved(plan, unmoved(len(images), images.device))
    assert torch.equal(stay.masks, plan.masks)
    here, there = (compose(one, images, images, feather=feather).double() for one in (plan, stay))
    assert (here - there).abs().max() <= (1e-6 if dtype.is_floating_point else 1)
    assert torch.equal(here[~plan.applied], there[~plan.applied])


def _windows(length: int, scale: float, shift: float) -> np.ndarray:
    """(length, length) weights by hand: how much of each old pixel lies under each new one, or at least one wide."""
    weights = np.zeros((length, length))
    for new in range(length):
        centre, width = (new + 0.5 - shift * length) / scale, max(1, 1 / scale)
        for old in range(length):
            low, high = max(old, centre - width / 2), min(old + 1, centre + width / 2)
            weights[new, old] = max(high - low, 0) / width
    return weights


@settings(max_examples=40, deadline=None)
@given(
    scale=st.floats(0.15, 3),
    dy=st.floats(-0.6, 0.6),
    dx=st.floats(-0.6, 0.6),
    seed=st.integers(0, 2**16),
    dtype=st.sampled_from([torch.uint8, torch.float32]),
)
def test_pixels_by_hand(scale: float, dy: float, dx: float, seed: int, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(seed)
    height, width = 14, 11
    mask = ndimage.binary_opening(rng.random((height, width)) < 0.8)
    source, plate = rng.integers(0, 256, (2, 3, height, width)).astype(np.float64)
    rows, columns = _windows(height, scale, dy), _windows(width, scale, dx)
    shares = rows @ mask @ columns.T
    expected = rows @ (source * mask) @ columns.T
    soft = ndimage.uniform_filter(mask.astype(float), 3, mode="constant") / ndimage.uniform_filter(
        np.ones((height, width)), 3, mode="constant"
    )
    faded = rows @ (source * soft) @ columns.T + (1 - rows @ soft @ columns.T) * plate
    images = [torch.from_numpy(part)[None].to(dtype) for part in (source, plate)]
    placement = torch.tensor([[scale, dy, dx]], dtype=torch.float64)
    masks = torch.from_numpy(mask)[None]
    got = pasted(*images, masks, placement, feather=None)[0].double().numpy()
    np.testing.assert_allclose(
        got, faded, atol=0.51 if dtype == torch.uint8 else 4e-3
    )  # the soft border is in steps of 1/65536
    found = moved_masks(masks, placement)[0].numpy()
    sure = np.abs(shares - 0.5) > 1e-5
    assert np.array_equal(found[sure], shares[sure] > 0.5)
    cut = pasted(*images, masks, placement, feather=0)[0].double().numpy()
    assert np.array_equal(cut[:, ~found], images[1][0].double().numpy()[:, ~found])
    np.testing.assert_allclose(cut[:, found & sure], (expected / np.maximum(shares, 0.1))[:, found & sure], atol=0.51)


def test_pixels_are_those_of_opencv() -> None:
    source = cv2.GaussianBlur(np.random.default_rng(0).random((SIZE, SIZE, 3), dtype=np.float32), (0, 0), 2)
    mask = _disc(20, 22, 14)
    for scale, dy, dx in ((1.0, 0.1, -0.05), (1.4, -0.2, 0.03), (0.9, 0.2, 0.1)):
        # OpenCV's coordinates name the pixels' centres by whole numbers.
        shift = [scale / 2 - 0.5 + part * SIZE for part in (dx, dy)]
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        expected = cv2.warpAffine(source, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
        inner = cv2.warpAffine(mask.numpy().astype(np.float32), matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
        sources = torch.from_numpy(source).permute(2, 0, 1)[None]
        placement = torch.tensor([[scale, dy, dx]], dtype=torch.float64)
        got = pasted(sources, torch.zeros_like(sources), mask[None], placement, feather=0)[0].permute(1, 2, 0).numpy()
        whole = cv2.erode((inner > 0.999).astype(np.uint8), np.ones((3, 3)), iterations=2) > 0
        assert whole.sum() > 200
        np.testing.assert_allclose(got[whole], expected[whole], atol=0.02)
        found = moved_masks(mask[None], placement)[0].numpy()
        assert (found != (inner >= 0.5)).mean() < 0.01


def test_an_object_that_keeps_its_size_keeps_its_pixels() -> None:
    images, maps = _batch()
    masks = maps.bool()
    placement = torch.tensor([[1, 7 / SIZE, -3 / SIZE]] * 6, dtype=torch.float64)
    moved_by_hand = masks.roll((7, -3), (1, 2))
    got = pasted(images, torch.zeros_like(images), masks, placement, feather=0)
    assert torch.equal(got, images.roll((7, -3), (2, 3)) * moved_by_hand[:, None])
    assert torch.equal(moved_masks(masks, placement), moved_by_hand)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_what_cannot_be_averaged_takes_a_value_of_the_object(dtype: torch.dtype) -> None:
    """Depth around the object is unknown, and classes there are others: neither comes along."""
    mask = _disc(22, 20, 9)
    halves = torch.where(torch.arange(SIZE)[:, None] < 22, 2, 5).expand(SIZE, SIZE)
    source = torch.where(mask, halves, 9).to(dtype)
    if dtype.is_floating_point:
        source[~mask] = torch.nan
    for scale in (0.37, 0.8, 1.0, 1.7):
        placement = torch.tensor([[scale, 0.05, 0.1]], dtype=torch.float64)
        where = moved_masks(mask[None], placement)
        got = pasted(
            source[None, None],
            torch.zeros(1, 1, SIZE, SIZE, dtype=dtype),
            mask[None],
            placement,
            feather=None,
            hard=True,
        )
        rows = torch.arange(SIZE) + 0.5 < 22 * scale + 0.05 * SIZE
        expected = torch.where(rows[:, None], 2, 5).expand(SIZE, SIZE) * where[0]
        assert torch.equal(got[0, 0], expected.to(dtype))


def test_objects_stay_whole_in_the_frame_at_the_size_of_foraug() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.stack([_disc(10 + i, 30 - i, 4 + i, (40, 60)) for i in range(8)])
    areas = masks.flatten(1).sum(1)
    for _ in range(20):
        theirs = torch.randint(20, 1500, (8,), generator=generator)
        drawn = torch.rand(8, 3, generator=generator)
        placement = placements(masks, areas, theirs, drawn, 0.95)
        after = moved_masks(masks, placement)
        for i in range(8):
            scale, dy, dx = placement[i].tolist()
            top, bottom, left, right = _box(masks[i])
            low, high = scale * top + dy * 40, scale * bottom + dy * 40
            assert -1e-9 <= low <= high <= 40 + 1e-9
            low, high = scale * left + dx * 60, scale * right + dx * 60
            assert -1e-9 <= low <= high <= 60 + 1e-9
            small, large = sorted((int(areas[i]), int(theirs[i])))
            wanted = 0.7 * small + float(drawn[i, 0]) * (1.3 * large - 0.7 * small)
            wanted = max(wanted, min(24, int(areas[i])))
            room = int(areas[i]) * min(40 / (bottom - top), 60 / (right - left)) ** 2
            assert scale**2 * int(areas[i]) == pytest.approx(min(wanted, room, 0.95 * 2400))
            assert int(after[i].sum()) == pytest.approx(scale**2 * int(areas[i]), rel=0.12, abs=4)


@pytest.mark.parametrize(
    ("block", "theirs", "drawn", "expected"),
    [
        # Areas are drawn from 0.7 of the smaller to 1.3 of the larger; places from 0 to the room that is left.
        ((10, 20, 10, 10), 100, (0.5, 0, 0), (1.0, -10, -20)),
        ((10, 20, 10, 10), 400, (0, 0, 0), (0.7**0.5, None, None)),
        ((10, 20, 10, 10), 400, (0.999999999, 0, 0), (5.2**0.5, None, None)),
        ((10, 20, 10, 10), 100, (0.5, 0.999, 0), (1.0, 28, -20)),  # to the lower edge
        ((10, 20, 10, 10), 100, (0.5, 0, 0.5), (1.0, -10, -1)),  # one of 39 places
        ((0, 4, 48, 12), 2000, (0.9, 0.9, 0), (1.0, 0, -4)),  # as high as the frame, and as wide
        ((4, 0, 12, 48), 2000, (0.9, 0, 0.9), (1.0, -4, 0)),
        ((10, 20, 10, 10), 1, (0, 0, 0), (0.2304**0.5, None, None)),  # a hundredth of the image
        ((10, 20, 3, 3), 1, (0, 0, 0), (1.0, -10, -20)),  # less than that already
        ((0, 0, 40, 40), 2200, (0.999999999, 0, 0), (1.1**0.5, 0, 0)),  # 0.84 of the image, of which 0.764 may be
    ],
)
def test_sizes_and_places(
    block: tuple[int, int, int, int], theirs: int, drawn: tuple[float, ...], expected: tuple[float | None, ...]
) -> None:
    mask = _block(*block)[None]
    coverage = 1600 * 1.1 / SIZE**2
    numbers = torch.tensor([drawn], dtype=torch.float64)
    found = placements(mask, mask.flatten(1).sum(1), torch.tensor([theirs]), numbers, coverage)[0]
    for got, wanted in zip((found * torch.tensor([1, SIZE, SIZE])).tolist(), expected, strict=True):
        assert wanted is None or got == pytest.approx(wanted)


def test_colours_stay_in_their_range() -> None:
    mask = _disc(24, 24, 14)
    placement = torch.stack(
        [torch.linspace(0.2, 2, 64, dtype=torch.float64), *torch.full((2, 64), 0.013, dtype=torch.float64)], 1
    )
    generator = torch.Generator().manual_seed(0)
    for dtype, top in ((torch.float32, 1.0), (torch.float16, 1.0), (torch.uint8, 255), (torch.uint16, 65535)):
        tops = torch.full((64, 3, SIZE, SIZE), top, dtype=dtype)
        for feather in (None, 0, 2):
            assert torch.equal(pasted(tops, tops, mask.expand(64, -1, -1), placement, feather=feather), tops)
        if dtype.is_floating_point:
            rough = (torch.rand(64, 3, SIZE, SIZE, generator=generator) > 0.5).to(dtype)
            mixed = pasted(rough, rough.flip(0), mask.expand(64, -1, -1), placement, feather=None)
            assert mixed.min() == 0
            assert mixed.max() == 1


@pytest.mark.parametrize("outside", [100.0, torch.nan])
def test_no_colour_from_outside_the_object_is_smeared_in(outside: float) -> None:
    mask = _disc(24, 24, 10)
    source = torch.where(mask, 1.0, outside).expand(1, 1, SIZE, SIZE)
    for scale in (0.4, 0.77, 1.0, 1.9):
        placement = torch.tensor([[scale, 24 * (1 - scale) / SIZE, 24 * (1 - scale) / SIZE]], dtype=torch.float64)
        mixed = pasted(source, torch.zeros_like(source), mask[None], placement, feather=0)
        assert mixed.max() <= 1 + 1e-5
        assert mixed.min() >= 0


def test_each_image_is_mixed_as_if_alone() -> None:
    images, maps = _batch(8)
    plan = mix_batch(images, maps, mask="otsu", place="random", generator=torch.Generator().manual_seed(0)).plan
    together = compose(plan, images, images)
    assert plan.placement is not None
    assert plan.cutouts is not None
    assert plan.holes is not None
    for i in range(8):
        one = replace(
            plan,
            target=plan.target[i : i + 1],
            applied=plan.applied[i : i + 1],
            masks=plan.masks[i : i + 1],
            holes=plan.holes[i : i + 1],
            placement=plan.placement[i : i + 1],
            cutouts=plan.cutouts[i : i + 1],
        )
        assert torch.equal(compose(one, images[i : i + 1], images)[0], together[i])


def test_draws_of_today_keep_their_bits() -> None:
    before = draw(9, 20, p=0.5, candidates=4, generator=torch.Generator().manual_seed(5))
    after = draw(9, 20, p=0.5, candidates=4, place="random", generator=torch.Generator().manual_seed(5))
    assert torch.equal(before.applied, after.applied)
    assert torch.equal(before.candidates, after.candidates)
    assert before.placed is None
    assert after.placed is not None
    assert after.placed.shape == (9, 3)


def test_draws_repeat_the_mix() -> None:
    images, maps = _batch()
    first = mix_batch(images, maps, place="random", generator=torch.Generator().manual_seed(0))
    again = mix_batch(images, maps, place="random", draws=first.draws)
    assert torch.equal(first.images, again.images)
    with pytest.raises(InvalidInputError, match="have no places"):
        mix_batch(images, maps, place="random", draws=first.draws._replace(placed=None))


def test_torchvision_face() -> None:
    images, _ = _batch()
    mix = SGDMix("spectral_residual", place="random", generator=torch.Generator().manual_seed(0))
    params = mix.make_params([images])
    assert params["plan"].placement is not None
    mixed = mix.transform(images, params)
    assert mixed.dtype == torch.uint8
    assert not torch.equal(mixed, images)


@pytest.mark.parametrize(
    ("bad", "words"), [({"place": "random", "fill": "source"}, "fill='inpaint'"), ({"place": "there"}, "place")]
)
def test_what_means_nothing_is_refused(bad: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        SGDMix(**bad)


# Masks, boxes and key points


def _block(top: int, left: int, tall: int, wide: int) -> Tensor:
    mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    mask[top : top + tall, left : left + wide] = True
    return mask


@settings(max_examples=60, deadline=None)
@given(
    block=st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(6, 20), st.integers(6, 20)),
    drawn=st.tuples(*[st.floats(0, 0.999)] * 3),
    theirs=st.integers(20, 2000),
    kind=st.sampled_from(["XYXY", "XYWH", "CXCYWH"]),
)
def test_boxes_and_points_go_with_their_object(
    block: tuple[int, int, int, int], drawn: tuple[float, float, float], theirs: int, kind: str
) -> None:
    mask = _block(*block)
    areas = torch.tensor([block[2] * block[3]])
    placement = placements(mask[None], areas, torch.tensor([theirs]), torch.tensor([drawn]), 0.95)
    after = _box(moved_masks(mask[None], placement)[0])
    top, left, tall, wide = block
    corners = torch.tensor([[left, top, left + wide, top + tall], [0, 0, SIZE, SIZE]], dtype=torch.float64)
    boxes = tv_tensors.BoundingBoxes(
        functional.convert_bounding_box_format(corners, old_format="XYXY", new_format=kind),
        format=kind,
        canvas_size=(SIZE, SIZE),
    )
    moved_boxes = moved_along(boxes, mask, placement[0])
    assert (type(moved_boxes), moved_boxes.format, moved_boxes.dtype) == (type(boxes), boxes.format, boxes.dtype)
    found = functional.convert_bounding_box_format(moved_boxes.as_subclass(Tensor), old_format=kind, new_format="XYXY")
    x1, y1, x2, y2 = found[0].tolist()
    # A pixel at the edge belongs to the object where at least half of it does.
    assert np.abs(np.array([y1, y2, x1, x2]) - after).max() <= 0.5 + 1e-2
    assert found.min() >= 0
    assert found.max() <= SIZE
    scale, dy, dx = placement[0].tolist()
    inner = [(left + 0.3 * wide, top + 0.7 * tall), (left + wide - 0.01, top + 0.0)]
    points = tv_tensors.KeyPoints(torch.tensor([*inner, (-1.0, -1.0)]), canvas_size=(SIZE, SIZE))
    expected = [(x * scale + dx * SIZE, y * scale + dy * SIZE) for x, y in inner] + [(-1, -1)]
    np.testing.assert_allclose(moved_along(points, mask, placement[0]), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["XYWHR", "CXCYWHR", "XYXYXYXY"])
def test_oriented_boxes_keep_their_angle(kind: str) -> None:
    given_box = torch.tensor([[20.0, 24.0, 10.0, 8.0, 30.0]])  # a centre, sides, an angle
    boxes = functional.convert_bounding_box_format(given_box, old_format="CXCYWHR", new_format=kind)
    wrapped = tv_tensors.BoundingBoxes(boxes, format=kind, canvas_size=(SIZE, SIZE))
    placement = torch.tensor([0.5, 0.25, 0.125], dtype=torch.float64)
    found = moved_along(wrapped, _block(15, 10, 18, 20), placement).as_subclass(Tensor)
    back = functional.convert_bounding_box_format(found, old_format=kind, new_format="CXCYWHR")
    torch.testing.assert_close(back, torch.tensor([[16.0, 24.0, 5.0, 4.0, 30.0]]), atol=1e-3, rtol=0)


def test_points_that_name_pixels_stay_on_theirs() -> None:
    """Whole numbers: the pixel of each is found again by its value."""
    mask = _block(10, 12, 12, 12)
    numbers = torch.arange(SIZE * SIZE).view(SIZE, SIZE)
    for scale in (1.0, 1.5, 2.0):
        placement = torch.tensor([[scale, -0.1, 0.07]], dtype=torch.float64)
        after = moved_instances(numbers[None, None], mask[None], placement)[0, 0]
        points = tv_tensors.KeyPoints(torch.tensor([[14, 11], [20, 20]]), canvas_size=(SIZE, SIZE))
        for (x, y), (new_x, new_y) in zip(
            points.tolist(), moved_along(points, mask, placement[0]).tolist(), strict=True
        ):
            assert after[new_y, new_x] == numbers[y, x]


def _targets(count: int, maps: Tensor) -> list[dict[str, Any]]:
    targets = []
    for i in range(count):
        top, bottom, left, right = _box(maps[i].bool())
        far = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
        far[:2, :2] = 3
        boxes = torch.tensor([[left, top, right, bottom], [0, 0, 2, 2]]).float()
        points = torch.tensor([[(left + right) / 2, (top + bottom) / 2], [1.0, 1.0]])
        targets.append(
            {
                "masks": tv_tensors.Mask(torch.stack([2 * maps[i].to(torch.uint8), far])),
                "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(SIZE, SIZE)),
                "points": tv_tensors.KeyPoints(points, canvas_size=(SIZE, SIZE)),
                "labels": torch.tensor([4, 5]),
            }
        )
    return targets


@pytest.mark.parametrize("min_visibility", [0.0, None])
def test_a_detection_batch_moves_as_one(min_visibility: float | None) -> None:
    images, maps = _batch()
    bright = torch.where(maps.bool()[:, None], torch.tensor(255, dtype=torch.uint8), images // 4)
    mix = SGDMix("given", mask="otsu", place="random", min_visibility=min_visibility, feather=0)
    mix.generator = torch.Generator().manual_seed(3)
    sample = {"image": bright, "saliency": SaliencyMap(maps), "targets": _targets(6, maps)}
    out = mix(sample)
    moves = 0
    for i, (new, old) in enumerate(zip(out["targets"], _targets(6, maps), strict=True)):
        seen = (out["image"][i] == 255).all(0)
        assert torch.equal(new["masks"][0], 2 * seen.to(torch.uint8))
        assert not new["masks"][1].any()
        top, bottom, left, right = _box(seen)
        np.testing.assert_allclose(new["boxes"][0], [left, top, right, bottom], atol=0.51)
        np.testing.assert_allclose(new["points"][0], [(left + right) / 2, (top + bottom) / 2], atol=0.51)
        moves += not np.allclose(new["boxes"][0], old["boxes"][0], atol=2)
        box, point = new["boxes"][1].tolist(), new["points"][1].tolist()
        if min_visibility is None:
            assert box[2] > box[0] or box[3] > box[1] or 0 in box
        else:
            assert (box[0], box[1]) == (box[2], box[3])
            assert point == [-1, -1]
        assert torch.equal(new["labels"], old["labels"])
    assert moves >= 4


def test_a_box_goes_by_the_share_that_is_seen() -> None:
    """Half of the first box is object, a tenth of the second; moving changes neither."""
    images = torch.full((2, 3, SIZE, SIZE), 50, dtype=torch.uint8)
    images[1] += 20
    maps = torch.stack([_block(10, 10, 10, 10), _block(12, 12, 12, 12)]).float()
    images[:, :, 5, 5] = 0
    boxes = torch.tensor([[10.0, 10.0, 20.0, 30.0], [10.0, 10.0, 35.0, 50.0]])
    for share, gone in ((0.05, [False, False]), (0.3, [False, True]), (0.6, [True, True])):
        mix = SGDMix("given", place="random", mask="otsu", min_visibility=share)
        target = {"boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(SIZE, SIZE))}
        out = mix({"image": images, "saliency": SaliencyMap(maps), "targets": [target, {}]})
        found = out["targets"][0]["boxes"]
        assert ((found[:, 2] == found[:, 0]) & (found[:, 3] == found[:, 1])).tolist() == gone


def test_semantic_masks_and_images_with_a_memory() -> None:
    mix = SGDMix("given", mask="otsu", place="random", memory=8, feather=0, generator=torch.Generator().manual_seed(0))
    for seed in range(3):
        images, maps = _batch(4, seed)
        classes = (5 * maps.long() + 1).unsqueeze(1)
        sample = {"image": images, "mask": classes, "saliency": SaliencyMap(maps)}
        out = mix(sample)
    images, maps = _batch(4, 7)
    classes = (5 * maps.long() + 1).unsqueeze(1)
    params = mix.make_params([images, tv_tensors.Mask(classes)], maps=maps)
    assert bool((params["plan"].target >= 4).any())
    found = mix.transform(params["leaves"][1], params)
    assert torch.equal(found == 6, params["plan"].masks[:, None])
    assert set(out["mask"].unique().tolist()) == {1, 6}


def test_gradients_reach_source_and_background() -> None:
    images, maps = _batch()
    floats = (images / 255).requires_grad_()
    plan = mix_batch(images, maps, mask="otsu", place="random", generator=torch.Generator().manual_seed(0)).plan
    mixed = compose(plan, floats, floats)
    assert torch.equal(mixed.detach(), compose(plan, floats.detach(), floats.detach()))
    mixed.sum().backward()
    assert floats.grad is not None
    assert floats.grad.isfinite().all()
    assert (floats.grad.abs().amax((1, 2, 3)) > 0).all()


def test_a_mix_that_moves_nothing_and_changes_nothing_is_none() -> None:
    """The object fills the frame, and around it source and target are equal."""
    mask = torch.eye(SIZE, dtype=torch.bool) | torch.eye(SIZE, dtype=torch.bool).flip(1)
    images = torch.full((2, 3, SIZE, SIZE), 9, dtype=torch.uint8)
    images[0, :, mask], images[1, :, mask] = 200, 100
    maps = mask.float().expand(2, SIZE, SIZE).clone()
    draws = draw(2, 2, place="random")
    for size, applied in ((0.9, False), (0.1, True)):
        resized = draws._replace(placed=torch.tensor([[size, 0.5, 0.5]] * 2))
        mixed = mix_batch(images, maps, mask="otsu", place="random", draws=resized)
        assert (mixed.images != images).any() == applied
        assert mixed.plan.applied.tolist() == [applied] * 2
        assert mixed.plan.guards.duplicate.tolist() == [not applied] * 2
        again = compose(mixed.plan, images, images)
        assert torch.equal(again, mixed.images)
