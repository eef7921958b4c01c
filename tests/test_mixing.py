"""Stages 2 to 4 together, against a plain loop written from the paper's equations."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.filters import threshold_otsu

import sgdmix_albu
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.masks import otsu
from sgdmix_albu.mixing import describe, draw, plan_mix
from sgdmix_albu.mixing.blending import blend, softened
from sgdmix_albu.mixing.composition import changed_only, compose
from sgdmix_albu.mixing.fill import inpaint
from sgdmix_albu.saliency import get_backend
from sgdmix_albu.types import Draws, Foreground

mix_batch = partial(sgdmix_albu.mix_batch, mask="otsu")  # the paper's mask, which an oracle can state


def blobs(seed: int, n: int, h: int = 24, w: int = 20) -> torch.Tensor:
    """Maps at 8 bits, one soft blob each, somewhere."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    centre_y, centre_x, radius = rng.uniform(0, h, n), rng.uniform(0, w, n), rng.uniform(2, 7, n)
    distance = (y - centre_y[:, None, None]) ** 2 + (x - centre_x[:, None, None]) ** 2
    maps = np.exp(-distance / (2 * radius[:, None, None] ** 2))
    return torch.from_numpy(np.round(255 * maps) / 255).float()


def pictures(seed: int, n: int, h: int = 24, w: int = 20) -> torch.Tensor:
    return torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(seed))


def sgd_mix(images: np.ndarray, maps: np.ndarray, max_coverage: float) -> tuple[np.ndarray, list[int]]:
    """SGD-Mix by the book: one image, one candidate and one pixel at a time."""
    masks = [z > threshold_otsu(np.uint8(np.round(255 * z))) / 255 + 1e-6 for z in maps]
    mixed, targets = images.copy(), []
    for i, source in enumerate(maps):
        order = sorted((np.linalg.norm(source - other), j) for j, other in enumerate(maps) if j != i)
        fitting = [j for _, j in order if (masks[i] | masks[j]).mean() <= max_coverage]
        targets.append(fitting[0] if fitting else i)
        background = ~(masks[i] | masks[targets[-1]])
        mixed[i][:, background] = images[targets[-1]][:, background]
    return mixed, targets


@given(st.integers(0, 10_000), st.integers(2, 9), st.sampled_from([1.0, 0.5, 0.3, 0.1]))
def test_mix_is_the_paper(seed, n, max_coverage):
    images, maps = pictures(seed, n), blobs(seed, n)
    before = images.clone(), maps.clone()
    mixed = mix_batch(images, maps, max_coverage=max_coverage, fill="source")
    expected, targets = sgd_mix(images.numpy(), maps.numpy(), max_coverage)
    applied = mixed.plan.applied
    assert mixed.plan.target[applied].tolist() == [t for t, a in zip(targets, applied.tolist(), strict=True) if a]
    np.testing.assert_array_equal(mixed.images[applied].numpy(), expected[applied.numpy()])
    assert torch.equal(mixed.images[~applied], images[~applied])
    assert torch.equal(mixed.plan.guards.no_target, ~applied)
    assert torch.equal(images, before[0])
    assert torch.equal(maps, before[1])


@given(st.integers(0, 10_000))
def test_what_is_reported_is_what_was_done(seed):
    images, maps = pictures(seed, 8), blobs(seed, 8)
    result = mix_batch(images, maps, max_coverage=0.6, fill="source")
    plan = result.plan
    for i in range(8):
        kept = (result.images[i] == images[i]).all(0)
        assert torch.equal(kept, plan.masks[i])
        assert plan.kept[i] == pytest.approx(plan.masks[i].double().mean().item())
        if not plan.applied[i]:
            assert plan.masks[i].all()
            assert plan.distance[i].isnan()
            continue
        j = plan.target[i]
        assert torch.equal(plan.masks[i], result.foreground[i] | result.foreground[j])
        assert plan.distance[i] == pytest.approx((maps[i] - maps[j]).square().mean().sqrt().item(), rel=1e-4)
        assert plan.masks[i].double().mean() <= 0.6


@pytest.mark.parametrize("n", [0, 1])
def test_batches_without_a_partner_come_back_unmixed(n):
    result = mix_batch(pictures(0, n), blobs(0, n))
    assert torch.equal(result.images, pictures(0, n))
    assert result.plan.guards.counts()["no_target"] == n


