"""The torchvision face on the samples that people have: what is mixed, what is cut, what is refused."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torchvision import tv_tensors

from sgdmix_albu import SGDMix
from sgdmix_albu.errors import InvalidInputError, SGDMixError


def scene(i: int, n: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Dim noise and one bright square whose place depends on i, and its mask."""
    generator = torch.Generator().manual_seed(i)
    image = torch.rand(3, n, n, generator=generator) * 0.2
    left = 12 + 2 * i % 20
    image[:, 20:44, left : left + 24] += torch.tensor([0.7, 0.3 + 0.05 * (i % 8), 0.1])[:, None, None]
    mask = torch.zeros(n, n, dtype=torch.uint8)
    mask[20:44, left : left + 24] = 1
    return image, mask


X = torch.stack([scene(i)[0] for i in range(8)])
M = torch.stack([scene(i)[1] for i in range(8)])


def plan_of(images: torch.Tensor, **options):
    return SGDMix(**options).make_params([images])["plan"]


def expected_mask(masks: torch.Tensor, plan) -> torch.Tensor:
    return torch.where(plan.masks, masks, masks[plan.target])


# Collated samples


@pytest.mark.parametrize(
    "sample",
    [
        (X, M),
        (X, M[:, None]),
        {"x": X, "y": M},
        {"image": X, "extra": M.float()},
        (tv_tensors.Image(X), M),
        {"image": X, "label": M},
        (X, M.numpy()),
        [X, [M]],
    ],
    ids=["tuple", "channel", "keys", "float", "typed image", "label map", "numpy", "nested"],
)
def test_a_second_map_of_which_nothing_is_known_is_refused(sample) -> None:
    with pytest.raises(InvalidInputError, match="nothing says what it is.*roles="):
        SGDMix()(sample)


@pytest.mark.parametrize(
    ("sample", "roles", "where"),
    [
        ({"mask": M[:, None], "image": X}, None, "mask"),
        ({"segmentation": M, "image": X}, None, "segmentation"),
        ({"depth": M.float(), "img": X}, None, "depth"),
        ((X, M), {1: "mask"}, 1),
        ({"a": X, "b": M}, {"b": "mask"}, "b"),
        ((X, tv_tensors.Mask(M)), None, 1),
    ],
)
def test_what_is_known_to_be_a_mask_goes_with_the_image(sample, roles, where) -> None:
    plan = plan_of(X, fill="source")
    assert plan.applied.any()
    out = SGDMix(roles=roles, fill="source", feather=3)(sample)
    expected = expected_mask(M, plan)
    found = out[where].as_subclass(torch.Tensor)
    assert torch.equal(found.reshape(M.shape).to(M.dtype), expected)
    assert type(out[where]) is type(sample[where])


def test_keep_means_keep() -> None:
    mixed, same = SGDMix(roles={1: "keep"})(X, M)
    assert same is M
    assert not torch.equal(mixed, X)


def test_depth_and_image_by_position_are_not_guessed() -> None:
    with pytest.raises(InvalidInputError, match="nothing says what it is"):
        SGDMix()(X[:, :1].clone(), X)


# Instances, boxes and points


def detection():
    """Targets as detection models take them: an instance that is the object, and one that lies off it."""
    targets = []
    for i in range(8):
        off = torch.zeros_like(M[i])
        off[50:60, 2:12] = 1
        left = 12 + 2 * i % 20
        targets.append(
            {
                "masks": tv_tensors.Mask(torch.stack([M[i], off])[: 2 - i % 2]),
                "boxes": tv_tensors.BoundingBoxes(
                    torch.tensor([[left, 20, left + 24, 44], [2, 50, 12, 60]])[: 2 - i % 2],
                    format="XYXY",
                    canvas_size=(64, 64),
                ),
                "points": tv_tensors.KeyPoints(
                    torch.tensor([[left + 12.0, 32.0], [5.0, 55.0], [70.0, 70.0]]), canvas_size=(64, 64)
                ),
                "labels": torch.tensor([1, 2])[: 2 - i % 2],
            }
        )
    return targets


