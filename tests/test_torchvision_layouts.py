"""The torchvision face on every container, layout and batch that torchvision's own transforms take."""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from sgdmix_albu import SGDMix
from sgdmix_albu.errors import InvalidInputError, SGDMixError
from sgdmix_albu.mixing import Described
from sgdmix_albu.mixing.memory import Memory

Pair = namedtuple("Pair", ["image", "label"])
LABELS = torch.arange(6)


class Subclassed(dict):
    pass


class TheirTensor(Tensor):
    """As fastai's TensorImage."""


def scenes(count: int = 6, side: int = 40) -> Tensor:
    """A bright square on dim noise, each at its own place."""
    images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 0.2
    for row in range(count):
        images[row, :, 8:24, 4 + 2 * row : 20 + 2 * row] += 0.6
    return images


def mix(**options: Any) -> SGDMix:
    return SGDMix("manifold_ranking", generator=torch.Generator().manual_seed(3), **{"fill": "source", **options})


EXPECTED = mix()(scenes(), LABELS)[0]


def kinds(value: Any) -> Any:
    """The types in a structure."""
    if isinstance(value, Mapping):
        return type(value), {key: kinds(part) for key, part in value.items()}
    return type(value), [kinds(part) for part in value] if isinstance(value, tuple | list) else None