def test_p_is_per_image_and_the_rest_is_bit_identical():
    images, maps = pictures(1, 200), blobs(1, 200)
    result = mix_batch(images, maps, p=0.3, generator=torch.Generator().manual_seed(0))
    # Binomial(200, 0.3): four standard deviations are 26.
    assert abs(int(result.plan.applied.sum()) - 60) < 26
    untouched = ~result.plan.applied
    assert torch.equal(result.images[untouched], images[untouched])
    assert torch.equal(mix_batch(images, maps, p=0.0).images, images)


def test_draws_handed_back_repeat_the_result():
    images, maps = pictures(2, 30), blobs(2, 30)
    first = mix_batch(images, maps, p=0.5, candidates=4, generator=torch.Generator().manual_seed(3))
    again = mix_batch(images, maps, draws=first.draws)
    seeded = mix_batch(images, maps, p=0.5, candidates=4, generator=torch.Generator().manual_seed(3))
    other = mix_batch(images, maps, p=0.5, candidates=4, generator=torch.Generator().manual_seed(4))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.images, seeded.images)
    assert not torch.equal(first.images, other.images)


def test_target_comes_from_the_candidates_drawn():
    images, maps = pictures(3, 20), blobs(3, 20)
    result = mix_batch(images, maps, candidates=3, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(20)[result.plan.applied]
    assert result.draws.candidates[rows, result.plan.target[rows]].all()


def test_flat_saliency_is_counted_and_never_a_target():
    images, maps = pictures(4, 6), blobs(4, 6)
    maps[2] = 0.5
    result = mix_batch(images, maps)
    assert result.plan.guards.flat_saliency.tolist() == [False, False, True, False, False, False]
    assert not result.plan.applied[2]
    assert 2 not in result.plan.target[result.plan.applied].tolist()
    assert not result.plan.guards.empty_mask.any()


@pytest.mark.parametrize(("span", "flat"), [(0.4, True), (0.6, False)])
def test_a_map_is_flat_where_eight_bits_do_not_see_it(span, flat):
    images, maps = pictures(4, 6), blobs(4, 6)
    maps[2] = 0.5
    maps[2, :2] += span / 255
    assert mix_batch(images, maps).plan.guards.flat_saliency.tolist() == [False, False, flat, False, False, False]


def test_empty_mask_is_counted_and_never_a_target():
    def all_but_the_first(maps, images):
        masks = maps > 0.5
        masks[0] = False
        return Foreground(masks, torch.full((len(maps),), 0.5))

    result = mix_batch(pictures(5, 5), blobs(5, 5), mask=all_but_the_first)
    assert result.plan.guards.empty_mask.tolist() == [True, False, False, False, False]
    assert not result.plan.applied[0]
    assert 0 not in result.plan.target[result.plan.applied].tolist()


def test_crowded_candidates_are_refused_in_order():
    # The nearest map of image 0 is image 1, but their union fills the canvas; image 2 is next.
    def fixed(maps, images):
        masks = torch.zeros(3, 1, 10, dtype=torch.bool)
        masks[0, :, :6], masks[1, :, 4:], masks[2, :, 3:8] = True, True, True
        return Foreground(masks, torch.zeros(3))

    maps = torch.tensor([0.0, 0.1, 0.3])[:, None, None] + torch.linspace(0, 0.5, 10)
    result = mix_batch(pictures(0, 3, 1, 10), maps, mask=fixed, max_coverage=0.85, fill="source")
    assert result.plan.target.tolist() == [2, 2, 1]
    assert result.plan.guards.over_coverage.tolist() == [1, 1, 0]


def grown_by_a_pixel(masks: torch.Tensor) -> torch.Tensor:
    """What masks of 24 and fewer pixels a side grow by."""
    return torch.from_numpy(ndimage.binary_dilation(masks.numpy(), np.ones((1, 3, 3))))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float16, torch.float32, torch.float64])