def test_instances_keep_what_is_left_and_donors_add_none() -> None:
    plan = plan_of(X)
    targets = detection()
    before = copy.deepcopy(targets)
    _, out = SGDMix()(X, targets)
    for i, (new, old) in enumerate(zip(out, before, strict=True)):
        assert type(new["masks"]) is tv_tensors.Mask
        assert torch.equal(new["masks"], old["masks"] * plan.masks[i])
        assert torch.equal(new["labels"], old["labels"])
        assert torch.equal(targets[i]["masks"], old["masks"])


def test_boxes_and_points_follow_what_is_left() -> None:
    plan = plan_of(X)
    assert plan.applied.all()
    _, out = SGDMix()(X, detection())
    for i, (new, old) in enumerate(zip(out, detection(), strict=True)):
        for box, was in zip(new["boxes"].tolist(), old["boxes"].tolist(), strict=True):
            x1, y1, x2, y2 = was
            left = bool(plan.masks[i][y1:y2, x1:x2].any())
            assert box == was if left else (box[0] == box[2] and box[1] == box[3])
        assert type(new["boxes"]) is tv_tensors.BoundingBoxes
        on, off, outside = new["points"].tolist()
        assert on == old["points"][0].tolist()
        assert off == ([5.0, 55.0] if plan.masks[i, 55, 5] else [-1.0, -1.0])
        assert outside == [70.0, 70.0]
    sums = [int(plan.masks[i][50:60, 2:12].sum()) for i in range(0, 8, 2)]
    assert 0 in sums  # some box was erased


@pytest.mark.parametrize("format_", ["XYXY", "XYWH", "CXCYWH", "XYWHR", "CXCYWHR", "XYXYXYXY"])
def test_erased_boxes_of_every_format_are_what_sanitize_removes(format_) -> None:
    from torchvision.transforms.v2 import functional

    kind = tv_tensors.BoundingBoxFormat[format_]
    upright = torch.tensor([[20.0, 24.0, 30.0, 40.0], [2.0, 50.0, 12.0, 60.0]])
    if format_ in ("XYXY", "XYWH", "CXCYWH"):
        values = functional.convert_bounding_box_format(upright, old_format="XYXY", new_format=format_)
    else:
        wide = torch.tensor([[20.0, 24.0, 10.0, 16.0, 0.0], [2.0, 50.0, 10.0, 10.0, 0.0]])
        values = functional.convert_bounding_box_format(wide, old_format="XYWHR", new_format=format_)
    boxes = tv_tensors.BoundingBoxes(values, format=kind, canvas_size=(64, 64))
    from sgdmix_albu.torchvision.erased import without_erased

    kept = torch.ones(64, 64, dtype=torch.bool)
    kept[48:, :20] = False
    kept[24:34, 20:30] = False  # 10 of the first box's 16 rows
    out = without_erased(boxes, kept, min_visibility=0.0)
    assert functional.sanitize_bounding_boxes(out)[1].tolist() == [True, False]
    assert torch.equal(out[0], boxes[0])
    half = without_erased(boxes, kept, min_visibility=0.5)
    assert functional.sanitize_bounding_boxes(half)[1].tolist() == [False, False]


