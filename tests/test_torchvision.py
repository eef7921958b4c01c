"""Face one: structures, conventions, seeding, pickling, memory."""

from __future__ import annotations

import copy
import pickle
import warnings
import weakref

import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader, default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2._utils import _find_labels_default_heuristic

from sgdmix_albu import SGDMix, mix_batch
from sgdmix_albu.errors import InvalidInputError, InvalidTypeError, SGDMixError
from sgdmix_albu.masks import get_mask
from sgdmix_albu.mixing import describe
from sgdmix_albu.mixing.fill import inpaint, inpaint_nearest
from sgdmix_albu.saliency import SaliencyMap, get_backend
from sgdmix_albu.torchvision.samples import default_labels


def batch(n: int = 8, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Bright discs on noise: something salient in each image."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.rand(n, 3, 40, 32, generator=generator)
    y, x = torch.meshgrid(torch.arange(40), torch.arange(32), indexing="ij")
    for image in images:
        cy, cx = torch.randint(10, 30, (), generator=generator), torch.randint(8, 24, (), generator=generator)
        image[:, (y - cy) ** 2 + (x - cx) ** 2 < 30] = torch.rand(3, 1, generator=generator) / 2 + 0.5
    return (images * 255).to(torch.uint8) if dtype == torch.uint8 else images.to(dtype)


def maps_of(images: torch.Tensor) -> torch.Tensor:
    return images.float().mean(1) / (255 if images.dtype == torch.uint8 else 1)


def seeded(**options) -> SGDMix:
    return SGDMix("spectral_residual", mask="otsu", generator=torch.Generator().manual_seed(0), **options)


def test_images_and_labels():
    images, labels = batch(), torch.arange(8)
    mixed, same = seeded()(images, labels)
    assert same is labels
    assert mixed.shape == images.shape
    assert not torch.equal(mixed, images)
    assert torch.equal(images, batch())


def test_equals_the_pure_function():
    images = batch()
    maps = get_backend("spectral_residual").coarse(images)
    for fill in ("source", "inpaint"):
        assert torch.equal(seeded(fill=fill)(images), mix_batch(images, maps, mask="otsu", fill=fill).images)


def test_structures_come_back_as_they_were():
    images, labels = batch(), torch.arange(8)
    expected = seeded()(images)
    sample = {"meta": [{"id": 3}, "text"], "image": images, "label": labels, "extra": torch.zeros(8, 2)}
    out = seeded()(sample)
    assert list(out) == list(sample)
    assert torch.equal(out["image"], expected)
    assert out["label"] is labels
    assert out["extra"] is sample["extra"]
    assert out["meta"] == sample["meta"]
    nested = seeded()((images, {"labels": labels}), 7)
    assert torch.equal(nested[0][0], expected)
    assert nested[1] == 7


def test_labels_before_images_are_not_taken_for_images():
    images, labels = batch(), torch.arange(8)
    out = seeded()({"label": labels, "image": images})
    assert out["label"] is labels
    assert torch.equal(out["image"], seeded()(images))


@pytest.mark.parametrize("labels", [["a"] * 8, torch.rand(8, 5), None, torch.rand(8)])
def test_labels_of_any_kind_come_back(labels):
    mixed, same = seeded()(batch(), labels)
    assert same is labels or same == labels
    assert mixed.shape == (8, 3, 40, 32)


def test_tv_tensors():
    images = tv_tensors.Image(batch())
    masks = tv_tensors.Mask(torch.arange(8)[:, None, None].expand(8, 40, 32).clone())
    boxes = tv_tensors.BoundingBoxes(torch.tensor([[1, 2, 3, 4]]), format="XYXY", canvas_size=(40, 32))
    points = tv_tensors.KeyPoints(torch.tensor([[1, 2]]), canvas_size=(40, 32))
    transform = seeded(feather=4)
    params = transform.make_params([images])
    out = seeded(feather=4, roles={"b": "keep", "k": "keep"})(
        {"i": images, "m": masks, "b": boxes, "k": points, "t": torch.ones(8)}
    )
    assert type(out["i"]) is tv_tensors.Image
    assert type(out["m"]) is tv_tensors.Mask
    assert out["b"] is boxes
    assert out["k"] is points
    plan = params["plan"]
    expected = torch.where(plan.masks, torch.arange(8)[:, None, None], plan.target[:, None, None])
    assert torch.equal(out["m"].as_subclass(torch.Tensor), expected)
    assert set(out["m"].unique().tolist()) <= set(range(8))


def test_second_view_follows_the_first():
    first, second = tv_tensors.Image(batch()), tv_tensors.Image(batch(seed=1))
    out = seeded(fill="source")(first, second)
    plan = seeded(fill="source").make_params([first])["plan"]
    expected = torch.where(plan.masks[:, None], second, second[plan.target])
    assert torch.equal(out[1], expected)


def test_every_view_is_painted_by_its_kind():
    """A picture by colours, classes by the nearest; both by the same holes."""
    first, second = batch(), batch(seed=1)
    classes, depth = torch.arange(8)[:, None, None] * 10 + (first[:, 0] > 0.4), second[:, 1].clone()
    depth[:, 3, 3] = torch.nan
    sample = tv_tensors.Image(first), tv_tensors.Image(second), tv_tensors.Mask(classes), tv_tensors.Mask(depth)
    transform = seeded(fill="inpaint", feather=0)
    out = transform(sample)
    plan = seeded(fill="inpaint").make_params([first])["plan"]
    assert plan.applied.all()
    assert plan.holes.flatten(1).any(1).all()
    for new, old, paint in zip(out, sample, (inpaint, inpaint, inpaint_nearest, inpaint_nearest), strict=True):
        assert type(new) is type(old)
        old = old.as_subclass(torch.Tensor)
        kept = plan.masks if old.ndim == 3 else plan.masks[:, None]
        expected = torch.where(kept, old, paint(old[plan.target], plan.holes))
        assert torch.equal(new.as_subclass(torch.Tensor).nan_to_num(-1), expected.nan_to_num(-1))


@pytest.mark.parametrize("fill", ["source", "inpaint"])
def test_replays_from_its_parameters(fill):
    images = batch()
    transform = SGDMix("spectral_residual", p=0.5, candidates=3, fill=fill)
    params = transform.make_params([images])
    assert torch.equal(transform.transform(images, params), transform.transform(images, params))
    again = pickle.loads(pickle.dumps(params))
    assert torch.equal(transform.transform(images, again), transform.transform(images, params))


def test_p_is_per_image():
    images = batch(64)
    mixed = seeded(p=0.5)(images)
    changed = (mixed != images).flatten(1).any(1)
    assert 0 < changed.sum() < 64
    assert torch.equal(seeded(p=0.0)(images), images)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
def test_odd_batches_and_dtypes(n, dtype):
    images = batch(n, dtype=dtype)
    mixed, _ = seeded()(images, torch.arange(n))
    assert mixed.dtype == dtype
    assert mixed.shape == images.shape
    if n < 2:
        assert torch.equal(mixed, images)


def test_guards_are_counted():
    transform = seeded()
    transform(batch(1))
    images = batch(3)
    images[0] = 0.5
    transform(images)
    assert transform.guard_counts["no_target"] == 1
    assert transform.guard_counts["flat_saliency"] == 1


@pytest.mark.parametrize(
    ("sample", "kind", "message"),
    [
        (PIL.Image.new("RGB", (4, 4)), InvalidInputError, "does not support PIL"),
        (torch.zeros(3, 4, 4), InvalidInputError, r"4 dims .* but got 3 dimensions \(3, 4, 4\)"),
        (tv_tensors.Video(torch.zeros(1, 2, 3, 4, 4)), InvalidInputError, "does not support videos"),
        (["a", 1], InvalidTypeError, "No image was found .* int, str"),
        ((torch.zeros(4, 3, 8, 8), torch.zeros(3)), InvalidInputError, r"batch_size 4, but got \(3,\)"),
        (
            (tv_tensors.Image(torch.zeros(4, 3, 8, 8)), tv_tensors.Mask(torch.zeros(4, 8, 9))),
            InvalidInputError,
            r"\(4, ..., 8, 8\) like the first image, but got Mask \(4, 8, 9\)",
        ),
    ],
)
def test_conventions(sample, kind, message):
    assert issubclass(InvalidInputError, ValueError)  # what torchvision's CutMix raises
    assert issubclass(InvalidTypeError, TypeError)
    with pytest.raises(kind, match=message):
        seeded()(sample)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": -0.1}, "got -0.1"),
        ({"candidates": 0}, "got 0"),
        ({"max_coverage": 2}, "got 2"),
        ({"target_class": "other"}, "got 'other'"),
        ({"feather": float("inf")}, "got inf"),
        ({"fill": "paint"}, "fill must be one of source, inpaint, got 'paint'"),
        ({"labels_getter": 3}, "got 3"),
        ({"memory": -1}, "got -1"),
        ({"saliency": "spectral_residul"}, "spectral_residual"),
        ({"saliency_getter": len}, "goes with saliency='given'"),
        ({"saliency": "given", "layer": "features"}, "takes no layer"),
        ({"mask": "otzu"}, "otsu"),
    ],
)
def test_settings_are_checked_at_once(options, message):
    with pytest.raises(SGDMixError, match=message):
        SGDMix(**options)


