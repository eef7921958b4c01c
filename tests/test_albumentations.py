"""The Albumentations face: what one call does to each target, against the paper's equations in plain numpy."""

from __future__ import annotations

import albumentations as A
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from skimage.filters import threshold_otsu

from sgdmix_albu.albumentations import SGDMix
from sgdmix_albu.albumentations.arrays import resized
from sgdmix_albu.errors import InvalidInputError, SGDMixError
from sgdmix_albu.saliency import SaliencyBackend

H, W = 24, 20
SALIENCY = {"saliency": "mask"}


def blob(rng: np.random.Generator, h: int = H, w: int = W) -> np.ndarray:
    """A map at 8 bits: one soft blob, somewhere."""
    y, x = np.mgrid[:h, :w]
    distance = (y - rng.uniform(0.2, 0.8) * h) ** 2 + (x - rng.uniform(0.2, 0.8) * w) ** 2
    soft = np.exp(-distance / (2 * rng.uniform(2, 5) ** 2))
    soft = (soft - soft.min()) / (soft.max() - soft.min())
    return (np.round(255 * soft) / 255).astype(np.float32)


def scenes(seed: int, n: int, shape: tuple[int, ...] = (H, W, 3), dtype: str = "uint8") -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (n, *shape)).astype(np.uint8)
    if dtype != "uint8":
        pictures = (pictures / 255).astype(dtype)
    return [
        {"image": picture, "saliency": blob(rng, *shape[:2]), "mask": rng.integers(0, 5, shape[:2], dtype=np.uint8)}
        for picture in pictures
    ]


def without(row: dict[str, np.ndarray], *keys: str) -> dict[str, np.ndarray]:
    return {key: value for key, value in row.items() if key not in keys}


def by_the_book(source: dict[str, np.ndarray], donors: list[dict[str, np.ndarray]]) -> tuple[int, np.ndarray]:
    """The nearest donor and the union mask, equations 7 to 9."""
    nearest = min(range(len(donors)), key=lambda j: np.linalg.norm(source["saliency"] - donors[j]["saliency"]))
    masks = [
        np.round(255 * z) > threshold_otsu(np.round(255 * z).astype(np.uint8))
        for z in (source["saliency"], donors[nearest]["saliency"])
    ]
    return nearest, masks[0] | masks[1]


def mixed(
    source: dict[str, np.ndarray], donors: list[dict[str, np.ndarray]], **settings: object
) -> dict[str, np.ndarray]:
    transform = SGDMix("given", p=1, **{"mask": "otsu", "fill": "source", **settings})
    return A.Compose([transform], additional_targets=SALIENCY, strict=True)(**source, sgdmix_metadata=donors)


@given(
    st.integers(0, 10_000),
    st.integers(1, 6),
    st.sampled_from([(H, W, 3), (H, W, 1), (H, W), (W, H, 3)]),
    st.sampled_from(["uint8", "float32"]),
)
def test_image_and_mask_are_the_papers_mix(seed, n, shape, dtype):
    source, *donors = scenes(seed, n + 1, shape, dtype)
    before = source["image"].copy(), [donor["image"].copy() for donor in donors]
    nearest, union = by_the_book(source, donors)
    if union.mean() > 0.95:
        return
    out = mixed(source, donors)
    image_union = union if len(shape) == 2 else union[..., None]
    assert np.array_equal(out["image"], np.where(image_union, source["image"], donors[nearest]["image"]))
    assert np.array_equal(out["mask"], np.where(union, source["mask"], donors[nearest]["mask"]))
    assert np.array_equal(out["saliency"], source["saliency"])
    assert out["image"].dtype == dtype
    assert out["image"].flags["C_CONTIGUOUS"]
    assert np.array_equal(source["image"], before[0])
    assert all(np.array_equal(donor["image"], copy) for donor, copy in zip(donors, before[1], strict=True))


