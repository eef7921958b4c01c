"""Where the source's object stands: cut out, scaled, moved, pasted; against OpenCV and by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from sgdmix_albu import SGDMix
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing import compose, draw
from sgdmix_albu.mixing.mix import mix_batch
from sgdmix_albu.mixing.placement import moved_masks, pasted, placements, unmoved
from sgdmix_albu.mixing.plan import moved

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
    assert (here - there).abs().max() <= (1e-2 if dtype.is_floating_point else images.double().max() / 255 + 1)
    assert torch.equal(here[~plan.applied], there[~plan.applied])


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


def test_objects_stay_whole_in_the_frame_at_forauges_size() -> None:
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


def test_no_colour_from_outside_the_object_is_smeared_in() -> None:
    mask = _disc(24, 24, 10)
    source = torch.where(mask, 1.0, 100.0).expand(1, 1, SIZE, SIZE)
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
    with pytest.raises(InvalidInputError, match="say no places"):
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