def test_labels_are_found_as_torchvision_finds_them():
    images, labels = torch.zeros(2, 3, 4, 4), torch.tensor([0, 1])
    samples = [
        (images, labels),
        {"image": images, "labels": labels, "label_names": 3},
        {"image": images, "my_Label": labels},
        (images, {"boxes": 1, "label": labels}),
    ]
    for sample in samples:
        assert default_labels(sample) is labels
        assert _find_labels_default_heuristic(sample) is labels


def test_class_constraint_through_a_getter():
    images, classes = batch(8), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    transform = seeded(target_class="same", labels_getter=lambda sample: sample["y"], max_coverage=1.0, fill="source")
    mixed = transform({"x": images, "y": classes})["x"]
    partner = torch.arange(8).view(4, 2).flip(1).flatten()
    same_pixel = (mixed == images) | (mixed == images[partner])
    assert same_pixel.all()
    with pytest.raises(InvalidInputError, match="target_class='same' needs labels.*say labels_getter="):
        seeded(target_class="same")(images)
    with pytest.raises(InvalidInputError, match=r"batch_size 8, but got \(1,\)"):
        seeded(target_class="same", labels_getter=lambda sample: [1])(images)


def test_given_saliency_by_tensor_key_and_getter():
    images = batch()
    maps = maps_of(images)
    expected = mix_batch(images, maps).images
    given = SGDMix("given", mask="otsu")
    by_type = given(images, SaliencyMap(maps))
    assert torch.equal(by_type[0], expected)
    assert torch.equal(by_type[1], maps)
    assert type(by_type[1]) is SaliencyMap
    assert torch.equal(given({"saliency": maps, "image": images})["image"], expected)
    getter = SGDMix("given", mask="otsu", saliency_getter=lambda sample: sample[2])
    assert torch.equal(getter(images, torch.arange(8), maps)[0], expected)
    with pytest.raises(InvalidInputError, match="found no maps"):
        given(images)


