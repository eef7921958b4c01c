"""What others see of an object: shares against their definition, solid pieces against scipy's opening."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.agreement import held_share, solid, solid_share

masks = hnp.arrays(bool, (2, 11, 14))


@given(masks, masks)
def test_the_share_that_is_held(first: np.ndarray, second: np.ndarray) -> None:
    found = held_share(torch.from_numpy(first), torch.from_numpy(second))
    for row in range(2):
        mask, thing = set(np.flatnonzero(first[row])), set(np.flatnonzero(second[row]))
        np.testing.assert_allclose(float(found[row]), len(mask & thing) / len(thing) if thing else math.nan, rtol=1e-6)


@given(hnp.arrays(bool, (2, 30, 40)) | st.just(np.ones((2, 30, 40), bool)), st.sampled_from([1, 5]))
def test_solid_pieces_are_an_opening(array: np.ndarray, zoom: int) -> None:
    """By a square of 3 pixels up to 112 a side, of 5 to 187; nothing outside the image is object."""
    large = array.repeat(zoom, 1).repeat(zoom, 2)
    side = {1: 3, 5: 5}[zoom]
    opened = np.stack([ndimage.binary_opening(one, np.ones((side, side))) for one in large])
    assert np.array_equal(solid(torch.from_numpy(large)).numpy(), opened)


def test_a_head_counts_and_a_rim_does_not() -> None:
    """A target's disc behind a mask that is a little too small, and one whose head sticks out."""
    y, x = np.mgrid[:224, :224]
    body, head = np.hypot(y - 130, x - 110) < 60, np.hypot(y - 60, x - 110) < 22
    thing = torch.from_numpy(body | head)[None]
    inner = (np.hypot(y - 130, x - 110) < 58) | (np.hypot(y - 60, x - 110) < 20)
    thin = thing & ~torch.from_numpy(inner)
    assert float(solid_share(thin, thing)) < 0.01
    shown = torch.from_numpy(head & ~body)[None]
    assert float(solid_share(shown, thing)) == pytest.approx(float((shown & thing).sum() / thing.sum()), rel=0.1)


def test_no_image_and_no_object() -> None:
    assert solid(torch.zeros(0, 5, 5, dtype=torch.bool)).shape == (0, 5, 5)
    nothing = torch.zeros(1, 5, 5, dtype=torch.bool)
    assert math.isnan(float(held_share(~nothing, nothing)))


def test_other_shapes_are_refused() -> None:
    one = torch.zeros(1, 4, 4, dtype=torch.bool)
    with pytest.raises(InvalidInputError, match=r"two bool masks of one shape \(B, H, W\)"):
        held_share(one, one[:, :3])
    with pytest.raises(InvalidInputError, match="bool masks, got torch.float32"):
        solid(one.float())
