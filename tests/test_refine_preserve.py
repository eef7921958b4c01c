"""Strength maps and the strict composite, from their equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.refine.preserve import check_preserve, composite, hole_shares, mask_core, off_object, strength_map


def random_masks(seed, count=2, side=24):
    smooth = ndimage.gaussian_filter(
        torch.rand(count, side, side, generator=torch.Generator().manual_seed(seed)).numpy(), (0, 2, 2)
    )
    return torch.from_numpy(smooth > 0.5)


@given(seed=st.integers(0, 1000), band=st.integers(0, 9))
def test_the_core_is_scipys_erosion(seed, band):
    masks = random_masks(seed)
    expected = masks.numpy().copy()
    if band:
        for image in expected:
            image[:] = ndimage.binary_erosion(image, structure=[[1] * 3] * 3, iterations=band, border_value=1)
    assert torch.equal(mask_core(masks, band), torch.from_numpy(expected))


@given(seed=st.integers(0, 1000), band=st.integers(0, 3), whole=st.booleans())
def test_strict_keeps_every_bit_of_the_core_and_nothing_outside_the_mask(seed, band, whole):
    draw = torch.Generator().manual_seed(seed)
    refined, mixed = torch.rand(2, 2, 3, 24, 24, generator=draw)
    if whole:
        refined, mixed = (refined * 255).to(torch.uint8), (mixed * 255).to(torch.uint8)
    masks = random_masks(seed)
    found = composite(refined, mixed, masks, band=band)
    core = mask_core(masks, band)[:, None].expand_as(mixed)
    outside = ~masks[:, None].expand_as(mixed)
    assert torch.equal(found[core], mixed[core])
    assert torch.equal(found[outside], refined[outside])
    assert found.dtype == mixed.dtype
    low, high = torch.minimum(refined, mixed), torch.maximum(refined, mixed)
    assert ((found.double() >= low.double() - 1e-6) & (found.double() <= high.double() + 1e-6)).all()


def test_the_fade_is_a_ramp():
    masks = torch.zeros(1, 9, 9, dtype=torch.bool)
    masks[:, :, 3:] = True
    found = composite(torch.zeros(1, 1, 9, 9), torch.ones(1, 1, 9, 9), masks, band=3)
    assert found[0, 0, 4].tolist() == pytest.approx([0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1])


@given(seed=st.integers(0, 1000), band=st.integers(1, 6))
def test_the_fade_follows_the_chessboard_distance_to_the_edge(seed, band):
    masks = random_masks(seed)
    # A rim of mask around the image, wider than the band: its border is no edge.
    wide = np.pad(masks.numpy(), ((0, 0), (9, 9), (9, 9)), constant_values=True)
    deep = np.stack([ndimage.distance_transform_cdt(mask, "chessboard")[9:-9, 9:-9] for mask in wide])
    expected = torch.from_numpy(np.minimum(deep, band + 1) / (band + 1))
    found = composite(torch.zeros(2, 1, 24, 24), torch.ones(2, 1, 24, 24), masks, band=band)[:, 0]
    torch.testing.assert_close(found, expected.float())


@given(seed=st.integers(0, 1000), strength=st.floats(0.05, 1))
def test_strength_maps_lie_between_a_third_and_the_whole(seed, strength):
    masks = random_masks(seed)
    found = strength_map(masks, torch.tensor([strength, strength / 2]), (6, 6))
    share = masks.float().reshape(2, 6, 4, 6, 4).mean((2, 4))  # of each latent that the mask covers
    share = torch.from_numpy(ndimage.maximum_filter(share.numpy(), (1, 3, 3)))
    expected = torch.tensor([strength, strength / 2])[:, None, None] * (1 - share + share / 3)
    torch.testing.assert_close(found, expected)


@given(seed=st.integers(0, 1000))
def test_holes_count_by_area_and_stay_off_the_object(seed):
    masks, holes = random_masks(seed), random_masks(seed + 1)
    bare = hole_shares(holes, None, (6, 6))
    torch.testing.assert_close(bare, holes.float().reshape(2, 6, 4, 6, 4).mean((2, 4)))
    found = hole_shares(holes, masks, (6, 6))
    covered = torch.from_numpy(ndimage.maximum_filter(masks.float().reshape(2, 6, 4, 6, 4).mean((2, 4)), (1, 3, 3)))
    torch.testing.assert_close(found, bare * (1 - covered))
    torch.testing.assert_close(off_object(masks, (6, 6)), 1 - covered)


@pytest.mark.parametrize(("preserve", "masks"), [("hard", None), ("soft", None), ("strict", None)])
def test_modes_that_cannot_be(preserve, masks):
    with pytest.raises(InvalidInputError, match="preserve"):
        check_preserve(preserve, masks)
