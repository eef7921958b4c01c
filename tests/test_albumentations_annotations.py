"""The Albumentations face: instance masks, boxes and key points follow what is left of the source."""

from __future__ import annotations

from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch

from sgdmix_albu.albumentations import SGDMix
from sgdmix_albu.albumentations.arrays import Moves
from sgdmix_albu.albumentations.targets import seen_boxes, seen_points
from sgdmix_albu.errors import InvalidInputError

SIDE = 40
OTHER = 200  # the background that the donor brings
SUCCESSOR = hasattr(A, "SampledParams")
successor = pytest.mark.skipif(not SUCCESSOR, reason="albumentationsx has this")


def source(*kept: tuple[slice, slice]) -> dict[str, np.ndarray]:
    """A picture of which just the given regions are kept."""
    image = np.full((SIDE, SIDE, 3), 10, np.uint8)
    saliency = np.zeros((SIDE, SIDE), np.float32)
    for region in kept:
        saliency[region] = 1
    return {"image": image, "mask": (saliency > 0).astype(np.uint8), "saliency": saliency}


def donor(**more: Any) -> dict[str, Any]:
    """A picture whose own object is one pixel in the corner."""
    saliency = np.zeros((SIDE, SIDE), np.float32)
    saliency[-1, -1] = 1
    image = np.full((SIDE, SIDE, 3), OTHER, np.uint8)
    return {"image": image, "mask": np.full((SIDE, SIDE), 7, np.uint8), "saliency": saliency, **more}


def pipeline(**settings: Any) -> A.Compose:
    mix = SGDMix("given", mask="otsu", feather=0, p=1, **settings.pop("mix", {}))
    return A.Compose([mix], additional_targets={"saliency": "mask"}, **settings)


def kept_region(mixed: dict[str, Any]) -> np.ndarray:
    return (mixed["image"] != OTHER).all(-1)


LEFT = (slice(None), slice(0, 20))
MIDDLE = (slice(10, 30), slice(10, 30))


# Instance masks


def instances() -> np.ndarray:
    masks = np.zeros((3, SIDE, SIDE), np.uint8)
    masks[0, 5:15, 5:35] = 1  # crosses the edge of what is kept
    masks[1, 20:30, 2:12] = 2  # kept whole
    masks[2, 20:30, 25:35] = 3  # erased whole
    return masks


@pytest.mark.parametrize("theirs", [{}, {"masks": np.full((5, SIDE, SIDE), 9, np.uint8)}, {"masks": instances() + 1}])
@pytest.mark.parametrize("dtype", ["uint8", "bool", "int32", "float32", "uint16"])
def test_each_instance_keeps_its_own_pixels(theirs, dtype):
    masks = instances().astype(dtype)
    before = masks.copy()
    out = pipeline()(**source(LEFT), masks=masks, sgdmix_metadata=[donor(**theirs)])
    kept = kept_region(out)
    assert 0.4 < kept.mean() < 0.6
    assert out["masks"].dtype == dtype
    assert np.array_equal(out["masks"], np.where(kept, masks, np.zeros((), dtype)))
    assert np.array_equal(out["mask"], np.where(kept, source(LEFT)["mask"], 7)), (
        "the semantic mask takes the donor's background"
    )
    assert np.array_equal(masks, before)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_any_number_of_instances(count):
    masks = instances()[:count]
    out = pipeline()(**source(LEFT), masks=masks, sgdmix_metadata=[donor()])
    assert np.array_equal(out["masks"], np.where(kept_region(out), masks, 0))


def test_instances_with_channels_and_under_another_name():
    masks, parts = instances()[..., None], instances()[:2] * 10
    mix = SGDMix("given", mask="otsu", feather=0, p=1)
    together = A.Compose([mix], additional_targets={"saliency": "mask", "parts": "masks"})
    out = together(**source(LEFT), masks=masks, parts=parts, sgdmix_metadata=[donor()])
    kept = kept_region(out)
    assert np.array_equal(out["masks"], np.where(kept[..., None], masks, 0))
    assert np.array_equal(out["parts"], np.where(kept, parts, 0))