@pytest.mark.parametrize(
    ("sample", "image"),
    [
        (Pair(scenes(), LABELS), lambda out: out.image),
        ((scenes(), LABELS), lambda out: out[0]),
        ([scenes(), LABELS], lambda out: out[0]),
        ({"image": scenes(), "label": LABELS}, lambda out: out["image"]),
        (OrderedDict(image=scenes(), label=LABELS), lambda out: out["image"]),
        ({"inputs": {"image": scenes()}, "labels": LABELS, "name": "a"}, lambda out: out["inputs"]["image"]),
        ((tv_tensors.Image(scenes()), {"labels": LABELS}), lambda out: out[0]),
        (scenes(), lambda out: out),
        ({"pixel_values": scenes(), "labels": LABELS}, lambda out: out["pixel_values"]),
        (UserDict(pixel_values=scenes(), labels=LABELS, name="a"), lambda out: out["pixel_values"]),
        ((Subclassed(inputs=UserDict(image=scenes())), LABELS), lambda out: out[0]["inputs"]["image"]),
        ((scenes().as_subclass(TheirTensor), LABELS), lambda out: out[0]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_containers_come_back_as_they_were(sample: Any, image: Any) -> None:
    out = mix()(sample)
    assert kinds(out) == kinds(sample)
    assert torch.equal(image(out).as_subclass(Tensor), EXPECTED)
    assert torch.equal(image(sample).as_subclass(Tensor), scenes())
    if isinstance(sample, dict | UserDict) and "name" in sample:
        assert out["name"] == "a"


def test_a_getter_sees_the_batch_as_it_came() -> None:
    sample = UserDict(image=scenes(), classes=LABELS)
    uses = mix(target_class="different", labels_getter=lambda batch: batch.data["classes"])
    assert torch.equal(uses(sample)["image"], EXPECTED)


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "strided", "expanded"])
def test_layouts_change_nothing_but_themselves(layout: str) -> None:
    images = scenes()
    given = {
        "channels_last": lambda: images.contiguous(memory_format=torch.channels_last),
        "transposed": lambda: images.mT.contiguous().mT,
        "strided": lambda: images.repeat_interleave(2, 3)[..., ::2],
        "expanded": lambda: images[:, :1].contiguous().expand(-1, 3, -1, -1),
    }[layout]()
    before = given.clone()
    found = mix()(given, LABELS)[0]
    assert torch.equal(given, before)
    assert torch.equal(found, mix()(before.contiguous(), LABELS)[0])
    if layout == "channels_last":
        assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_come_back(dtype: torch.dtype) -> None:
    images = (scenes() * 255).to(dtype) if dtype == torch.uint8 else scenes().to(dtype)
    found = mix()(images, LABELS)[0]
    assert found.dtype == dtype
    kept = (found == images).all(1)
    assert 0.15 < kept.float().mean() < 0.5  # sources stand on other backgrounds


@pytest.mark.parametrize("count", [0, 1])
def test_batches_without_a_partner(count: int) -> None:
    masks = tv_tensors.Mask(torch.ones(count, 40, 40, dtype=torch.uint8))
    boxes = tv_tensors.BoundingBoxes(torch.zeros(count, 4), format="XYXY", canvas_size=(40, 40))
    sample = {"image": tv_tensors.Image(scenes(count)), "mask": masks, "boxes": boxes, "label": LABELS[:count]}
    out = mix(roles={"mask": "mask"})(sample)
    assert all(torch.equal(torch.as_tensor(out[name]), torch.as_tensor(sample[name])) for name in sample)


def test_half_and_half_with_cutmix_has_one_shape_of_labels_when_they_are_one_hot() -> None:
    hot = nn.functional.one_hot(LABELS, 6).float()
    choice = v2.RandomChoice([mix(), v2.CutMix()])
    logits = torch.randn(6, 6)
    kinds = set()
    for seed in range(12):
        torch.manual_seed(seed)
        images, labels = choice(scenes(), hot)
        assert labels.shape == (6, 6)
        assert labels.dtype == torch.float32
        assert torch.allclose(labels.sum(1), torch.ones(6))
        ours = torch.equal(labels, hot)
        kinds.add(ours)
        if ours:
            assert not torch.equal(images, scenes())
            loss = nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
            expected = nn.functional.cross_entropy(logits, LABELS, label_smoothing=0.1)
            assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert kinds == {True, False}
    mixed = v2.RandomChoice([mix(), v2.CutMix(num_classes=6)], p=[1, 0])(scenes(), LABELS)[1]
    cut = v2.RandomChoice([mix(), v2.CutMix(num_classes=6)], p=[0, 1])(scenes(), LABELS)[1]
    assert (mixed.shape, mixed.dtype, cut.shape, cut.dtype) == ((6,), torch.int64, (6, 6), torch.float32)


def test_gradients_flow_as_through_cutmix() -> None:
    images = scenes().requires_grad_()
    mix(feather=2)(images, LABELS)[0].sum().backward()
    assert float(images.grad.sum()) == pytest.approx(images.numel(), rel=1e-5)  # each output pixel has weights of sum 1
    assert not torch.equal(images.grad, torch.ones_like(images))
    uses = SGDMix("manifold_ranking", memory=4)
    first = uses(scenes().requires_grad_(), LABELS)[0]
    first.sum().backward()
    uses(scenes(), LABELS)  # nothing remembered holds on to the graph
    assert not any(rows.requires_grad for rows in uses._memory._rows.values())


@pytest.mark.parametrize(
    "sample",
    [
        (scenes()[0], LABELS),
        (scenes(), LABELS[:3]),
        (v2.functional.to_pil_image(scenes()[0]), LABELS),
        ({"label": LABELS},),
    ],
    ids=["one image", "too few labels", "PIL", "no image"],
)
def test_what_cutmix_refuses_is_refused_here_by_our_errors(sample: Any) -> None:
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        v2.CutMix(num_classes=6)(*sample)
    with pytest.raises(SGDMixError) as caught:
        mix()(*sample)
    assert isinstance(caught.value, ValueError | TypeError)


@pytest.mark.parametrize("fill", ["source", "inpaint"])
def test_default_dtype_and_device_change_nothing(fill: str) -> None:
    expected = mix(fill=fill)(scenes(), LABELS)[0]
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            generator = torch.Generator("cpu").manual_seed(3)
            transform = SGDMix("manifold_ranking", generator=generator, memory=4, fill=fill)
            found = transform(scenes_of(), LABELS)[0]
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


def scenes_of() -> Tensor:
    """The same images, made on the CPU whatever the default is."""
    with torch.device("cpu"):
        torch.set_default_dtype(torch.float32)
        images = scenes()
        torch.set_default_dtype(torch.float64)
    return images


def test_roles_for_what_is_not_there_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"roles names 'msk', and the sample holds 'image', 'mask'"):
        mix(roles={"msk": "mask"})({"image": scenes(), "mask": torch.zeros(6, 40, 40)})