def test_masks_boxes_key_points_and_additional_targets():
    source, *donors = scenes(3, 5)
    nearest, union = by_the_book(source, donors)
    for row in (source, *donors):
        row["masks"] = np.stack([row["mask"], row["mask"] + 1])
        row["depth"] = row["image"][..., :1].astype(np.float32)
        row["night"] = 255 - row["image"]
    pipeline = A.Compose(
        [SGDMix("given", p=1, mask="otsu", fill="source", feather=4)],
        bbox_params=A.BboxParams("pascal_voc", label_fields=["kinds"]),
        keypoint_params=A.KeypointParams("xy"),
        additional_targets={"saliency": "mask", "depth": "mask", "night": "image"},
        strict=True,
    )
    y, x = np.argwhere(union)[0]
    boxes, points = np.array([[2.0, 3.0, 10.0, 12.0]]), np.array([[x, y]]) + 0.5
    assert union[3:12, 2:10].any()
    out = pipeline(**source, bboxes=boxes, kinds=["bird"], keypoints=points, label="wren", sgdmix_metadata=donors)
    target = donors[nearest]
    for key, where in (("mask", union), ("depth", union[..., None])):
        assert np.array_equal(out[key], np.where(where, source[key], target[key])), key
    assert np.array_equal(out["masks"], np.where(union, source["masks"], 0))
    assert np.array_equal(out["night"][union], source["night"][union])
    assert (
        np.array_equal(255 - out["night"].astype(int), out["image"])
        or np.abs(255 - out["night"].astype(int) - out["image"]).max() <= 1
    )  # rounding of halves in the feathered edge
    assert np.allclose(out["bboxes"], boxes)
    assert np.allclose(out["keypoints"], points)
    assert (out["kinds"], out["label"]) == (["bird"], "wren")


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint16", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("size", [(H, W), (17, 33)])
def test_masks_of_any_dtype(dtype, size):
    source, donor = scenes(18, 2)
    _, union = by_the_book(source, [donor])
    source["mask"] = (source["mask"] % 2).astype(dtype)
    out = mixed(source, [{**donor, "mask": np.zeros(size, dtype)}])
    assert out["mask"].dtype == dtype
    assert np.array_equal(out["mask"], np.where(union, source["mask"], 0))


def test_images_take_their_backgrounds_from_each_other():
    rows = scenes(5, 6)
    batch = {
        "images": np.stack([row["image"] for row in rows]),
        "masks": np.stack([row["mask"] for row in rows]),
        "saliency": np.stack([row["saliency"] for row in rows]),
    }
    transform = SGDMix("given", p=1, mask="otsu", fill="source")
    pipeline = A.Compose([transform], additional_targets={"saliency": "masks"}, strict=True)
    out = pipeline(**batch, label=np.arange(6))
    for i, row in enumerate(rows):
        others = rows[:i] + rows[i + 1 :]
        nearest, union = by_the_book(row, others)
        assert np.array_equal(out["images"][i], np.where(union[..., None], row["image"], others[nearest]["image"]))
        assert np.array_equal(out["masks"][i], np.where(union, row["mask"], others[nearest]["mask"]))
    assert np.array_equal(out["label"], np.arange(6))


def test_metadata_widens_the_pool_of_a_batch():
    source, donor = scenes(6, 2)
    nearest, union = by_the_book(source, [donor])
    transform = SGDMix("given", p=1, mask="otsu", fill="source")
    pipeline = A.Compose([transform], additional_targets={"saliency": "masks"})
    batch = {f"{key}s" if key != "saliency" else key: value[None] for key, value in source.items()}
    out = pipeline(**batch, sgdmix_metadata=[donor])
    assert nearest == 0
    assert np.array_equal(out["images"][0], np.where(union[..., None], source["image"], donor["image"]))