def test_which_masks_are_instances_can_be_said():
    masks = instances()
    other = donor(masks=np.full((3, SIDE, SIDE), 9, np.uint8))
    semantic = pipeline(mix={"instance_keys": ()})(**source(LEFT), masks=masks, sgdmix_metadata=[other])
    assert np.array_equal(semantic["masks"], np.where(kept_region(semantic), masks, 9))
    one = pipeline(mix={"instance_keys": ["mask"]})
    out = one(**source(LEFT), sgdmix_metadata=[{k: v for k, v in donor().items() if k != "mask"}])
    assert np.array_equal(out["mask"], np.where(kept_region(out), source(LEFT)["mask"], 0))
    with pytest.raises(InvalidInputError, match=r"expected 3 masks in sgdmix_metadata\[0\]\['masks'\], got 5"):
        pipeline(mix={"instance_keys": ()})(
            **source(LEFT), masks=masks, sgdmix_metadata=[donor(masks=np.zeros((5, SIDE, SIDE), np.uint8))]
        )
    with pytest.raises(InvalidInputError, match="instance_keys must be names of mask targets or None, got 'masks'"):
        SGDMix(instance_keys="masks")


def test_masks_of_a_batch_are_semantic_unless_said_otherwise():
    rows = [source(LEFT), donor()]
    batch = {
        "images": np.stack([row["image"] for row in rows]),
        "masks": np.stack([row["mask"] for row in rows]),
        "saliency": np.stack([row["saliency"] for row in rows]),
    }
    for keys, background in ((None, 7), (("masks",), 0)):
        mix = SGDMix("given", mask="otsu", feather=0, p=1, instance_keys=keys)
        out = A.Compose([mix], additional_targets={"saliency": "masks"})(**batch)
        kept = kept_region({"image": out["images"][0]})
        assert np.array_equal(out["masks"][0], np.where(kept, source(LEFT)["mask"], background))


def test_replay_cuts_instances_again():
    masks = instances()
    mix = SGDMix("given", mask="otsu", p=1)
    replayed = A.ReplayCompose([mix], additional_targets={"saliency": "mask"})
    out = replayed(**source(LEFT), masks=masks, sgdmix_metadata=[donor()])
    again = A.ReplayCompose.replay(out["replay"], **source(LEFT), masks=masks)
    assert np.array_equal(again["masks"], out["masks"])
    assert np.array_equal(again["image"], out["image"])


# Boxes

BOXES = np.array(
    [
        [2.0, 2.0, 12.0, 12.0],  # kept whole
        [15.0, 5.0, 25.0, 15.0],  # half of it
        [18.0, 20.0, 38.0, 24.0],  # a tenth
        [24.0, 24.0, 34.0, 34.0],  # nothing
    ]
)
SHARES = np.array([1.0, 0.5, 0.1, 0.0])
KINDS = ["wren", "owl", "tit", "jay"]


@pytest.mark.parametrize(
    ("params", "stay"),
    [
        ({}, [0, 1, 2]),
        ({"min_visibility": 0.05}, [0, 1, 2]),
        ({"min_visibility": 0.3}, [0, 1]),
        ({"min_visibility": 0.5}, [0, 1]),
        ({"min_visibility": 0.51}, [0]),
        ({"min_area": 9}, [0, 1]),  # 8 pixels are left of the third
        ({"min_area": 51}, [0]),
        ({"min_area": 101}, []),
    ],
)
@pytest.mark.parametrize("form", ["pascal_voc", "coco", "yolo", "albumentations"])
def test_boxes_go_when_too_little_of_them_is_left(params, stay, form):
    boxes = BOXES.copy()
    if form in ("coco", "yolo"):
        boxes[:, 2:] -= boxes[:, :2]
    if form == "yolo":
        boxes[:, :2] += boxes[:, 2:] / 2
    if form in ("yolo", "albumentations"):
        boxes /= SIDE
    mix = pipeline(bbox_params=A.BboxParams(form, label_fields=["kinds"], **params))
    out = mix(**source(LEFT), bboxes=boxes, kinds=KINDS, sgdmix_metadata=[donor()])
    assert np.allclose(out["bboxes"], boxes[stay], atol=1e-5)
    assert list(out["kinds"]) == [KINDS[k] for k in stay]


@pytest.mark.parametrize("min_visibility", [0.0, 0.3, 0.6])
def test_boxes_by_the_rule_of_erasing(min_visibility):
    """A.Erasing with the same hole leaves the same boxes; only it shrinks them to what is left."""
    if SUCCESSOR:
        pytest.skip("the hook has another name in albumentationsx")

    class Hole(A.Erasing):
        def get_params_dependent_on_data(self, params: Any, data: Any) -> dict[str, Any]:
            return {"holes": np.array([[20, 0, SIDE, SIDE]]), "seed": 0}

    params = {"bbox_params": A.BboxParams("pascal_voc", label_fields=["kinds"], min_visibility=min_visibility)}
    theirs = A.Compose([Hole(p=1)], **params)(image=source()["image"], bboxes=BOXES, kinds=KINDS)
    ours = pipeline(**params)(**source(LEFT), bboxes=BOXES, kinds=KINDS, sgdmix_metadata=[donor()])
    assert list(ours["kinds"]) == list(theirs["kinds"])