@given(seed=st.integers(0, 10_000), n=st.integers(2, 9), max_coverage=st.sampled_from([1.0, 0.5, 0.2]))
def test_inpaint_pastes_the_source_by_its_own_mask_on_a_painted_target(dtype, seed, n, max_coverage):
    images, maps = (255 * pictures(seed, n)).to(dtype), blobs(seed, n)
    result = mix_batch(images, maps, max_coverage=max_coverage, fill="inpaint", feather=0)
    plan, own = result.plan, result.foreground
    holes = grown_by_a_pixel(own)
    for i in range(n):
        i_fits = own[i].double().mean() <= max_coverage
        order = sorted((float((maps[i] - maps[j]).square().sum()), j) for j in range(n) if j != i)
        fitting = [j for _, j in order if i_fits and holes[j].double().mean() <= max_coverage and not holes[j].all()]
        if not fitting:
            assert not plan.applied[i]
            assert plan.guards.over_coverage[i] == n - 1
            assert torch.equal(result.images[i], images[i])
            assert plan.masks[i].all()
            assert not plan.holes[i].any()
            continue
        j = int(plan.target[i])
        assert j == fitting[0]
        assert torch.equal(plan.masks[i], own[i])
        assert torch.equal(plan.holes[i], holes[j])
        expected = np.where(own[i], images[i].numpy(), inpaint(images[j : j + 1], holes[j : j + 1])[0].numpy())
        np.testing.assert_array_equal(result.images[i].numpy(), expected)