def test_saliency_survives_geometry():
    image, mask = tv_tensors.Image(batch(1)[0]), SaliencyMap(maps_of(batch(1))[0])
    geometry = v2.Compose([v2.RandomHorizontalFlip(1.0), v2.CenterCrop((30, 24)), v2.Resize((20, 16))])
    moved_image, moved_map = geometry(image, mask)
    assert type(moved_map) is SaliencyMap
    assert moved_map.shape[-2:] == moved_image.shape[-2:]
    expected = v2.functional.resize_mask(maps_of(batch(1))[0].flip(-1)[None, 5:35, 4:28], [20, 16])[0]
    assert torch.equal(moved_map.as_subclass(torch.Tensor), expected)


def test_state_dict_is_empty_whatever_the_saliency():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    transform = SGDMix("gradcam", model=model)
    assert transform.state_dict() == {}
    assert list(transform.modules()) == [transform]
    mixed, _ = transform(batch(), torch.arange(8) % 4)
    assert mixed.shape == (8, 3, 40, 32)


def test_copies_and_pickles():
    transform = seeded(p=0.5)
    copies = [pickle.loads(pickle.dumps(transform)), copy.deepcopy(transform)]
    expected = transform(batch())
    for other in copies:
        assert torch.equal(other(batch()), expected)


def test_torch_seed_decides():
    transform = SGDMix("spectral_residual", p=0.5, candidates=2)
    torch.manual_seed(5)
    first = transform(batch(32))
    torch.manual_seed(5)
    assert torch.equal(transform(batch(32)), first)
    assert not torch.equal(transform(batch(32)), first)


def test_ranks_that_share_a_seed_draw_differently(monkeypatch):
    mixed = []
    for rank in ("0", "1", "1"):
        monkeypatch.setenv("RANK", rank)
        mixed.append(seeded(p=0.5)(batch(64)))
    assert not torch.equal(mixed[0], mixed[1])
    assert torch.equal(mixed[1], mixed[2])


class Collate:
    """Mixes in the worker; module level, so that spawned workers can unpickle it."""

    def __init__(self, transform: SGDMix) -> None:
        self.transform = transform

    def __call__(self, samples: list) -> torch.Tensor:
        return self.transform(default_collate(samples))