@pytest.mark.parametrize(
    "nested",
    [
        lambda mix: A.OneOf([mix], p=1),
        lambda mix: A.SomeOf([mix], n=1, p=1),
        lambda mix: A.Sequential([mix], p=1),
        lambda mix: A.Compose([mix]),
    ],
)
def test_rules_of_the_outer_pipeline_hold_inside_others(nested):
    pipe = A.Compose(
        [nested(SGDMix("given", mask="otsu", p=1))],
        additional_targets={"saliency": "mask"},
        bbox_params=A.BboxParams("pascal_voc", label_fields=["kinds"], min_visibility=0.3),
        keypoint_params=A.KeypointParams("xy"),
    )
    out = pipe(**source(LEFT), bboxes=BOXES, kinds=KINDS, keypoints=POINTS, sgdmix_metadata=[donor()])
    assert list(out["kinds"]) == KINDS[:2]
    assert np.allclose(out["keypoints"], POINTS[:2])


def test_replay_drops_the_same_boxes():
    pipe = A.ReplayCompose(
        [SGDMix("given", mask="otsu", p=1)],
        additional_targets={"saliency": "mask"},
        bbox_params=A.BboxParams("pascal_voc", label_fields=["kinds"], min_visibility=0.3),
    )
    annotated = {**source(LEFT), "bboxes": BOXES, "kinds": KINDS}
    out = pipe(**annotated, sgdmix_metadata=[donor()])
    assert list(A.ReplayCompose.replay(out["replay"], **annotated)["kinds"]) == list(out["kinds"]) == KINDS[:2]


def test_boxes_over_the_edge_count_what_is_in_the_image():
    box = np.array([[-0.5, 0.25, 0.5, 0.75]])
    clipped = {"clip_bboxes_on_input" if SUCCESSOR else "clip": True}
    params = A.BboxParams("albumentations", min_visibility=0.9, **clipped)
    out = pipeline(bbox_params=params)(**source(LEFT), bboxes=box, sgdmix_metadata=[donor()])
    assert np.allclose(out["bboxes"], [[0, 0.25, 0.5, 0.75]])


def test_random_boxes_against_counted_pixels():
    rng = np.random.default_rng(3)
    corners = np.sort(rng.integers(0, SIDE + 1, (60, 2, 2)), axis=1)
    boxes = np.concatenate([corners[:, 0], corners[:, 1]], axis=1)
    boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])].astype(float)
    params = A.BboxParams("pascal_voc", label_fields=["number"], min_visibility=0.4)
    out = pipeline(bbox_params=params)(
        **source(MIDDLE), bboxes=boxes, number=np.arange(len(boxes)), sgdmix_metadata=[donor()]
    )
    kept = kept_region(out)
    shares = np.array([kept[int(y0) : int(y1), int(x0) : int(x1)].mean() for x0, y0, x1, y1 in boxes])
    assert 5 < (shares >= 0.4).sum() < len(boxes) - 5
    assert np.array_equal(np.asarray(out["number"], dtype=int), np.flatnonzero(shares >= 0.4))


def test_boxes_stay_where_nothing_was_mixed():
    params = A.BboxParams("pascal_voc", label_fields=["kinds"], min_visibility=0.9)
    mix = pipeline(bbox_params=params, keypoint_params=A.KeypointParams("xy"))
    points = np.array([[30.0, 30.0]])
    out = mix(**source(LEFT), bboxes=BOXES, kinds=KINDS, keypoints=points, sgdmix_metadata=[])
    assert np.allclose(out["bboxes"], BOXES)
    assert np.allclose(out["keypoints"], points)


def test_empty_lists_of_boxes_and_points():
    mix = pipeline(bbox_params=A.BboxParams("pascal_voc"), keypoint_params=A.KeypointParams("xy"))
    nothing = {"bboxes": np.zeros((0, 4)), "keypoints": np.zeros((0, 2))}
    out = mix(**source(LEFT), **nothing, sgdmix_metadata=[donor()])
    assert len(out["bboxes"]) == len(out["keypoints"]) == 0