@pytest.mark.parametrize("kind", ["boxes", "points"])
@pytest.mark.parametrize("count", [3, 9])
def test_roles_do_not_say_whose_boxes_they_are(kind: str, count: int) -> None:
    placed = {
        "boxes": tv_tensors.BoundingBoxes(torch.ones(count, 4), format="XYXY", canvas_size=(40, 40)),
        "points": tv_tensors.KeyPoints(torch.ones(count, 2), canvas_size=(40, 40)),
    }
    sample = {"image": scenes(), kind: placed[kind]}
    with pytest.raises(InvalidInputError, match="nothing says which image each belongs to"):
        mix(roles={kind: "instances"})(sample)
    with pytest.raises(InvalidInputError, match="can be 'instances' or 'keep', not 'mask'"):
        mix(roles={kind: "mask"})(sample)
    assert mix(roles={kind: "keep"})(sample)[kind] is placed[kind]


@pytest.mark.parametrize(("key", "shape"), [("depth", (6, 40, 40)), ("boxes", (6, 4))])
def test_arrays_of_numpy_are_kept_where_that_is_said(key: str, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, np.float32)
    out = mix(roles={key: "keep"})({"image": scenes(), key: array})
    assert out[key] is array
    assert torch.equal(out["image"], EXPECTED)
    with pytest.raises(InvalidInputError, match=r"must be a tensor, and ndarray .* use torch.from_numpy"):
        mix(roles={key: "mask"})({"image": scenes(), key: array})


def test_a_role_for_another_view_leaves_the_image_the_image() -> None:
    out = mix(roles={"second": "image"})({"second": scenes() / 2, "image": scenes()})
    assert (out["image"] != scenes()).any()
    assert torch.equal(out["second"] != scenes() / 2, out["image"] != scenes())


@pytest.mark.parametrize("first", [True, False])
def test_features_of_images_are_no_images(first: bool) -> None:
    features = {"image_features": torch.rand(6, 5, 7)}
    out = mix()({**features, "image": scenes()} if first else {"image": scenes(), **features})
    assert out["image_features"] is features["image_features"]
    assert torch.equal(out["image"], EXPECTED)


@pytest.mark.parametrize("count", [2, 3])
def test_a_pair_that_holds_the_images_is_no_list_of_targets(count: int) -> None:
    images = scenes(count)
    out = mix()(({"image": images, "mask": images[:, 0].clone()}, {"id": torch.arange(count)}))
    assert (out[0]["image"] != images).any()
    assert torch.equal(out[0]["mask"], out[0]["image"][:, 0])


def test_as_many_masks_as_images_say_whose_they_are() -> None:
    """A last batch of two, with two semantic masks, is not two images with two instances each."""
    images, ones = tv_tensors.Image(scenes(2)), torch.ones(2, 40, 40)
    pair = [tv_tensors.Mask(ones), tv_tensors.Mask(ones)]
    for sample in ((images, tuple(pair)), {"image": images, "masks": pair}):
        with pytest.raises(InvalidInputError, match="instances of each image or semantic masks of all"):
            mix()(sample)
    named = mix()((images, {"first": tv_tensors.Mask(ones), "second": tv_tensors.Mask(ones)}))[1]
    assert torch.equal(named["first"], ones)
    assert torch.equal(named["second"], ones)
    for objects in mix()((images, [{"masks": tv_tensors.Mask(ones)}, {"masks": tv_tensors.Mask(ones)}]))[1]:
        assert 0 < objects["masks"].sum() < ones.sum()


def test_a_memory_serves_inference_and_training() -> None:
    transform = mix(memory=6)
    with torch.inference_mode():
        transform(scenes())
    images = scenes().flip(0).requires_grad_()
    transform(images).sum().backward()
    assert images.grad is not None
    with torch.inference_mode():
        assert torch.isfinite(transform(scenes())).all()