def test_donors_of_another_size_are_stretched():
    source, donor = scenes(7, 2)
    _, union = by_the_book(source, [donor])
    flat = np.full((50, 31, 3), 77, np.uint8)  # a constant picture stays constant whatever the filter
    halves = np.repeat(np.array([[1, 2]], np.uint8), 2 * H, axis=0).repeat(W, axis=1)
    other = {"image": flat, "mask": halves, "saliency": donor["saliency"].repeat(2, 0).repeat(2, 1)}
    out = mixed(source, [other])
    assert (out["image"][~union] == 77).all()
    exact = np.repeat(np.array([[1, 2]], np.uint8), H, axis=0).repeat(W // 2, axis=1)
    assert np.array_equal(out["mask"], np.where(union, source["mask"], exact))


@given(st.tuples(*[st.integers(1, 9)] * 4))
def test_masks_are_resized_by_nearest_pixel(sizes):
    old, new = sizes[:2], sizes[2:]
    mask = np.arange(old[0] * old[1], dtype=np.float32).reshape(old)
    expected = F.interpolate(torch.from_numpy(mask)[None, None], size=new, mode="nearest-exact")[0, 0]
    assert np.array_equal(resized(mask, new, nearest=True), expected.numpy())


def test_read_only_and_reversed_arrays_are_taken():
    source, donor = scenes(8, 2)
    for row in (source, donor):
        row["image"] = row["image"][:, ::-1]
    source["image"].flags.writeable = donor["image"].flags.writeable = False
    _, union = by_the_book(source, [donor])
    out = mixed(source, [donor])
    assert np.array_equal(out["image"], np.where(union[..., None], source["image"], donor["image"]))


def test_a_map_in_the_donor_spares_the_backend():
    asked = []

    def bright(images):
        asked.append(len(images))
        return images.mean(1)

    source, *donors = (without(row, "saliency", "mask") for row in scenes(9, 5))
    donors[1]["saliency"] = donors[1]["image"].mean(2) / 255
    SGDMix(bright, p=1)(image=source["image"], sgdmix_metadata=donors)
    assert asked == [4]  # the source and three donors


def test_a_mask_can_be_the_saliency():
    source, *donors = scenes(17, 4)
    nearest, union = by_the_book(source, donors)
    rows = [{"image": row["image"], "mask": row["saliency"]} for row in (source, *donors)]
    transform = SGDMix("given", saliency_key="mask", mask="otsu", fill="source", p=1)
    out = A.Compose([transform])(**rows[0], sgdmix_metadata=rows[1:])
    assert np.array_equal(out["image"], np.where(union[..., None], source["image"], donors[nearest]["image"]))
    assert np.array_equal(out["mask"], np.where(union, source["saliency"], donors[nearest]["saliency"]))


def test_no_more_than_candidates_are_looked_at():
    asked = []

    def bright(images):
        asked.append(len(images))
        return images.mean(1)

    source, *donors = (without(row, "saliency", "mask") for row in scenes(10, 9))
    SGDMix(bright, candidates=3, p=1)(image=source["image"], sgdmix_metadata=donors)
    assert asked == [4]


@pytest.mark.parametrize(("target_class", "allowed"), [("same", {"wren"}), ("different", {"owl", "tit"})])
def test_target_class(target_class, allowed):
    names = ["wren", "owl", "wren", "tit", "owl"]
    source, *donors = ({**row, "label": name} for row, name in zip(scenes(11, 5), names, strict=True))
    pool = [donor for donor in donors if donor["label"] in allowed]
    nearest, union = by_the_book(source, pool)
    out = mixed(source, donors, target_class=target_class)
    assert np.array_equal(out["image"], np.where(union[..., None], source["image"], pool[nearest]["image"]))
    assert out["label"] == "wren"


def test_a_backend_is_given_the_labels_of_what_it_looks_at():
    class Labelled(SaliencyBackend):
        def _raw(self, images, labels):
            seen.append((images, labels))
            return images.mean(1)

    seen = []
    rows = [without(row, "saliency", "mask") for row in scenes(19, 9)]
    for label, row in enumerate(rows):
        row["label"] = label
        row["image"][0, 0] = label  # to be known again
    mix = SGDMix(Labelled(), candidates=3, p=1)
    for _ in range(5):
        mix(**rows[0], sgdmix_metadata=rows[1:])
    for images, labels in seen:
        assert len(images) == len(labels) == 4
        assert torch.equal((255 * images[:, 0, 0, 0]).round().long(), labels)
    assert len({tuple(labels.tolist()) for _, labels in seen}) > 1
    del rows[4]["label"]
    with pytest.raises(InvalidInputError, match=r"sgdmix_metadata\[3\] to have the key 'label'"):
        mix(**rows[0], sgdmix_metadata=rows[1:])
    with pytest.raises(InvalidInputError, match="expected label as class numbers.*got list with str"):
        mix(image=rows[0]["image"], label="wren", sgdmix_metadata=[{**rows[1], "label": "owl"}])


def test_exclude_duplicates():
    source, other = scenes(12, 2)
    _, union = by_the_book(source, [other])
    out = mixed(source, [dict(source), other], exclude_duplicates=True)
    assert np.array_equal(out["image"], np.where(union[..., None], source["image"], other["image"]))


def test_guards_leave_the_image_alone_and_are_counted():
    source, donor = scenes(13, 2)
    transform = SGDMix("given", p=1)
    transform.add_targets(SALIENCY)
    for nothing in ([], [{**donor, "saliency": np.zeros((H, W), np.float32)}]):
        out = transform(**source, sgdmix_metadata=nothing)
        assert np.array_equal(out["image"], source["image"])
        assert np.array_equal(out["mask"], source["mask"])
    assert transform.guard_counts["no_target"] == 2
    transform(**{**source, "saliency": np.zeros((H, W), np.float32)}, sgdmix_metadata=[donor])
    assert transform.guard_counts["flat_saliency"] == 1


def test_p_zero_is_the_identity():
    source, donor = scenes(14, 2)
    pipeline = A.Compose([SGDMix("given", p=0)], additional_targets=SALIENCY)
    assert np.array_equal(pipeline(**source, sgdmix_metadata=[donor])["image"], source["image"])


def _change(donor: dict[str, np.ndarray], **changes: object) -> dict[str, object]:
    return {**donor, **changes}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s, d: {**s}, "expected a list of donors, sgdmix_metadata=.*, got none"),
        (lambda s, d: {**s, "sgdmix_metadata": d}, "got dict"),
        (lambda s, d: {**s, "sgdmix_metadata": [d["image"]]}, "got list of ndarray"),
        (
            lambda s, d: {**s, "sgdmix_metadata": [d, without(d, "image")]},
            r"sgdmix_metadata\[1\] to have the key 'image'",
        ),
        (lambda s, d: {**s, "sgdmix_metadata": [without(d, "mask")]}, "the background of the source's mask comes from"),
        (lambda s, d: {**s, "sgdmix_metadata": [without(d, "saliency")]}, "1 of 2 images have none"),
        (lambda s, d: {**s, "sgdmix_metadata": [_change(d, image=d["image"][..., :1])]}, r"got uint8 \(24, 20, 1\)"),
        (lambda s, d: {**s, "sgdmix_metadata": [_change(d, image=d["image"] / 255)]}, "got float64"),
        (lambda s, d: {**s, "sgdmix_metadata": [_change(d, image="a.jpg")]}, "got str"),
        (lambda s, d: {**s, "sgdmix_metadata": [_change(d, saliency=d["saliency"] * 3)]}, r"\[0, 1\]"),
        (lambda s, d: {**s, "volume": np.zeros((2, H, W)), "sgdmix_metadata": [d]}, "does not support volume"),
        (lambda s, d: {**s, "images": s["image"][None], "sgdmix_metadata": [d]}, "got image and images"),
        (lambda s, d: {"images": s["image"][None], "mask": s["mask"]}, "with images, mask must be"),
        (
            lambda s, d: {"images": s["image"][None], "masks": np.stack([s["mask"]] * 2)},
            "one for each of 1 images, got 2",
        ),
    ],
)
def test_bad_calls_say_what_was_expected_and_what_came(call, said):
    transform = SGDMix("given", p=1)
    transform.add_targets(SALIENCY)
    with pytest.raises(InvalidInputError, match=said):
        transform(**call(*scenes(15, 2)))