def test_a_box_that_images_share_stays_while_one_of_them_shows_it():
    rows = [source(LEFT), donor()]  # the second keeps one pixel of its own, and what the first one keeps
    right = (slice(None), slice(20, None))
    rows.append(source(right))
    batch = {key + "s" * (key != "saliency"): np.stack([row[key] for row in rows]) for key in rows[0]}
    mix = SGDMix("given", mask="otsu", p=1, max_coverage=0.9)
    shared = A.Compose(
        [mix],
        bbox_params=A.BboxParams("pascal_voc", label_fields=["kinds"], min_visibility=0.9),
        additional_targets={"saliency": "masks"},
    )
    out = shared(**batch, bboxes=BOXES, kinds=KINDS)
    kept = [kept_region({"image": image}) for image in out["images"][[0, 2]]]
    shares = [max(k[int(y0) : int(y1), int(x0) : int(x1)].mean() for k in kept) for x0, y0, x1, y1 in BOXES]
    shown = {kind for kind, share in zip(KINDS, shares, strict=True) if share >= 0.9}
    assert shown <= set(out["kinds"])


# Key points

POINTS = np.array([[5.0, 5.0], [19.9, 30.0], [20.0, 30.0], [35.0, 12.0]])


@pytest.mark.filterwarnings("ignore:label_fields are set")  # albumentationsx, where no label mapping follows
@pytest.mark.parametrize(("remove_invisible", "stay"), [(True, [0, 1]), (False, [0, 1, 2, 3])])
def test_erased_key_points(remove_invisible, stay):
    params = A.KeypointParams("xy", label_fields=["names"], remove_invisible=remove_invisible)
    names = ["beak", "eye", "tail", "foot"]
    out = pipeline(keypoint_params=params)(**source(LEFT), keypoints=POINTS, names=names, sgdmix_metadata=[donor()])
    assert np.allclose(out["keypoints"], POINTS[stay])
    assert list(out["names"]) == [names[k] for k in stay]


def test_key_points_outside_the_image_are_left_to_the_pipeline():
    params = A.KeypointParams("xy", remove_invisible=False)
    points = np.array([[-3.0, 5.0], [100.0, 5.0]])
    out = pipeline(keypoint_params=params)(**source(LEFT), keypoints=points, sgdmix_metadata=[donor()])
    assert np.allclose(out["keypoints"], points)


def test_points_outside_the_image_may_still_come_back_in():
    """With check_each_transform=False the pipeline removes them at its end only."""
    kept = np.zeros((1, SIDE, SIDE), bool)
    kept[0][LEFT] = True
    points = np.array([[-3.0, 5.0], [5.0, 100.0], [30.0, 5.0], [3.0, 5.0]])
    assert np.array_equal(seen_points(points, kept, A.KeypointParams("xy")), points[[0, 1, 3]])


# albumentationsx


@successor
@pytest.mark.parametrize("target", ["masks", "mask"])
def test_bound_instances(target):
    masks = instances()
    boxes = [[5, 5, 35, 15], [2, 20, 12, 30], [25, 20, 35, 30]]
    bound = [
        {"mask": mask, "bbox": np.array(box, np.float32), "bbox_labels": {"kinds": kind}}
        for mask, box, kind in zip(masks, boxes, KINDS, strict=False)
    ]
    pipe = A.Compose(
        [SGDMix(lambda images: (images[:, 0] * 255 < 15).float(), mask="otsu", fill="source", p=1)],
        bbox_params=A.BboxParams(coord_format="pascal_voc", label_fields=["kinds"]),
        instance_binding=[target, "bboxes"],
    )
    image, other = source()["image"], donor()["image"]
    image[:, 20:] = 50
    other[-1, -1] = 0
    out = pipe(image=image, instances=bound, sgdmix_metadata=[{"image": other}])
    kept = kept_region(out)
    left = out["instances"]
    assert [one["bbox_labels"]["kinds"] for one in left] == ["wren", "owl"], "the third was erased whole"
    for one, mask in zip(left, masks, strict=False):
        assert np.array_equal(one["mask"], np.where(kept, mask, 0))


@successor
def test_a_semantic_mask_beside_bound_boxes_and_key_points():
    """Nothing binds the mask here, so it is composited; bound instances would have a channel each."""
    bound = [
        {"bbox": np.array(box, np.float32), "keypoints": np.array([box[:2]], np.float32)}
        for box in ([2, 20, 12, 30], [25, 20, 35, 30])
    ]
    pipe = pipeline(
        bbox_params=A.BboxParams(coord_format="pascal_voc"),
        keypoint_params=A.KeypointParams("xy"),
        instance_binding=["bboxes", "keypoints"],
    )
    out = pipe(**source(LEFT), instances=bound, sgdmix_metadata=[donor()])
    kept = kept_region(out)
    assert np.array_equal(out["mask"], np.where(kept, source(LEFT)["mask"], 7))
    assert [one["bbox"].tolist() for one in out["instances"]] == [[2, 20, 12, 30]]