@pytest.mark.parametrize("generator", [None, 3])
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_and_epochs_differ_and_repeat(generator, context):
    image = batch(16)
    own = None if generator is None else torch.Generator().manual_seed(generator)
    collate = Collate(SGDMix("spectral_residual", mask="otsu", p=0.5, candidates=4, generator=own))

    def epochs() -> list[torch.Tensor]:
        # Two batches with the same images, one for each worker, over two epochs.
        loader = DataLoader(
            list(image.repeat(2, 1, 1, 1)),
            batch_size=16,
            num_workers=2,
            collate_fn=collate,
            generator=torch.Generator().manual_seed(1),
            multiprocessing_context=context,
            persistent_workers=context == "spawn",
        )
        return [mixed for _ in range(2) for mixed in loader]

    first = epochs()
    assert len(first) == 4
    for i in range(4):
        for j in range(i):
            assert not torch.equal(first[i], first[j])
    if context == "fork":
        assert all(torch.equal(a, b) for a, b in zip(first, epochs(), strict=True))


def test_memory_supplies_candidates_to_small_batches():
    transform = seeded(memory=10, max_coverage=1.0, fill="source")
    images = batch(6)
    assert torch.equal(transform(images[:1]), images[:1])
    mixed = transform(images[1:2])
    assert not torch.equal(mixed, images[1:2])
    assert ((mixed == images[1]) | (mixed == images[0])).all()
    for image in images[2:]:
        assert not torch.equal(transform(image[None]), image[None])


@pytest.mark.parametrize("fill", ["source", "inpaint"])
def test_memory_mixes_masks_with_their_own_images(fill):
    transform = seeded(memory=4, max_coverage=1.0, fill=fill, feather=0)
    images = batch(2)
    masks = torch.stack([torch.full((40, 32), 7), torch.full((40, 32), 9)])
    transform(tv_tensors.Image(images[:1]), tv_tensors.Mask(masks[:1]))
    image, mask = transform(tv_tensors.Image(images[1:]), tv_tensors.Mask(masks[1:]))
    from_first = (image != images[1]).any(1)
    assert from_first.any()
    assert (mask[from_first] == 7).all()
    assert set(mask.unique().tolist()) == {7, 9}


def test_remembered_targets_are_painted_over():
    transform, (first, second) = seeded(memory=4, fill="inpaint", feather=0), batch(2).split(1)
    transform(first)
    params = transform.make_params([second])
    plan, remembered = params["plan"], params["remembered"][0]
    assert plan.target.tolist() == [1]
    expected = torch.where(plan.masks[:, None], second, inpaint(remembered, plan.holes))
    assert torch.equal(transform.transform(second, params), expected)
    assert torch.equal(remembered, first)


def test_memory_forgets_what_no_longer_fits():
    transform = seeded(memory=4)
    transform(batch(2))
    other = batch(1)[..., :30]
    rows = [weakref.ref(column) for column in transform._memory._rows.values()]
    transform._memory.recall([other], describe(torch.rand(1, 40, 30), other, get_mask("otsu")))
    assert rows
    assert not any(row() is not None for row in rows)  # their room is free before the new rows take theirs
    assert torch.equal(transform(other), other)


def test_memory_replay_needs_the_same_tensors():
    transform = seeded(memory=4, max_coverage=1.0)
    transform(batch(2))
    images = batch(3, seed=2)
    params = transform.make_params([images])
    assert torch.equal(transform.transform(images, params), transform.transform(images, params))
    with pytest.raises(InvalidInputError, match="replayed on the same tensors"):
        transform.transform(images.clone(), params)


def test_autocast_changes_nothing():
    images = batch()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = seeded()(images)
    assert torch.equal(mixed, seeded()(images))


def graph_breaks(transform: torch.nn.Module, *inputs: torch.Tensor) -> int:
    layer = torch.nn.Conv2d(3, 2, 3)

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        mixed, _ = transform(images * 2, labels)
        return layer(mixed).sum()

    torch._dynamo.reset()
    return torch._dynamo.explain(step)(*inputs).graph_break_count


def test_compiles_with_no_more_breaks_than_cutmix():
    images, labels = batch(), torch.arange(8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what dynamo says while it traces CutMix
        assert graph_breaks(seeded(), images, labels) <= graph_breaks(v2.CutMix(num_classes=8), images, labels)


def test_repr_names_the_settings():
    text = repr(SGDMix("spectral_residual", p=0.5, feather=2))
    assert "saliency=spectral_residual" in text
    assert "p=0.5" in text
