"""Measures against their definitions, written with numpy sets, scipy and scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import label, regionprops

from sgdmix_albu.audit import measures
from sgdmix_albu.errors import InvalidInputError

SHAPE = (2, 9, 12)
masks = hnp.arrays(bool, SHAPE)


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def fraction(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


@given(masks, masks)
def test_shares_equal_their_set_definitions(first: np.ndarray, second: np.ndarray) -> None:
    a, b = tensors(first, second)
    for row in range(2):
        m = set(np.flatnonzero(first[row]))
        fg = set(np.flatnonzero(second[row]))
        everything = set(range(first[row].size))
        oracle = {
            "area": fraction(len(m), len(everything)),
            "coverage": fraction(len(m & fg), len(fg)),
            "spill": fraction(len(m - fg), len(everything - fg)),
            "leak": fraction(len(fg - m), len(fg)),
            "overlap": fraction(len(m & fg), len(m | fg)),
            "void": fraction(len(fg - m), len(m | fg)),
        }
        measured = {
            "area": measures.area(a),
            "coverage": measures.coverage(a, b),
            "spill": measures.spill(a, b),
            "leak": measures.leak(a, b),
            "overlap": measures.overlap(a, b),
            "void": measures.void_share(a, b),
        }
        for name, value in oracle.items():
            np.testing.assert_allclose(float(measured[name][row]), value, rtol=1e-6, err_msg=name)


@given(hnp.arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32)), masks)
def test_mass_outside_is_a_sum(maps: np.ndarray, array: np.ndarray) -> None:
    found = measures.mass_outside(*tensors(maps, array))
    for row in range(2):
        total = math.fsum(maps[row].flat)
        oracle = math.fsum(maps[row][~array[row]]) / total if total else math.nan
        np.testing.assert_allclose(float(found[row]), oracle, rtol=1e-4, atol=1e-6)


@given(masks)
def test_largest_piece_equals_scikit_image(array: np.ndarray) -> None:
    found = measures.largest_piece_share(torch.from_numpy(array))
    for row in range(2):
        sizes = [region.area for region in regionprops(label(array[row], connectivity=2))]
        np.testing.assert_allclose(float(found[row]), fraction(max(sizes, default=0), array[row].sum()), rtol=1e-6)


@given(masks, st.sampled_from([0.1, 0.25, 0.5]))
def test_border_share_counts_pixels_near_an_edge(array: np.ndarray, margin: float) -> None:
    found = measures.border_share(torch.from_numpy(array), margin)
    height, width = SHAPE[1:]
    rows, columns = max(1, round(margin * height)), max(1, round(margin * width))
    for row in range(2):
        near = [
            min(y, height - 1 - y) < rows or min(x, width - 1 - x) < columns
            for y, x in zip(*np.nonzero(array[row]), strict=True)
        ]
        np.testing.assert_allclose(float(found[row]), fraction(sum(near), len(near)), rtol=1e-6)


@given(hnp.arrays(np.float32, (1, 8, 8), elements=st.floats(0, 1, width=16)))
def test_corner_share_is_the_heaviest_quadrant_of_quarters(array: np.ndarray) -> None:
    found = float(measures.corner_share(torch.from_numpy(array))[0])
    blocks = array[0].reshape(4, 2, 4, 2).sum((1, 3))
    oracle = fraction(max(blocks[0, 0], blocks[0, 3], blocks[3, 0], blocks[3, 3]), blocks.sum())
    np.testing.assert_allclose(found, oracle, rtol=1e-5)


def test_a_shared_spot_must_be_shared_and_away_from_the_middle() -> None:
    maps = torch.full((6, 64, 64), 0.1)
    for row in range(6):
        maps[row, 20:36, 18 + 2 * row : 34 + 2 * row] = 1  # objects in the middle
        maps[row, :8, 8 * row : 8 * row + 8] = 1  # a spot each, all in different places
    assert measures.shared_spot_share(maps).isnan().all()
    maps[:3, -8:, -8:] = 1
    assert measures.shared_spot_share(maps).isnan().all()  # in half of them
    maps[:5, -8:, -8:] = 1
    expected = maps[:, -8:, -8:].sum((1, 2)) / maps.sum((1, 2))
    torch.testing.assert_close(measures.shared_spot_share(maps), expected)


def test_measures_do_not_depend_on_the_batch() -> None:
    first, second = torch.rand(3, 16, 16) > 0.5, torch.rand(3, 16, 16) > 0.5
    together = measures.void_share(first, second)
    alone = torch.cat([measures.void_share(first[i : i + 1], second[i : i + 1]) for i in range(3)])
    assert torch.equal(together, alone)


def test_a_batch_of_none() -> None:
    none = torch.zeros(0, 4, 4, dtype=torch.bool)
    assert measures.coverage(none, none).shape == (0,)
    assert measures.largest_piece_share(none).shape == (0,)


def test_what_does_not_fit_is_refused() -> None:
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    with pytest.raises(InvalidInputError, match=r"bool masks, got torch.float32 \(1, 4, 4\)"):
        measures.coverage(mask, mask.float())
    with pytest.raises(InvalidInputError, match=r"and \(1, 4, 5\)"):
        measures.leak(mask, torch.ones(1, 4, 5, dtype=torch.bool))
    with pytest.raises(InvalidInputError, match="margin"):
        measures.border_share(mask, 0.6)
    with pytest.raises(InvalidInputError, match="side"):
        measures.corner_share(mask.float(), 0.0)