@successor
@pytest.mark.parametrize("target", ["masks", "mask"])
def test_bound_instances_with_key_points(target):
    masks = instances()
    boxes = [[5, 5, 35, 15], [2, 20, 12, 30], [25, 20, 35, 30]]
    bound = [
        {"mask": mask, "bbox": np.array(box, np.float32), "keypoints": np.array([box[:2], box[2:]], np.float32) - 1}
        for mask, box in zip(masks, boxes, strict=True)
    ]
    image, other = source()["image"], donor()["image"]
    image[:, 20:] = 50
    other[-1, -1] = 0
    pipe = A.Compose(
        [SGDMix(lambda images: (images[:, 0] * 255 < 15).float(), mask="otsu", fill="source", p=1)],
        bbox_params=A.BboxParams(coord_format="pascal_voc"),
        keypoint_params=A.KeypointParams("xy"),
        instance_binding=[target, "bboxes", "keypoints"],
    )
    out = pipe(image=image, instances=bound, sgdmix_metadata=[{"image": other}])
    kept = kept_region(out)
    assert len(out["instances"]) == 2
    for one, before in zip(out["instances"], bound, strict=False):
        assert np.array_equal(one["mask"], np.where(kept, before["mask"], 0))
        assert len(one["keypoints"]) == 2, "the binding keeps an instance's points together"