def test_undeclared_saliency_is_refused():
    source, donor = scenes(16, 2)
    with pytest.raises(InvalidInputError, match=r"additional_targets=\{'saliency': 'mask'\}"):
        A.Compose([SGDMix("given", p=1)])(**source, sgdmix_metadata=[donor])


@pytest.mark.parametrize(
    "settings",
    [
        {"saliency": "spectral_residul"},
        {"mask": "otsou"},
        {"candidates": 0},
        {"candidates": "50"},
        {"max_coverage": 2},
        {"max_coverage": None},
        {"max_coverage": "0.9"},
        {"p": -1},
        {"p": None},
        {"p": "0.5"},
        {"p": [0.5]},
        {"p": float("nan")},
        {"feather": "2"},
        {"feather": 1j},
        {"fill": None},
        {"fill": "paint"},
        {"target_class": None},
        {"target_class": ["same"]},
        {"exclude_duplicates": "no"},
        {"saliency": "given", "layer": "conv"},
        {"saliency": None},
        {"mask": None},
        {"mean": (0.5,)},
        {"std": (0.5,)},
        {"mean": 0.5, "std": 0.5},
        {"std": (0,), "mean": (0.5,)},
        {"remember": -1},
        {"remember": True},
        {"instance_keys": 3},
        {"instance_keys": "mask"},
        {"metadata_key": None},
        {"saliency_key": 7},
        {"label_key": ""},
        {"id_key": 1},
    ],
)
def test_bad_settings_are_refused_at_once(settings):
    with pytest.raises(SGDMixError, match=next(iter(settings))):
        SGDMix(**settings)
