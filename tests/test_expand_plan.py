"""The plan: draws from one seed, exact nearest targets, file names that never meet."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from sgdmix_albu.bank.descriptors import Descriptors
from sgdmix_albu.bank.parts import GRID
from sgdmix_albu.datasets.source import Item
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.expand import Settings
from sgdmix_albu.expand.plan import targets as planning
from sgdmix_albu.expand.plan.rows import Row
from sgdmix_albu.expand.plan.targets import draw_candidate_rows, output_names


def descriptors(maps: Tensor, masks: Tensor, labels: list[int] | None = None) -> Descriptors:
    """Descriptors of (N, 64, 64) uint8 maps and bool masks, without images behind them."""
    labels = labels or [0] * len(maps)
    items = [Item(f"c{label}/{row}.png", f"c{label}", label, NotImplemented) for row, label in enumerate(labels)]
    return Descriptors(
        items=items,
        maps=maps.numpy(),
        grid_masks=np.packbits(masks.flatten(1).numpy(), axis=1),
        flat=(maps.flatten(1).amax(1) == maps.flatten(1).amin(1)).numpy(),
        empty=~masks.flatten(1).any(1).numpy(),
        agreement=np.full(len(maps), np.nan, np.float32),
    )


def plan_rows(known: Descriptors, **settings: Any) -> list[Row]:
    """One output of each image, unmixed ones too; places are rows of the descriptors."""
    asked = Settings(**{"fill": "source", "multiplier": 1, "keep_unmixed": True, **settings})
    return list(planning.plan_rows(known, range(len(known)), asked, Counter()))


def random_maps(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)[:, 0].contiguous()


@given(pool=st.integers(0, 40), candidates=st.integers(1, 45), seed=st.integers(0, 99))
def test_candidates_are_others_without_repeats(pool: int, candidates: int, seed: int) -> None:
    rows = draw_candidate_rows(np.arange(pool), pool, candidates, seed=seed)
    assert rows.shape == (pool, min(candidates, max(pool - 1, 0)))
    for row, drawn in enumerate(rows.tolist()):
        assert len(set(drawn)) == len(drawn)
        assert set(drawn) <= set(range(pool)) - {row}


def test_every_other_row_is_equally_likely() -> None:
    pool, candidates, repeats = 12, 5, 4000
    counts = np.zeros((pool, pool))
    for repeat in range(repeats):
        rows = draw_candidate_rows(np.arange(pool), pool, candidates, seed=3, repeat=repeat)
        np.add.at(counts, (np.arange(pool)[:, None], rows), 1)
    expected = candidates / (pool - 1)
    share = counts[~np.eye(pool, dtype=bool)] / repeats
    # Binomial: six standard deviations over 132 shares.
    assert np.abs(share - expected).max() < 6 * np.sqrt(expected * (1 - expected) / repeats)


def test_targets_are_the_nearest_of_all() -> None:
    maps = random_maps(40)
    rows = plan_rows(descriptors(maps, maps > 200), candidates=100)
    values = maps.flatten(1).double().numpy() / 255
    distances = np.sqrt(((values[:, None] - values[None]) ** 2).mean(2))
    np.fill_diagonal(distances, np.inf)
    assert [row.target_place for row in rows] == distances.argmin(1).tolist()
    np.testing.assert_allclose([row.distance for row in rows], distances.min(1), atol=1e-6)


def test_targets_are_the_nearest_of_those_drawn() -> None:
    maps = random_maps(40)
    rows = plan_rows(descriptors(maps, maps > 200), candidates=7, seed=5)
    drawn = draw_candidate_rows(np.arange(40), 40, 7, seed=5).tolist()
    values = maps.flatten(1).double().numpy() / 255
    for row in rows:
        distances = {
            other: ((values[row.source_place] - values[other]) ** 2).mean() for other in drawn[row.source_place]
        }
        assert row.target_place == min(distances, key=distances.__getitem__)


def test_rounded_averages_hide_no_nearer_target() -> None:
    """In each cell of 4 x 4 one candidate differs by 1 in one pixel, which takes its average over the edge of a level;
    the other by 1 in two pixels, which leaves its average where it was."""
    cell = np.full((3, 16), 100)
    cell[0, :7] += 1  # the source: 100 7/16, level 100
    cell[1, :8] += 1  # one pixel away: 100 8/16, level 101
    cell[2, 1:8] += 1  # two pixels away: 100 7/16
    maps = np.tile(cell.reshape(3, 4, 4), (1, 16, 16)).astype(np.uint8)
    maps[:, :4, :4] += 9  # no map is flat
    masks = torch.zeros(3, 64, 64, dtype=torch.bool)
    masks[:, 20:30, 20:30] = True
    row = plan_rows(descriptors(torch.from_numpy(maps), masks))[0]
    assert row.target_place == 1
    assert row.distance == pytest.approx(0.25 / 255)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_the_plan_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    maps = random_maps(10).repeat(3, 1, 1)  # ties: every map three times
    known = descriptors(maps, maps > 200, [row % 2 for row in range(30)])
    expected = plan_rows(known, candidates=12, max_coverage=0.4, target_class="different", p=0.8)
    assert {row.unmixed for row in expected} >= {None, "not_drawn"}
    monkeypatch.setattr(planning, "_BLOCK", block)
    rows = plan_rows(known, candidates=12, max_coverage=0.4, target_class="different", p=0.8)
    assert rows == expected


def test_seeds() -> None:
    maps = random_maps(30)
    known = descriptors(maps, maps > 200)
    one, same, other = (plan_rows(known, candidates=3, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert [row.target_place for row in one] != [row.target_place for row in other]


@pytest.mark.parametrize("target_class", ["same", "different"])
def test_class_constraint(target_class: str) -> None:
    labels = [0, 1, 2] * 5
    maps = random_maps(15)
    rows = plan_rows(descriptors(maps, maps > 200, labels), target_class=target_class)
    for row in rows:
        assert row.target_place is not None
        assert (labels[row.target_place] == labels[row.source_place]) == (target_class == "same")


def test_crowded_unions_fall_back_to_the_next_nearest_then_to_none() -> None:
    maps = random_maps(3)
    maps[1] = maps[0]
    maps[1, 0, 0] ^= 1  # the nearest to 0, and the other way round
    masks = torch.zeros(3, GRID, GRID, dtype=torch.bool)
    masks[0, :32], masks[1, 32:], masks[2, :16] = True, True, True
    # 0 and 1 fill the canvas, 1 and 2 three quarters of it, 0 and 2 one half.
    rows = plan_rows(descriptors(maps, masks), max_coverage=0.7)
    assert [(row.target_place, row.refused, row.unmixed) for row in rows[:2]] == [
        (2, 1, None),
        (None, 2, "over_coverage"),
    ]


def test_painted_targets_are_judged_by_masks_of_their_own() -> None:
    maps = random_maps(4)
    maps[1] = maps[2] = maps[0]
    maps[1, 0, 0] ^= 1  # the nearest to 0
    maps[2, 0, :2] ^= 1  # the next
    masks = torch.zeros(4, GRID, GRID, dtype=torch.bool)
    masks[0, :32], masks[1, :44], masks[2, 32:], masks[3, :45] = True, True, True, True
    # Of 64 rows 0 and 2 have a half, which are no hindrance to each other as a union would be. 1 has 44, and 45 with
    # the rim of its hole: it may be a source and not a target. 3 may be neither.
    rows = plan_rows(descriptors(maps, masks), fill="inpaint", max_coverage=44.5 / 64)
    assert [(row.target_place, row.refused, row.unmixed) for row in rows[:2]] == [(2, 1, None), (0, 0, None)]
    assert [(row.target_place, row.refused, row.unmixed) for row in rows[2:]] == [
        (0, 1, None),
        (None, 3, "over_coverage"),
    ]


@pytest.mark.parametrize("rows_left", [1, 2])
def test_a_hole_leaves_something_to_paint_from(rows_left: int) -> None:
    maps = random_maps(2)
    masks = torch.zeros(2, GRID, GRID, dtype=torch.bool)
    masks[0, :8], masks[1, rows_left:] = True, True
    first, second = plan_rows(descriptors(maps, masks), fill="inpaint", max_coverage=1.0)
    assert (first.target_place, first.unmixed) == ((None, "over_coverage") if rows_left == 1 else (1, None))
    assert second.target_place == 0


def test_reasons_for_staying_unmixed() -> None:
    maps = random_maps(4)
    masks = maps > 200
    maps[1] = 0
    masks[2] = False
    rows = plan_rows(descriptors(maps, masks))
    assert [row.unmixed for row in rows] == [None, "flat_saliency", "empty_mask", None]
    assert [row.target_place for row in rows] == [3, None, None, 0]
    assert {row.unmixed for row in plan_rows(descriptors(maps, masks), p=0.0)} == {"not_drawn"}


def test_a_single_image_has_no_candidate() -> None:
    maps = random_maps(1)
    (row,) = plan_rows(descriptors(maps, maps > 200))
    assert (row.target_place, row.distance, row.unmixed) == (None, None, "no_target")


@pytest.mark.parametrize(
    "settings", [{"p": 1.5}, {"candidates": 0}, {"max_coverage": 0.0}, {"target_class": "x"}, {"fill": "x"}]
)
def test_settings_out_of_range(settings: dict[str, object]) -> None:
    maps = random_maps(3)
    with pytest.raises(InvalidInputError):
        plan_rows(descriptors(maps, maps > 200), **settings)


part = st.text("ab.-é ", min_size=1, max_size=4).filter(lambda text: text.strip(". ") != "")
keys = st.lists(
    st.tuples(st.sampled_from(["x", "y/z", "a.jpg"]), part, st.sampled_from([".jpg", ".png", ".JPG"])).map(
        lambda parts: f"{parts[0]}/{parts[1]}{parts[2]}"
    ),
    unique=True,
)


@given(keys=keys)
@example(keys=["x/a.jpg", "x/a.png", "x/a.jpg.gif"])
def test_names_are_different_and_traceable(keys: list[str]) -> None:
    names = output_names(keys, ".png")
    assert len(set(names)) == len(names)
    for key, name in zip(keys, names, strict=True):
        assert PurePosixPath(name).parent == PurePosixPath(key).parent
        assert name.removesuffix(".png") in (key, key[: key.rindex(".")])