@successor
def test_annotations_of_single_frames():
    """Each box, key point and instance is judged by its own frame, though frames have any number of them."""
    images = np.full((2, SIDE, SIDE, 3), 10, np.uint8)
    images[0, :, :20, 0] = images[1, :, 20:, 0] = 255  # what is kept of each
    other = donor()["image"]
    other[-1, -1, 0] = 255
    frames = [
        {"bboxes": BOXES[[0, 3]], "kinds": ["a0", "a3"], "keypoints": POINTS[[0, 3]], "masks": instances()[:1]},
        {"bboxes": BOXES[[0, 3]], "kinds": ["b0", "b3"], "keypoints": POINTS[[0, 3]], "masks": instances()[1:]},
    ]
    pipe = A.Compose(
        [SGDMix(lambda images: (images[:, 0] > 0.99).float(), mask="otsu", fill="source", p=1)],
        bbox_params=A.BboxParams(coord_format="pascal_voc", label_fields=["kinds"]),
        keypoint_params=A.KeypointParams("xy"),
        frame_binding=["images", "frame_annotations"],
    )
    out = pipe(images=images, frame_annotations=frames, sgdmix_metadata=[{"image": other}])
    for image, before, after, box, point in zip(
        out["images"], frames, out["frame_annotations"], (0, 3), (0, 3), strict=True
    ):
        assert list(after["kinds"]) == [before["kinds"][box // 3]]
        assert np.allclose(after["bboxes"], BOXES[[box]])
        assert np.allclose(after["keypoints"], POINTS[[point]])
        assert np.array_equal(after["masks"], np.where(kept_region({"image": image}), before["masks"], 0))
    semantic = [{"mask": np.zeros((SIDE, SIDE), np.uint8)}] * 2
    with pytest.raises(InvalidInputError, match="give semantic ones as masks beside images"):
        pipe(images=images, frame_annotations=semantic, sgdmix_metadata=[{"image": other}])


@successor
def test_oriented_boxes():
    turned = np.array([[4.0, 18.0, 16.0, 22.0, 90.0], [24.0, 18.0, 36.0, 22.0, 90.0], [10.0, 10.0, 30.0, 30.0, 45.0]])
    params = A.BboxParams(coord_format="pascal_voc", bbox_type="obb", label_fields=["kinds"], min_visibility=0.3)
    out = pipeline(bbox_params=params)(**source(LEFT), bboxes=turned, kinds=KINDS[:3], sgdmix_metadata=[donor()])
    assert list(out["kinds"]) == ["wren", "tit"]
    assert np.allclose(out["bboxes"], turned[[0, 2]], atol=1e-4)


@successor
def test_oriented_boxes_against_drawn_polygons():
    import cv2
    from albumentations.core.bbox_utils import obb_to_polygons

    rng = np.random.default_rng(5)
    scale = 8  # polygons are drawn larger, so that their outline hardly counts
    kept = np.zeros((1, SIDE, SIDE), bool)
    kept[0][MIDDLE] = True
    big = kept[0].repeat(scale, 0).repeat(scale, 1)
    for _ in range(30):
        x, y, w, h = rng.uniform(12, 28), rng.uniform(12, 28), rng.uniform(6, 14), rng.uniform(6, 14)
        box = np.array([[x - w / 2, y - h / 2, x + w / 2, y + h / 2, rng.uniform(-90, 90)]])
        drawn = np.zeros(big.shape, np.uint8)
        cv2.fillPoly(drawn, np.round(obb_to_polygons(box) * scale).astype(np.int32), 1)
        share = big[drawn > 0].mean()
        rows = box / [SIDE, SIDE, SIDE, SIDE, 1]
        for limit in (share - 0.06, share + 0.06):
            if 0 < limit <= 1:
                params = A.BboxParams(coord_format="pascal_voc", bbox_type="obb", min_visibility=float(limit))
                assert len(seen_boxes(rows, kept, params)) == (limit < share)


@successor
@pytest.mark.parametrize("grey", [False, True])
def test_tensor_donors(grey):
    def tensor(row: dict[str, Any]) -> dict[str, Any]:
        image = torch.from_numpy(row["image"][..., :1] if grey else row["image"]).permute(2, 0, 1)
        mask, saliency = torch.from_numpy(row["mask"]), torch.from_numpy(row["saliency"])
        return {"image": image, "mask": mask, "saliency": saliency}

    arrays = pipeline()(**source(LEFT), sgdmix_metadata=[donor()])
    tensors = pipeline()(**tensor(source(LEFT)), sgdmix_metadata=[tensor(donor())])
    expected = arrays["image"][..., :1] if grey else arrays["image"]
    assert np.array_equal(tensors["image"].permute(1, 2, 0).numpy(), expected)
    assert np.array_equal(tensors["mask"].numpy(), arrays["mask"])


@successor
@pytest.mark.parametrize("images", [np.zeros((0, 8, 8, 3), np.uint8), np.zeros((0, 8, 8), np.float32)])
def test_an_empty_batch(images):
    out = A.Compose([SGDMix(p=1)])(images=images)
    assert out["images"].shape == images.shape
    assert out["images"].dtype == images.dtype


# Objects that are scaled and moved

BLOCK = (slice(8, 20), slice(10, 26))
moving = {"place": "random", "fill": "inpaint"}


def bright_source(region: tuple[slice, slice] = BLOCK) -> dict[str, np.ndarray]:
    """A bright block on a dark ground; its mask is 3 on the block and 1 elsewhere."""
    row = source(region)
    row["image"][region] = 250
    return {**row, "mask": np.where(row["saliency"] > 0, 3, 1).astype(np.uint8)}


def big_donor(**more: Any) -> dict[str, Any]:
    """A donor whose own object is a large block."""
    saliency = np.zeros((SIDE, SIDE), np.float32)
    saliency[5:35, 10:30] = 1
    image = np.full((SIDE, SIDE, 3), 90, np.uint8)
    return {"image": image, "mask": np.full((SIDE, SIDE), 7, np.uint8), "saliency": saliency, **more}


def frame_of(seen: np.ndarray) -> list[int]:
    """x_min, y_min, x_max, y_max of a region."""
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


@pytest.mark.filterwarnings("ignore:label_fields are set")  # albumentationsx, where no label mapping follows
@pytest.mark.parametrize("seed", range(6))
def test_everything_moves_with_its_object(seed: int) -> None:
    """The pixels of the mix say where the object went, whatever moved it."""
    together = pipeline(
        mix=moving,
        bbox_params=A.BboxParams("pascal_voc", label_fields=["kinds"]),
        keypoint_params=A.KeypointParams("xys", label_fields=["names"]),
        seed=seed,
    )
    masks = np.stack([(bright_source()["mask"] == 3).astype(np.uint8), np.zeros((SIDE, SIDE), np.uint8)])
    masks[1, :4, :4] = 1
    out = together(
        **bright_source(),
        masks=masks,
        bboxes=np.array([[10.0, 8, 26, 20], [0, 0, 4, 4]]),
        kinds=["wren", "owl"],
        keypoints=np.array([[18.0, 14, 2], [2, 2, 2]]),
        names=["breast", "elsewhere"],
        sgdmix_metadata=[big_donor()],
    )
    seen = (out["image"] == 250).all(-1)
    assert np.array_equal(out["mask"], np.where(seen, 3, 7))
    assert np.array_equal(out["masks"][0], seen)
    assert not out["masks"][1].any()
    x1, y1, x2, y2 = frame_of(seen)
    assert out["kinds"] == ["wren"]
    assert np.abs(out["bboxes"] - [x1, y1, x2, y2]).max() <= 0.51
    assert out["names"] == ["breast"]
    scale = (x2 - x1) / 16
    assert np.allclose(out["keypoints"], [[(x1 + x2) / 2, (y1 + y2) / 2, 2 * scale]], atol=0.6)
    assert [x1, y1, x2, y2] != [10, 8, 26, 20]


def test_points_that_may_stay_move_too() -> None:
    params = A.KeypointParams("xy", remove_invisible=False)
    one = pipeline(mix=moving, keypoint_params=params, seed=1)
    points = np.array([[10.0, 8], [26, 20], [-3, 5]])
    out = one(**bright_source(), keypoints=points, sgdmix_metadata=[big_donor()])
    x1, y1, x2, y2 = frame_of((out["image"] == 250).all(-1))
    assert np.allclose(out["keypoints"][:2], [[x1, y1], [x2, y2]], atol=0.51)
    assert np.allclose(out["keypoints"][2], [-3, 5])


@pytest.mark.parametrize(("visible", "stay"), [(0.0, True), (0.45, True), (0.55, False)])
def test_min_visibility_is_of_what_is_seen_of_a_moved_box(visible: float, stay: bool) -> None:
    params = A.BboxParams("pascal_voc", label_fields=["kinds"], min_visibility=visible)
    boxes = np.array([[10.0, 8, 26, 32]])  # half of it is the block
    for seed in range(4):
        one = pipeline(mix=moving, bbox_params=params, seed=seed)
        out = one(**bright_source(), bboxes=boxes, kinds=["wren"], sgdmix_metadata=[big_donor()])
        assert len(out["bboxes"]) == stay


def test_min_area_is_of_the_scaled_box() -> None:
    kept = np.zeros((1, SIDE, SIDE), bool)
    kept[0][BLOCK] = True
    boxes = np.array([[10 / SIDE, 8 / SIDE, 26 / SIDE, 20 / SIDE]])
    for scale, least, stay in ((0.5, 47, 1), (0.5, 49, 0), (1.0, 191, 1)):
        moves = Moves(kept, np.array([[scale, 0.1, 0.1]]))
        found = seen_boxes(boxes, np.zeros_like(kept), A.BboxParams("pascal_voc", min_area=least), None, moves)
        assert len(found) == stay


def test_an_object_that_grows_to_the_whole_frame_takes_its_annotations_along() -> None:
    cutout = np.zeros((1, SIDE, SIDE), bool)
    cutout[0][MIDDLE] = True
    moves, everywhere = Moves(cutout, np.array([[2.0, -0.5, -0.5]])), np.ones_like(cutout)
    boxes = np.array([[0.25, 0.25, 0.5, 0.75]])
    assert np.array_equal(
        seen_boxes(boxes, everywhere, A.BboxParams("pascal_voc"), None, moves), [[0.0, 0.0, 0.5, 1.0]]
    )
    points = np.array([[20.0, 15.0]])
    assert np.array_equal(seen_points(points, everywhere, A.KeypointParams("xy"), None, moves), [[20.0, 10.0]])


def test_an_unmixed_call_moves_nothing() -> None:
    one = pipeline(mix=moving, bbox_params=A.BboxParams("pascal_voc", label_fields=["kinds"]))
    out = one(**bright_source(), bboxes=BOXES, kinds=KINDS, sgdmix_metadata=[])
    assert np.allclose(out["bboxes"], BOXES)
    assert np.array_equal(out["image"], bright_source()["image"])


def test_images_that_share_boxes_cannot_move_apart() -> None:
    rows = [bright_source(), big_donor()]
    batch = {key + "s" * (key != "saliency"): np.stack([row[key] for row in rows]) for key in rows[0]}
    mix = SGDMix("given", mask="otsu", p=1, place="random")
    shared = A.Compose(
        [mix],
        bbox_params=A.BboxParams("pascal_voc", label_fields=["kinds"]),
        additional_targets={"saliency": "masks"},
    )
    with pytest.raises(InvalidInputError, match="place='random' moves the object of each of 2 images"):
        shared(**batch, bboxes=BOXES, kinds=KINDS)
    out = A.Compose([mix], additional_targets={"saliency": "masks"})(**batch)
    assert not np.array_equal(out["images"][0], batch["images"][0])


def test_depth_that_is_unknown_stays_unknown_where_it_was() -> None:
    depth = np.where(bright_source()["mask"] == 3, 2.0, np.nan).astype(np.float32)
    theirs = np.full((SIDE, SIDE), 5, np.float32)
    mix = SGDMix("given", mask="otsu", feather=0, p=1, **moving)
    one = A.Compose([mix], additional_targets={"saliency": "mask", "depth": "image"}, seed=2)
    out = one(**bright_source(), depth=depth, sgdmix_metadata=[big_donor(depth=theirs)])
    assert np.array_equal(out["depth"], np.where((out["image"] == 250).all(-1), 2, 5))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_pictures_of_every_type_are_whole_in_memory(dtype: str) -> None:
    """OpenCV, which comes next in a pipeline, takes no other."""
    one, other = bright_source(), big_donor()
    for row in (one, other):
        row["image"] = (row["image"] / 255).astype(dtype) if dtype == "float32" else row["image"].astype(dtype)
    out = pipeline(mix=moving, seed=0)(**one, sgdmix_metadata=[other])
    assert out["image"].dtype == dtype
    assert out["image"].flags.c_contiguous
    assert out["mask"].flags.c_contiguous


def test_a_replay_moves_alike() -> None:
    mix = SGDMix("given", mask="otsu", p=1, **moving)
    first = A.ReplayCompose([mix], additional_targets={"saliency": "mask"})
    out = first(**bright_source(), sgdmix_metadata=[big_donor()])
    again = A.ReplayCompose.replay(out["replay"], **bright_source(), sgdmix_metadata=[big_donor()])
    assert np.array_equal(out["image"], again["image"])
    assert not np.array_equal(out["image"], bright_source()["image"])


@successor
def test_annotations_move_with_their_own_frames() -> None:
    images = np.stack([bright_source()["image"], bright_source((slice(15, 30), slice(5, 15)))["image"]])
    regions = [(images[i] == 250).all(-1) for i in range(2)]
    frames = [
        {
            "bboxes": np.array([frame_of(region), [0, 0, 3, 3]], np.float32),
            "kinds": ["bird", "none"],
            "keypoints": np.array([frame_of(region)[:2]], np.float32),
            "masks": region[None].astype(np.uint8),
        }
        for region in regions
    ]
    pipe = A.Compose(
        [SGDMix(lambda images: (images[:, 0] > 0.9).float(), mask="otsu", feather=0, p=1, **moving)],
        bbox_params=A.BboxParams(coord_format="pascal_voc", label_fields=["kinds"]),
        keypoint_params=A.KeypointParams("xy"),
        frame_binding=["images", "frame_annotations"],
        seed=1,
    )
    out = pipe(images=images, frame_annotations=frames)
    moved = 0
    for image, after, before in zip(out["images"], out["frame_annotations"], frames, strict=True):
        seen = (image == 250).all(-1)
        assert list(after["kinds"]) == ["bird"]
        assert np.abs(after["bboxes"] - frame_of(seen)).max() <= 0.51
        assert np.abs(after["keypoints"] - frame_of(seen)[:2]).max() <= 0.51
        assert np.array_equal(after["masks"][0], seen)
        moved += not np.allclose(after["bboxes"], before["bboxes"][:1], atol=1)
    assert moved


@successor
def test_oriented_boxes_keep_their_angle_when_they_move() -> None:
    turned = np.array([[12.0, 11.0, 24.0, 17.0, 30.0]])
    params = A.BboxParams(coord_format="pascal_voc", bbox_type="obb", label_fields=["kinds"])
    one = pipeline(mix=moving, bbox_params=params, seed=4)
    out = one(**bright_source(), bboxes=turned, kinds=["wren"], sgdmix_metadata=[big_donor()])
    x1, y1, x2, _ = frame_of((out["image"] == 250).all(-1))
    scale = (x2 - x1) / 16
    found = out["bboxes"][0]
    assert found[4] == pytest.approx(30, abs=1e-3)
    assert (found[2] - found[0], found[3] - found[1]) == pytest.approx((12 * scale, 6 * scale), rel=0.1)
    assert ((found[0] + found[2]) / 2, (found[1] + found[3]) / 2) == pytest.approx(
        (x1 + 8 * scale, y1 + 6 * scale), abs=0.6
    )