def test_views_of_other_dimensions_stand_before_the_image() -> None:
    views = scenes()[:, None].repeat(1, 2, 1, 1, 1)
    out = mix(roles={"views": "image"})({"views": views, "image": scenes()})
    assert torch.equal(out["image"], EXPECTED)
    assert torch.equal(out["views"], EXPECTED[:, None].repeat(1, 2, 1, 1, 1))


def test_names_of_labels_are_not_the_labels() -> None:
    classes = LABELS // 3
    sample = {"image": scenes(), "label_names": list("aaabbb"), "label": classes}
    plan_of = mix(target_class="same")
    assert torch.equal(plan_of(sample)["image"], mix(target_class="same")(scenes(), classes)[0])


@pytest.mark.parametrize(("typed", "bare"), [(True, True), (True, False), (False, False)])
def test_semantic_masks_in_a_list(typed: bool, bare: bool) -> None:
    images = scenes()
    maps = [tv_tensors.Mask(image[0]) if typed else image[0].clone() for image in images]
    out = mix()((images, maps if bare else [{"mask": one} for one in maps]))
    found = torch.stack([torch.as_tensor(one if bare else one["mask"]) for one in out[1]])
    assert torch.equal(found, EXPECTED[:, 0])


def test_instances_in_a_bare_list_may_be_one() -> None:
    maps = [tv_tensors.Mask(torch.ones(1 + row % 2, 40, 40)) for row in range(6)]
    out = mix()((scenes(), maps))[1]
    assert all(0 < one.sum() < other.sum() for one, other in zip(out, maps, strict=True))


@pytest.mark.parametrize("shape", [(3, 20, 40), (20, 40)])
@pytest.mark.parametrize("typed", [True, False])
def test_masks_in_a_list_have_the_images_size(shape: tuple[int, ...], typed: bool) -> None:
    one = torch.ones(shape)
    targets = [{"mask": tv_tensors.Mask(one) if typed else one}] * 6
    with pytest.raises(InvalidInputError, match=r"\(.*20, 40\)"):
        mix()(scenes(), targets)


def test_nothing_holds_no_image() -> None:
    with pytest.raises(SGDMixError, match="No image was found in the sample; it holds nothing"):
        mix()()


def test_a_memory_keeps_the_latest() -> None:
    memory = Memory(4)
    for number in range(6):
        image = torch.full((1, 1, 2, 2), float(number))
        known = Described(
            maps=image[:, 0],
            masks=image[:, 0] > 0,
            thresholds=torch.zeros(1),
            areas=torch.zeros(1, dtype=torch.int32),
            flat=torch.zeros(1, dtype=torch.bool),
            sums=torch.tensor([number]),
        )
        memory.store([image], known, [f"n{number}"])
        recalled = memory.recall([image], known)
        assert recalled is not None
        latest = set(range(max(0, number - 3), number + 1))
        assert {int(row[0, 0, 0]) for row in recalled.leaves[0]} == latest
        assert set(recalled.keys) == {f"n{one}" for one in latest}
        assert recalled.described.sums is not None
        assert recalled.described.sums.tolist() == [int(row[0, 0, 0]) for row in recalled.leaves[0]]


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("saliency", ["spectral_residual", "manifold_ranking", lambda images: images.mean(1)])
@pytest.mark.parametrize("view", ["image", "image_2"])
def test_broken_pixels_of_any_view_are_one_error(view: str, saliency: Any, number: float) -> None:
    sample = {"image": scenes(), "image_2": scenes()}
    sample[view][2, 1, 5, 5] = sample[view][4, 0, 0, 0] = number
    with pytest.raises(InvalidInputError, match=r"image\(s\) \[2, 4\] of the batch hold NaN or infinite pixels"):
        SGDMix(saliency)(sample)


def test_depth_may_have_gaps() -> None:
    depth = torch.rand(6, 40, 40)
    depth[:, 3, 3] = torch.nan
    _, mixed = mix()(scenes(), tv_tensors.Mask(depth))
    assert mixed[:, 3, 3].isnan().all()