def test_boxes_may_be_left_alone() -> None:
    targets = detection()
    _, out = SGDMix(min_visibility=None)(X, targets)
    assert all(new["boxes"] is old["boxes"] for new, old in zip(out, targets, strict=True))


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"image": X, "masks": tv_tensors.Mask(M[:, None].expand(8, 3, 64, 64))}, "classes or instances"),
        (
            {
                "image": X,
                "masks": tv_tensors.Mask(M),
                "boxes": tv_tensors.BoundingBoxes(torch.ones(8, 4), format="XYXY", canvas_size=(64, 64)),
            },
            "as many boxes",
        ),
        ({"image": X, "masks": tv_tensors.Mask(M[:5])}, "list with one Mask"),
        (
            {"image": X, "b": tv_tensors.BoundingBoxes(torch.ones(3, 4), format="XYXY", canvas_size=(64, 64))},
            "nothing says which image",
        ),
        (
            {"image": X, "b": tv_tensors.BoundingBoxes(torch.ones(8, 4), format="XYXY", canvas_size=(32, 32))},
            r"canvas of \(32, 32\)",
        ),
        ((X, [{"boxes": torch.ones(2, 4)} for _ in range(8)]), "no type that says its format"),
        ((X, [{"masks": tv_tensors.Mask(M[i][None])} for i in range(8)]), "semantic mask or one instance"),
    ],
)
def test_what_nothing_says_is_refused(sample, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        SGDMix()(sample)


def test_semantic_masks_in_a_list_are_composited() -> None:
    plan = plan_of(X, fill="source")
    _, out = SGDMix(fill="source")(X, [{"seg": tv_tensors.Mask(mask)} for mask in M])
    assert torch.equal(torch.stack([part["seg"].as_subclass(torch.Tensor) for part in out]), expected_mask(M, plan))


def test_padded_instances_by_role() -> None:
    plan = plan_of(X)
    masks = M[:, None].expand(8, 3, 64, 64).clone()
    out = SGDMix(roles={"masks": "instances"})({"image": X, "masks": masks})
    assert torch.equal(out["masks"], masks * plan.masks[:, None])


# Identity


def test_memory_over_epochs_never_gives_an_image_itself() -> None:
    images = torch.stack([scene(i)[0] for i in range(32)])
    mix = SGDMix("spectral_residual", mask="otsu", memory=64)
    for _ in range(3):
        for start in range(0, 32, 8):
            batch = images[start : start + 8]
            plan_and = mix.make_params([batch])
            mixed = mix.transform(batch, plan_and)
            changed = (mixed != batch).flatten(1).any(1)
            assert torch.equal(changed, plan_and["plan"].applied)
    assert len(mix._memory) == 64
    assert changed.any()


def test_memory_passes_over_the_image_itself_to_the_next() -> None:
    images = torch.stack([scene(i)[0] for i in range(6)])
    mix = SGDMix("spectral_residual", mask="otsu", memory=8, max_coverage=1.0)
    mix.make_params([images[:4]])
    plan = mix.make_params([images[2:]])["plan"]
    assert plan.applied.all()
    assert (plan.distance > 0).all()
    assert not plan.guards.duplicate.any()


@pytest.mark.parametrize("key_getter", ["id", lambda sample: sample["id"]])
@pytest.mark.parametrize("as_ids", [list, torch.tensor, lambda ids: [f"{i}.jpg" for i in ids]])
def test_views_are_told_by_their_key(key_getter, as_ids) -> None:
    views = torch.cat([X[:2], X[:2] + 1e-3])
    ids = [4, 9, 4, 9]
    sample = {"image": views, "id": as_ids(ids)}
    options = {"saliency": "spectral_residual", "mask": "otsu", "fill": "source", "max_coverage": 1.0}
    mixed = SGDMix(key_getter=key_getter, **options)(sample)["image"]
    others = torch.stack([views[[j for j in range(4) if ids[j] != ids[i]]] for i in range(4)])
    assert ((mixed == views) | (mixed[:, None] == others).any(1)).all()
    lonely = SGDMix(key_getter=key_getter, **options)
    lonely({"image": views, "id": as_ids([1] * 4)})
    assert lonely.guard_counts["duplicate"] == 4


def test_memory_knows_the_keys_of_earlier_epochs() -> None:
    mix = SGDMix("spectral_residual", mask="otsu", memory=8, key_getter="id", max_coverage=1.0)
    mix({"image": X[:1], "id": [7]})
    mix({"image": X[:1] + 1e-3, "id": [7]})
    assert mix.guard_counts["duplicate"] == 1
    assert not torch.equal(mix({"image": X[1:2], "id": [8]})["image"], X[1:2])


def test_a_missing_key_is_named() -> None:
    with pytest.raises(InvalidInputError, match="no such key in the input; it has image"):
        SGDMix(key_getter="id")({"image": X})


# Labels


class _Asks:
    """A backend-like function that is given no labels."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(1)


@pytest.mark.parametrize("labels", [torch.ones(8, 1), torch.eye(8)[:, :4], [3] * 8, torch.ones(8, 4) * 30, None])
def test_labels_are_not_read_where_none_are_needed(labels) -> None:
    mixed, same = SGDMix(_Asks(), mask="otsu")(X, labels)
    assert same is labels or same == labels
    assert not torch.equal(mixed, X)


@pytest.mark.parametrize("labels", [torch.ones(8, 1), torch.zeros(8, 4), torch.ones(8, 4), torch.full((8, 4), 30.0)])
def test_labels_that_name_no_class_are_refused_where_one_is_needed(labels) -> None:
    with pytest.raises(InvalidInputError, match="labels"):
        SGDMix(_Asks(), mask="otsu", target_class="same")(X, labels)


# Ranges


def test_mean_and_std_give_the_same_mix() -> None:
    expected = plan_of(X)
    for mean, std in (([0.5], [0.5]), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])):
        normalised = (X - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        plan = plan_of(normalised, mean=mean, std=std)
        assert torch.equal(plan.target, expected.target)
        assert (plan.masks != expected.masks).float().mean() < 0.001


def test_ranges_that_fit_nothing_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="from .* to .*255"):
        SGDMix()(X * 255)


# Channels and dtypes


@pytest.mark.parametrize("channels", [1, 2, 4, 12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.uint16, torch.int16])
def test_what_the_saliency_can_take_the_face_takes(channels, dtype) -> None:
    images = X[:, :1].expand(8, channels, 64, 64).clone()
    images = images if dtype.is_floating_point else (images * 200).to(dtype)
    if dtype == torch.int16:
        images = images - 50
    for options in (
        {"saliency": _Asks(), "mask": "otsu"},
        {"saliency": "given", "saliency_getter": lambda s: M.float()},
    ):
        mixed, _ = SGDMix(**options)(images, torch.arange(8))
        assert mixed.dtype == dtype
        assert not torch.equal(mixed, images)


def test_colours_are_asked_for_in_our_words() -> None:
    with pytest.raises(InvalidInputError, match="grey or RGB images"):
        SGDMix()(X[:, :1].expand(8, 4, 64, 64))
    with pytest.raises(InvalidInputError, match=r"got \(8, 64, 64, 3\): if the channels are last, use .permute"):
        SGDMix()(X.permute(0, 2, 3, 1))


# Somebody else's state


def test_modules_are_never_registered() -> None:
    net = nn.Conv2d(3, 1, 3, padding=1)

    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.net(images)[:, 0].abs()

    class Finds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, sample):
            return None

    mix = SGDMix(Looks(), mask="otsu", labels_getter=Finds())
    mix.saliency = Looks()
    assert list(mix.parameters()) == []
    assert mix.state_dict() == {}
    assert list(mix.modules()) == [mix]
    wrapped = nn.Sequential(mix, nn.Linear(1, 1))
    assert len(list(wrapped.parameters())) == 2
    mixed = mix(X)
    assert torch.equal(pickle.loads(pickle.dumps(SGDMix("given", mask="otsu"))).p * torch.ones(1), torch.ones(1))
    assert mixed.shape == X.shape


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK"])
def test_ranks_draw_differently(variable, monkeypatch) -> None:
    drawn = []
    for rank in ("0", "1", "1"):
        monkeypatch.setenv(variable, rank)
        mix = SGDMix("spectral_residual", mask="otsu", p=0.5, generator=torch.Generator().manual_seed(0))
        drawn.append(mix.make_params([X])["draws"].applied)
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[1], drawn[2])


def test_the_process_group_is_asked_first(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "5")
    mix = SGDMix("spectral_residual", mask="otsu", p=0.5, generator=torch.Generator().manual_seed(0))
    assert mix._rank() == 5
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert mix._rank() == 0
    finally:
        torch.distributed.destroy_process_group()


def test_a_spawned_worker_knows_its_parents_rank(monkeypatch) -> None:
    monkeypatch.setenv("RANK", "3")
    content = pickle.dumps(SGDMix("spectral_residual", mask="otsu"))
    monkeypatch.delenv("RANK")
    assert pickle.loads(content)._rank() == 3


# Settings


@pytest.mark.parametrize(
    "options",
    [
        {"p": None},
        {"p": "0.5"},
        {"max_coverage": None},
        {"feather": "1"},
        {"candidates": 2.0},
        {"exclude_duplicates": 1},
        {"memory": 1.5},
        {"target_class": None},
        {"target_class": ["same"]},
        {"key_getter": 3},
        {"saliency": "given", "saliency_getter": 3},
        {"generator": 3},
        {"roles": {"a": "semantic"}},
        {"roles": ["a"]},
        {"min_visibility": 2},
        {"min_visibility": "0.1"},
        {"mean": [0.5]},
        {"refiner": 3},
        {"layer": 3},
        {"mask": 3},
        {"saliency": 3},
    ],
    ids=str,
)
def test_settings_of_the_wrong_kind(options) -> None:
    with pytest.raises(SGDMixError):
        SGDMix(**options)