@pytest.mark.parametrize("fill", ["source", "inpaint"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_one_plan_gives_the_same_pixels_again(fill, dtype):
    images, maps = (255 * pictures(2, 9)).to(dtype), blobs(2, 9)
    result = mix_batch(images, maps, p=0.6, fill=fill, generator=torch.Generator().manual_seed(0))
    assert 0 < result.plan.applied.sum() < 9
    assert (result.plan.holes is None) == (fill == "source")
    for pool in (images, list(images)):
        assert torch.equal(compose(result.plan, images, pool), result.images)
    untouched = ~result.plan.applied
    assert np.array_equal(result.images[untouched.numpy()].numpy(), images[untouched.numpy()].numpy())


def test_the_default_border_is_hard_under_union_masks_and_soft_beside_paint():
    images, maps = pictures(2, 6), blobs(2, 6)

    def mixed(fill, feather):
        return mix_batch(images, maps, fill=fill, feather=feather).images

    assert torch.equal(mixed("source", None), mixed("source", 0))
    result = mix_batch(images, maps, fill="inpaint")
    assert result.plan.applied.all()
    weights = softened(result.plan.masks)[:, None]
    hard = inpaint(images[result.plan.target], result.plan.holes)
    torch.testing.assert_close(result.images, weights * images + (1 - weights) * hard)
    assert not torch.equal(mixed("inpaint", 0), result.images)
    assert not torch.equal(mixed("inpaint", 2), result.images)


def test_classes_under_paint_are_the_nearest_and_never_new():
    images, maps = pictures(2, 6), blobs(2, 6)
    plan = mix_batch(images, maps, fill="inpaint").plan
    classes = torch.randint(0, 9, (6, 24, 20), generator=torch.Generator().manual_seed(0)) * 10
    composed = compose(plan, classes, classes, hard=True)
    for i, j in enumerate(plan.target.tolist()):
        assert torch.equal(composed[i][plan.masks[i]], classes[i][plan.masks[i]])
        around = ~plan.masks[i] & ~plan.holes[i]
        assert torch.equal(composed[i][around], classes[j][around])
    assert set(composed.unique().tolist()) <= set(range(0, 90, 10))


def test_paint_of_a_memory_too():
    """Targets that no source is, given as further rows of the pool."""
    images, maps = pictures(3, 8), blobs(3, 8)
    pool = describe(maps, images, otsu)
    draws = draw(3, 8, candidates=7)
    draws.candidates[:, :3] = False
    plan = plan_mix(pool, draws, fill="inpaint")
    assert (plan.target >= 3).all()
    expected = blend(images[:3], inpaint(images[plan.target], plan.holes), torch.arange(3), plan.masks, feather=None)
    for rows in (images, list(images)):
        assert torch.equal(compose(plan, images[:3], rows), expected)
        assert torch.equal(changed_only(plan, images[:3], rows).target, plan.target)


def test_gradients_flow_to_the_source_and_round_the_hole():
    images, maps = pictures(4, 2).requires_grad_(), blobs(4, 2)
    result = mix_batch(images, maps, fill="inpaint", feather=0)
    assert result.plan.applied.all()
    result.images[0].sum().backward()
    kept, hole = result.plan.masks[0], result.plan.holes[0]
    assert torch.equal(images.grad[0], kept.float().expand(3, -1, -1))
    assert torch.equal(images.grad[1], (~kept & ~hole).float().expand(3, -1, -1))


@pytest.mark.parametrize("max_coverage", [1.0, 0.3])
def test_what_has_no_background_is_refused_as_one(max_coverage):
    """Image 1 is nearly all object, so that its grown mask leaves nothing; image 2 is further away."""

    def fixed(maps, images):
        masks = torch.zeros(3, 10, 10, dtype=torch.bool)
        masks[0, :2, :2], masks[1, 1:, 1:], masks[2, :2, :3] = True, True, True
        return Foreground(masks, torch.zeros(3))

    maps = torch.tensor([0.0, 0.1, 0.3])[:, None, None] + torch.linspace(0, 0.5, 100).view(10, 10)
    result = mix_batch(pictures(0, 3, 10, 10), maps, mask=fixed, max_coverage=max_coverage, fill="inpaint")
    large = max_coverage < 0.81  # of which image 1's own mask covers too much as well
    assert result.plan.target.tolist() == ([2, 1, 0] if large else [2, 0, 0])
    assert result.plan.guards.over_coverage.tolist() == ([1, 2, 1] if large else [1, 0, 1])
    assert result.plan.guards.no_target.tolist() == [False, large, False]


def test_class_constraint_and_duplicates():
    images, maps = pictures(6, 6), blobs(6, 6)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    same = mix_batch(images, maps, labels=labels, target_class="same", max_coverage=1.0).plan
    assert same.target[same.applied].tolist() == [[1, 0, 3, 2, 5, 4][i] for i in same.applied.nonzero()[:, 0].tolist()]
    different = mix_batch(images, maps, labels=labels, target_class="different", max_coverage=1.0).plan
    assert (labels[different.target] != labels)[different.applied].all()
    with pytest.raises(InvalidInputError, match=r"got \(6, 1\)"):
        mix_batch(images, maps, labels=labels[:, None], target_class="same")


def test_an_image_is_never_mixed_with_itself():
    images, maps = pictures(6, 6), blobs(6, 6)
    images[1], maps[1] = images[0], maps[0]
    plan = mix_batch(images, maps, max_coverage=1.0, fill="source").plan
    assert plan.applied.all()
    assert plan.target[0] != 1
    assert plan.target[1] != 0
    nearest = mix_batch(images, maps, max_coverage=1.0, exclude_duplicates=False, fill="source").plan
    assert nearest.target.tolist()[2:] == plan.target.tolist()[2:]
    assert not nearest.applied[:2].any()  # the nearest was the image itself: nothing would have changed
    assert nearest.guards.duplicate.tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize("as_ids", [list, torch.tensor, lambda ids: [f"{i}.png" for i in ids]])
def test_views_of_one_sample_are_never_mixed_with_each_other(as_ids):
    images, maps = pictures(7, 6), blobs(7, 6)
    maps[3:] = maps[:3]  # the nearest map is the other view's
    ids = [5, 6, 7, 5, 6, 7]
    assert mix_batch(images, maps, max_coverage=1.0).plan.target.tolist() == [3, 4, 5, 0, 1, 2]
    plan = mix_batch(images, maps, max_coverage=1.0, ids=as_ids(ids)).plan
    assert plan.applied.all()
    assert all(ids[i] != ids[j] for i, j in enumerate(plan.target.tolist()))


def test_a_batch_of_one_sample_is_counted_and_left_alone():
    images, maps = pictures(8, 4), blobs(8, 4)
    result = mix_batch(images, maps, max_coverage=1.0, ids=["same"] * 4)
    assert not result.plan.applied.any()
    assert result.plan.guards.counts()["duplicate"] == 4
    assert torch.equal(result.images, images)
    repeated = mix_batch(images[:1].expand(4, -1, -1, -1), maps[:1].expand(4, -1, -1))
    assert repeated.plan.guards.counts()["duplicate"] == 4


@pytest.mark.parametrize(
    "ids", [[1, 2], torch.ones(3, 1), torch.ones(3), "abc", 3, [[1], [2], [3]], torch.ones(4).long()]
)
def test_ids_that_name_no_samples(ids):
    with pytest.raises(InvalidInputError, match="ids|one id for each of 3 images"):
        mix_batch(pictures(0, 3), blobs(0, 3), ids=ids)


@pytest.mark.parametrize("fill", ["source", "inpaint"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.uint16])
@pytest.mark.parametrize("place", [None, (5, 7), (8, 16)])
def test_what_was_not_changed_is_not_called_applied(dtype, place, fill):
    """Two different objects on one plain background: the mix is the source, unless one background pixel differs."""
    images = torch.full((2, 3, 24, 20), 100).to(dtype)
    maps = torch.zeros(2, 24, 20)
    images[0, :, 2:5, 2:5], maps[0, 2:5, 2:5] = 7, 1
    images[1, :, 15:18, 9:12], maps[1, 15:18, 9:12] = 9, 1
    if place is not None:
        images[1, 1, place[0], place[1]] = 99
    result = mix_batch(images, maps, fill=fill)
    changed = [bool((result.images[i] != images[i]).any()) for i in range(2)]
    assert changed == [place is not None] * 2
    assert result.plan.applied.tolist() == changed
    assert result.plan.masks.all() == (place is None)
    assert result.plan.guards.counts()["duplicate"] == (2 if place is None else 0)
    assert result.plan.target.tolist() == ([0, 1] if place is None else [1, 0])


def test_a_difference_under_paint_alone_is_a_difference():
    """On one plain background the source has a mark where the target's object was: there the mix shows plain paint."""
    images, maps = torch.full((2, 3, 24, 20), 100, dtype=torch.uint8), torch.zeros(2, 24, 20)
    images[0, :, 2:5, 2:5], maps[0, 2:5, 2:5] = 7, 1
    images[1, :, 15:18, 9:12], maps[1, 15:18, 9:12] = 9, 1
    images[0, :, 16, 10] = 50
    result = mix_batch(images, maps, fill="inpaint")
    assert result.plan.applied.tolist() == [True, False]  # image 1 hides the mark
    assert (result.images[0, :, 16, 10] == 100).all()


def test_a_full_union_mask_is_no_mix():
    maps = torch.zeros(2, 4, 4)
    maps[0, :2], maps[1, 2:] = 1, 1
    result = mix_batch(pictures(0, 2, 4, 4), maps, max_coverage=1.0, fill="source")
    assert not result.plan.applied.any()
    assert result.plan.distance.isnan().all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
def test_image_dtypes_share_one_plan(dtype):
    images, maps = (pictures(7, 5) * 255).to(dtype), blobs(7, 5)
    result = mix_batch(images, maps)
    assert result.images.dtype == dtype
    assert torch.equal(result.plan.target, mix_batch(pictures(7, 5), maps).plan.target)


def test_batch_equals_what_each_pair_gives_alone():
    images, maps = pictures(8, 7), blobs(8, 7)
    whole = mix_batch(images, maps)
    for i in whole.plan.applied.nonzero()[:, 0].tolist():
        pair = torch.tensor([i, int(whole.plan.target[i])])
        alone = mix_batch(images[pair], maps[pair])
        assert torch.equal(alone.images[0], whole.images[i])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(3, 4, 4)}, r"images, got torch.float32 \(3, 4, 4\)"),
        ({"images": [1]}, "got list"),
        ({"maps": torch.zeros(3, 4, 4)}, r"expected \(2, h, w\) float saliency maps"),
        ({"maps": torch.zeros(2, 4, 4, dtype=torch.int16)}, "got torch.int16"),
        ({"maps": [1]}, "saliency maps, got list"),
        ({"feather": "soft"}, "feather must be a width in pixels, 0 or more, or None, got 'soft'"),
        ({"fill": "paint"}, "fill must be one of source, inpaint, got 'paint'"),
        ({"fill": None}, "got None"),
        ({"draws": 3}, "expected draws .* got int"),
        ({"draws": draw(3, 3)}, r"for 2 images among 2, got \(3,\) and \(3, 3\)"),
        ({"draws": draw(2, 3)}, r"for 2 images among 2, got \(2,\) and \(2, 3\)"),
        ({"maps": torch.full((2, 4, 4), 2.0)}, r"must lie in \[0, 1\], got values from 2 to 2"),
        ({"maps": torch.full((2, 4, 4), torch.nan)}, "nan"),
        ({"p": 1.5}, "got 1.5"),
        ({"candidates": 0}, "got 0"),
        ({"max_coverage": 0.0}, "got 0.0"),
        ({"target_class": "same"}, "needs labels"),
        ({"mask": lambda maps, images: maps > 0.5}, "bool masks and thresholds, .* got Tensor"),
        ({"mask": lambda maps, images: None}, "got NoneType"),
        ({"mask": lambda maps, images: Foreground(maps, maps[:, 0, 0])}, "must return bool masks"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {"images": torch.zeros(2, 3, 4, 4), "maps": torch.zeros(2, 4, 4), **change}
    with pytest.raises(InvalidInputError, match=message):
        mix_batch(**arguments)


def test_labels_are_read_only_where_a_class_is_needed():
    images, maps = pictures(4, 5), blobs(4, 5)
    several = torch.ones(5, 3)
    assert torch.equal(mix_batch(images, maps, labels=several).images, mix_batch(images, maps).images)
    with pytest.raises(InvalidInputError, match="boxes do not say"):
        mix_batch(images, maps, labels=several, target_class="same")


def test_draw_alone():
    applied, candidates, _ = draw(3, 8, p=1.0, candidates=2, generator=torch.Generator().manual_seed(0))
    assert isinstance(draw(3, 8), Draws)
    assert applied.all()
    assert candidates.sum(1).tolist() == [2, 2, 2]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("mask", ["otsu", "guided", "grabcut"])
def test_pixels_that_are_no_numbers_name_their_images(number, mask):
    images = torch.rand(5, 3, 24, 24)
    maps = torch.rand(5, 24, 24)
    images[1, 0, 3, 3] = images[4, 2, 0, 0] = number
    with pytest.raises(InvalidInputError, match=r"image\(s\) \[1, 4\] of the batch hold NaN or infinite pixels"):
        mix_batch(images, maps, mask=mask)


@pytest.mark.parametrize("backend", ["spectral_residual", "manifold_ranking"])
def test_a_plain_colour_is_flat_whatever_it_is(backend):
    """Any of 16 million: by rounding, some were not."""
    colours = torch.randint(0, 256, (40, 3, 1, 1), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    colours[0, :, 0, 0] = torch.tensor([126, 195, 22], dtype=torch.uint8)
    plain = colours.expand(-1, -1, 30, 40).contiguous()
    for images in (plain, plain.float() / 255):
        maps = get_backend(backend).coarse(images)
        assert (maps == 0).all()
        assert not mix_batch(images, maps).plan.applied.any()


def test_draws_do_not_depend_on_default_dtype_or_device():
    expected = draw(6, 40, p=0.5, candidates=3, generator=torch.Generator().manual_seed(4))
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = draw(6, 40, p=0.5, candidates=3, generator=torch.Generator("cpu").manual_seed(4))
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found.applied, expected.applied)
    assert torch.equal(found.candidates, expected.candidates)


@pytest.mark.parametrize("saliency", ["spectral_residual", "manifold_ranking"])
@pytest.mark.parametrize("mask", ["otsu", "guided", "grabcut"])
def test_mixes_do_not_depend_on_default_dtype_or_device(saliency, mask):
    images = torch.rand(4, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    images[:, :, 10:24, 12:30] += torch.tensor([0.3, 0.5, 0.7, 0.9])[:, None, None, None]
    images = images / 2

    def mixed():
        maps = get_backend(saliency).coarse(images)
        return mix_batch(images, maps, mask=mask, feather=3, generator=torch.Generator("cpu").manual_seed(0))

    expected = mixed()
    assert expected.plan.applied.any()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = mixed()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found.images, expected.images)
    assert found.plan.distance.dtype == torch.float32


def test_what_a_mix_is_shown_as() -> None:
    """In a line, not as its tensors."""
    images, maps = torch.rand(4, 3, 8, 8), torch.rand(4, 8, 8)
    mixed = mix_batch(images, maps, mask="otsu", p=1.0, max_coverage=1.0, generator=torch.Generator().manual_seed(0))
    done = int(mixed.plan.applied.sum())
    assert repr(mixed).startswith(f"MixedBatch(4 x 3 x 8 x 8 float32, MixPlan({done} of 4 images mixed, masks 8 x 8, ")
    assert "tensor" not in repr(mixed)
