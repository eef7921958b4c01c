"""Stage 2 against a brute-force search written from the equation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.bits import same_pixels
from sgdmix_albu.mixing.selection import (
    class_allows,
    draw_candidates,
    nearest,
    pairwise_distances,
    same_ids,
)


def random_maps(seed: int, n: int, h: int = 9, w: int = 7) -> torch.Tensor:
    return torch.rand(n, h, w, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 20))
def test_distances_equal_scipy(seed, n, m):
    maps, pool = random_maps(seed, n), random_maps(seed + 1, m)
    expected = cdist(maps.flatten(1).double(), pool.flatten(1).double()) / np.sqrt(63)
    np.testing.assert_allclose(pairwise_distances(maps, pool), expected, atol=2e-5)


@given(st.integers(0, 10_000), st.integers(2, 16), st.floats(0.1, 1))
def test_nearest_is_the_exact_argmin(seed, n, share):
    generator = torch.Generator().manual_seed(seed)
    maps = random_maps(seed, n)
    eligible = (torch.rand(n, n, generator=generator) < share) & ~torch.eye(n, dtype=torch.bool)
    target, distance = nearest(pairwise_distances(maps, maps), eligible)
    exact = cdist(maps.flatten(1).double(), maps.flatten(1).double())
    for i in range(n):
        allowed = [j for j in range(n) if eligible[i, j]]
        if not allowed:
            assert target[i] == -1
            assert distance[i].isinf()
            continue
        assert target[i] in allowed
        assert target[i] == min(allowed, key=lambda j: exact[i, j])
        assert distance[i] == pytest.approx(exact[i, target[i]] / np.sqrt(63), rel=1e-5)


def test_near_ties_far_from_the_origin_are_settled_exactly():
    # Differences of 1e-4 beside norms of 60: the expanded product alone cannot order them in float32.
    base = torch.full((1, 64, 64), 0.95)
    pool = torch.cat([base + 3e-4, base + 1e-4, base - 2e-4])
    everything = torch.ones(1, 3, dtype=torch.bool)
    target, _ = nearest(pairwise_distances(base, pool), everything)
    assert target.item() == 1


def test_one_step_of_one_pixel_decides():
    """Maps of 64 x 64 that differ by 1/65535 in one pixel, in any order of adding."""
    base = torch.full((1, 64, 64), 0.95)
    pool = base.repeat(9, 1, 1)
    for row, steps in enumerate((5, 4, 3, 2, 6, 1, 2, 7, 8)):
        pool[row, row, row] += steps / 65535
    for first in range(9):
        rolled = pool.roll(first, 0)
        distances = pairwise_distances(base, rolled)
        assert nearest(distances, torch.ones(1, 9, dtype=torch.bool))[0].item() == (5 + first) % 9
        assert distances.min() == pytest.approx(1 / 65535 / 64, rel=1e-12)


def test_ties_go_to_the_lowest_row():
    maps = torch.zeros(6, 3, 3)
    others = ~torch.eye(6, dtype=torch.bool)
    target, _ = nearest(pairwise_distances(maps, maps), others)
    assert (target <= 4).all()
    assert (target != torch.arange(6)).all()


@given(st.integers(1, 12), st.integers(0, 12), st.integers(1, 20), st.integers(0, 100))
def test_candidates_are_n_others_without_repeats(batch, more, candidates, seed):
    pool = batch + more
    drawn = draw_candidates(batch, pool, candidates, generator=torch.Generator().manual_seed(seed))
    assert drawn.shape == (batch, pool)
    assert not drawn.diagonal().any()
    assert (drawn.sum(1) == min(candidates, pool - 1)).all()


def test_candidates_are_drawn_evenly():
    generator = torch.Generator().manual_seed(0)
    hits = sum(draw_candidates(5, 11, 3, generator=generator).float() for _ in range(2000)) / 2000
    off_diagonal = hits[~torch.eye(5, 11, dtype=torch.bool)]
    # Binomial(2000, 0.3): four standard deviations are 0.041.
    assert (off_diagonal - 0.3).abs().max() < 0.041


def test_candidates_repeat_under_a_seed():
    first, second = (draw_candidates(6, 20, 4, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("soft", [False, True])
def test_class_constraint(soft):
    labels = torch.tensor([0, 1, 1])
    given_labels = torch.nn.functional.one_hot(labels).float() if soft else labels
    assert class_allows(given_labels, given_labels, "any").all()
    same = class_allows(given_labels, given_labels, "same")
    assert same.tolist() == [[True, False, False], [False, True, True], [False, True, True]]
    assert torch.equal(class_allows(given_labels, given_labels, "different"), ~same)


def test_unknown_class_constraint():
    with pytest.raises(InvalidInputError, match="got 'other'"):
        class_allows(torch.zeros(1), torch.zeros(1), "other")


def test_repeats_are_found_to_the_last_bit():
    images = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    images[2] = images[0]
    images[3] = images[0].flip(-1)  # the same sum, other pixels
    expected = torch.eye(4, dtype=torch.bool)
    expected[0, 2] = expected[2, 0] = True
    assert torch.equal(same_pixels(images, images), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.bool, torch.bfloat16, torch.float64])
def test_repeats_are_found_in_every_dtype(dtype):
    images = (torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(1)) * 200).to(dtype)
    images[0] = images[0].flip(-1)
    pool = torch.stack([images[2], images[0].clone()])
    expected = [[torch.equal(image, other) for other in pool] for image in images]
    assert same_pixels(images, pool).tolist() == expected
    assert same_pixels(images[:0], pool).shape == (0, 2)


def test_broken_pixels_equal_themselves():
    images = torch.full((2, 3, 4, 4), torch.nan)
    images[1, 0, 0, 0] = 1
    assert torch.equal(same_pixels(images, images), torch.eye(2, dtype=torch.bool))


def test_repeats_are_compared_once(monkeypatch):
    """A batch of one image compared every pair whole: 10 seconds with a memory of 512."""
    images = torch.zeros(12, 3, 4, 4)
    images[5, 0, 0, 0] = images[6, 0, 0, 1] = 1  # equal sums, other pixels
    expected = (images[:, None] == images).flatten(2).all(2)
    calls, equal = [], torch.equal
    monkeypatch.setattr(torch, "equal", lambda one, other: calls.append(1) or equal(one, other))
    assert (same_pixels(images, images) == expected).all()
    assert len(calls) <= 3 * len(images)


def test_ids_of_any_kind():
    expected = [[True, False, True], [False, True, False]]
    assert same_ids(["a", 3], ["a", 3, "a"]).tolist() == expected
    assert same_ids(torch.tensor([7, 8]), torch.tensor([7, 8, 7])).tolist() == expected
    assert same_ids(np.array([7, 8]), [7, 8, 7]).tolist() == expected
    assert same_ids([(0, "x"), None], [(0, "x"), None, (0, "x")]).tolist() == expected
    assert same_ids([torch.tensor(7), 8], [7, 8, 7]).tolist() == expected


@pytest.mark.parametrize("ids", [{"a", "b"}, frozenset("ab"), {"a": 1, "b": 2}, "ab", 3])
def test_ids_without_an_order_are_refused(ids):
    with pytest.raises(InvalidInputError, match=f"got {type(ids).__name__}"):
        same_ids(ids, ["a", "b"])


def test_sizes_must_agree():
    with pytest.raises(InvalidInputError, match=r"\(1, 2, 2\) and \(1, 3, 3\)"):
        pairwise_distances(torch.zeros(1, 2, 2), torch.zeros(1, 3, 3))
