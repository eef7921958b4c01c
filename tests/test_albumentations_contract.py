"""What every Albumentations transform owes its users, asked of ours: layouts, dtypes, channels, batches, storage.

Bad inputs stand side by side with ``A.Mosaic``, which takes donors in the same form.
"""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sgdmix_albu.albumentations import SGDMix
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.saliency import SaliencyBackend

SIDE = 24
MAPS = {"saliency": "mask"}


def picture(seed: int, channels: int | None = 3, dtype: str = "uint8") -> np.ndarray:
    """Noise with a brighter square that lies elsewhere for each seed."""
    rng = np.random.default_rng(seed)
    shape = (SIDE, SIDE) if channels is None else (SIDE, SIDE, channels)
    values = rng.random(shape) * 0.4
    at = 2 + 3 * (seed % 5)
    values[at : at + 8, at : at + 8] += 0.5
    if dtype == "bool":
        return values > 0.2
    top = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    return (values * top).astype(dtype)


def brightness(images: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(images.mean(1, keepdim=True), 5, stride=1, padding=2)[:, 0]


def mixed(image: np.ndarray, donors: list[np.ndarray], **settings: Any) -> np.ndarray:
    settings = {"saliency": "spectral_residual", "mask": "otsu", "fill": "source", **settings}
    out: np.ndarray = SGDMix(p=1, **settings)(image=image, sgdmix_metadata=[{"image": donor} for donor in donors])[
        "image"
    ]
    return out


# Pixels: every one is the source's or the donor's, whatever the dtype, channels and layout


@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4, 12])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float16", "float32", "float64", "bool"])
@pytest.mark.parametrize("mask", ["otsu", "guided"])
def test_what_a_function_can_read_is_mixed(channels, dtype, mask):
    source, donor = picture(0, channels, dtype), picture(1, channels, dtype)
    before = source.copy(), donor.copy()
    out = mixed(source, [donor], saliency=brightness, mask=mask)
    assert (out.dtype, out.shape) == (source.dtype, source.shape)
    from_source, from_donor = out == source, out == donor
    assert (from_source | from_donor).all()
    assert not from_source.all()
    assert not from_donor.all()
    assert np.array_equal(source, before[0])
    assert np.array_equal(donor, before[1])


@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4, 12])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float16", "float32", "float64", "bool"])
def test_whatever_can_be_mixed_can_be_painted(channels, dtype):
    """A donor of one colour but for its object, which is painted with that colour."""
    source, donor = picture(0, channels, dtype), picture(1, channels, dtype)
    donor[:] = colour = np.array(20 if dtype != "bool" else True, dtype)
    donor[5:13, 5:13] = picture(1, channels, dtype)[5:13, 5:13]
    saliency = np.zeros((2, SIDE, SIDE), np.float32)
    saliency[0, 2:10, 2:10] = saliency[1, 5:13, 5:13] = 1
    before = source.copy(), donor.copy()
    mix = A.Compose([SGDMix("given", mask="otsu", fill="inpaint", feather=0, p=1)], additional_targets=MAPS)
    mask = np.zeros((SIDE, SIDE), np.uint8)  # albumentationsx wants one beside maps that are declared as masks
    other = {"image": donor, "saliency": saliency[1], "mask": mask}
    out = mix(image=source, saliency=saliency[0], mask=mask, sgdmix_metadata=[other])
    expected = np.full_like(source, colour)
    expected[2:10, 2:10] = source[2:10, 2:10]
    assert out["image"].dtype == source.dtype
    assert np.array_equal(out["image"], expected)
    assert np.array_equal(source, before[0])
    assert np.array_equal(donor, before[1])


def test_depth_under_the_kind_of_images_may_have_gaps():
    source, donor = picture(0, 3), picture(1, 3)
    depths = [np.full((SIDE, SIDE), value, np.float32) for value in (1, 2)]
    depths[1][:2] = np.nan
    saliency = np.zeros((2, SIDE, SIDE), np.float32)
    saliency[0, 2:10, 2:10] = saliency[1, 5:13, 5:13] = 1
    targets = {**MAPS, "depth": "image"}
    mix = A.Compose([SGDMix("given", mask="otsu", fill="inpaint", feather=0, p=1)], additional_targets=targets)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    other = {"image": donor, "saliency": saliency[1], "depth": depths[1], "mask": mask}
    out = mix(image=source, saliency=saliency[0], depth=depths[0], mask=mask, sgdmix_metadata=[other])
    expected = depths[1].copy()
    expected[2:10, 2:10] = 1
    np.testing.assert_array_equal(out["depth"], expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_colour_backends_take_colours_of_any_depth(channels, dtype):
    source, donor = picture(0, channels, dtype), picture(1, channels, dtype)
    out = mixed(source, [donor], saliency="manifold_ranking", mask="guided")
    assert out.dtype == source.dtype
    assert ((out == source) | (out == donor)).all()
    assert not np.array_equal(out, source)


def test_channels_that_a_backend_cannot_read_are_refused_with_the_remedy():
    with pytest.raises(InvalidInputError, match=r"grey or RGB.*\(2, 4, 24, 24\).*a function, a model-based backend"):
        mixed(picture(0, 4), [picture(1, 4)], saliency="manifold_ranking")


LAYOUTS = {
    "contiguous": lambda image: image,
    "fortran": np.asfortranarray,
    "negative strides": lambda image: image[::-1, ::-1].copy()[::-1, ::-1],
    "negative channels": lambda image: image[..., ::-1].copy()[..., ::-1],
    "every other pixel": lambda image: image.repeat(2, 0).repeat(2, 1)[::2, ::2],
    "channels first in memory": lambda image: image.transpose(2, 0, 1).copy().transpose(1, 2, 0),
    "read-only": lambda image: _locked(image.copy()),
    "a subclass": lambda image: image.copy().view(Tagged),
    "a memory map": lambda image: np.frombuffer(image.tobytes(), image.dtype).reshape(image.shape),
    "big endian": lambda image: image.astype(image.dtype.newbyteorder(">")),
}


class Tagged(np.ndarray):
    """An array of somebody else's type."""


def _locked(image: np.ndarray) -> np.ndarray:
    image.flags.writeable = False
    return image


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_memory_layout_does_not_matter(layout, dtype):
    source, *donors = (picture(seed, dtype=dtype) for seed in range(4))
    change = LAYOUTS[layout]
    out = mixed(change(source), [change(donor) for donor in donors])
    assert np.array_equal(out, mixed(source, donors))
    assert out.flags["C_CONTIGUOUS"]
    assert out.flags["WRITEABLE"]


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "big endian"])
def test_layouts_of_masks(layout):
    masks = [np.random.default_rng(seed).integers(0, 5, (SIDE, SIDE, 2)).astype(np.uint8) for seed in (0, 1)]
    source, donor = picture(0), picture(1)
    change = LAYOUTS[layout]

    def run(one: np.ndarray, other: np.ndarray) -> dict[str, np.ndarray]:
        mix = SGDMix("spectral_residual", mask="otsu", p=1)
        return mix(
            image=source, mask=one, masks=one.transpose(2, 0, 1), sgdmix_metadata=[{"image": donor, "mask": other}]
        )

    expected, out = run(*masks), run(*map(change, masks))
    assert np.array_equal(out["mask"], expected["mask"])
    assert np.array_equal(out["masks"], expected["masks"])


def test_the_result_shares_no_memory_with_what_came_in():
    source, donor = picture(0), picture(1)
    out = mixed(source, [donor])
    assert not np.shares_memory(out, source)
    assert not np.shares_memory(out, donor)


# Batches


def test_a_batch_of_one_takes_a_donor_and_alone_stays_as_it_is():
    source, donor = picture(0), picture(1)
    mix = SGDMix("spectral_residual", mask="otsu", fill="source", p=1)
    out = mix(images=source[None], sgdmix_metadata=[{"image": donor}])
    assert np.array_equal(out["images"][0], mixed(source, [donor]))
    assert np.array_equal(mix(images=source[None])["images"], source[None])
    assert mix.guard_counts["no_target"] == 1


def test_lists_of_images_and_more_donors_than_candidates():
    batch = [picture(seed) for seed in range(5)]
    mix = SGDMix("spectral_residual", mask="otsu", p=1)
    from_list, from_array = mix(images=batch)["images"], mix(images=np.stack(batch))["images"]
    assert np.array_equal(np.stack(list(from_list)), from_array)
    few = SGDMix("spectral_residual", candidates=1, p=1)
    out = few(images=np.stack(batch), sgdmix_metadata=[{"image": picture(seed)} for seed in range(5, 30)])
    assert out["images"].shape == from_array.shape


# Colours


@pytest.mark.parametrize("interpolation", [2, 4])  # cubic, Lanczos
def test_overshoot_of_resizing_changes_no_mask(interpolation):
    """OpenCV, and with it A.Resize of albumentations 2.0.8, steps over the ends of [0, 1] on floats, not on uint8."""
    rng = np.random.default_rng(0)
    large = [rng.uniform(0.2, 0.4, (60, 60, 3)) for _ in range(2)]
    for image, at in zip(large, (10, 25), strict=True):
        image[at : at + 20, at : at + 20] = (1, 1, 0)
        image[at + 4 : at + 16 : 6, at : at + 20] = 0
    floats = [cv2.resize(image.astype(np.float32), (48, 48), interpolation=interpolation) for image in large]
    assert min(image.min() for image in floats) < -0.02
    assert max(image.max() for image in floats) > 1.02
    bytes_ = [np.round(np.clip(image, 0, 1) * 255).astype(np.uint8) for image in floats]
    pair = [mixed(images[0], images[1:], saliency="manifold_ranking", mask="guided") for images in (floats, bytes_)]
    kept = [(out == images[0]).all(-1) for out, images in zip(pair, (floats, bytes_), strict=True)]
    assert not kept[0].all()
    assert (kept[0] != kept[1]).mean() < 0.01


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), ((0.1,) * 3, (2.0,) * 3)],
)
def test_normalised_images_are_mixed_as_they_were(mean, std):
    """The same masks before and after A.Normalize."""
    source, *donors = (picture(seed) for seed in range(4))
    normalize = A.Normalize(mean, std)
    plain = mixed(source, donors, saliency="manifold_ranking", mask="guided")
    expected = (plain == source).all(-1)
    normalised = [normalize(image=image)["image"] for image in (source, *donors)]
    out = mixed(normalised[0], normalised[1:], saliency="manifold_ranking", mask="guided", mean=mean, std=std)
    assert not expected.all()
    assert ((out == normalised[0]).all(-1) != expected).mean() < 0.01


@pytest.mark.parametrize("factor", [255, 20, -1])
def test_floats_in_no_known_range_are_refused_with_their_extremes(factor):
    source, donor = (picture(seed, dtype="float32") * factor for seed in range(2))
    with pytest.raises(InvalidInputError, match=r"float values from -?[\d.e-]+ to -?[\d.e-]+.*mean= and std="):
        mixed(source.astype(np.float32), [donor.astype(np.float32)], saliency="manifold_ranking")


# Maps that are class ids


def test_class_ids_as_saliency_are_refused():
    trimap = np.full((SIDE, SIDE), 2, np.uint8)
    trimap[4:12, 4:12] = 3
    trimap[6:10, 6:10] = 1
    call = {"image": picture(0), "mask": trimap, "sgdmix_metadata": [{"image": picture(1), "mask": trimap.T.copy()}]}
    mix = SGDMix("given", saliency_key="mask", mask="otsu", p=1)
    with pytest.raises(InvalidInputError, match="values 1, 2, 3, which look like class ids"):
        mix(**call)
    with pytest.raises(InvalidInputError, match="got torch.int64.*bool mask"):
        mix(
            **{
                **call,
                "mask": trimap.astype(int),
                "sgdmix_metadata": [{"image": picture(1), "mask": trimap.astype(int)}],
            }
        )
    assert mix(**call | {"sgdmix_metadata": []} | {"mask": trimap == 1})["mask"].dtype == bool


def test_a_dark_map_beside_bright_donors_is_saliency():
    """An image in which a network saw next to nothing; also once its donors are remembered."""
    y, x = np.mgrid[:SIDE, :SIDE]
    soft = np.exp(-((y - 8.0) ** 2 + (x - 10) ** 2) / 60) * 255
    rows = [
        {"image": picture(seed), "mask": np.roll(soft * scale, seed, 1).astype(np.uint8)}
        for seed, scale in enumerate((0.05, 1, 1))
    ]
    mix = SGDMix("given", saliency_key="mask", mask="otsu", p=1)
    for _ in range(2):
        mix(**rows[0], sgdmix_metadata=rows[1:])
    assert mix.guard_counts["flat_saliency"] == 0


# Labels


class Labelled(SaliencyBackend):
    """Brightness; remembers the labels it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[int] | None = None

    def _raw(self, images: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        self.got = None if labels is None else labels.tolist()
        return images.mean(1)


@pytest.mark.parametrize(
    ("own", "theirs"),
    [
        (2, 1),
        (np.int64(2), np.uint8(1)),
        (2.0, 1.0),
        (np.float32(2), 1.0),
        (np.array(2), np.array(1)),
        (torch.tensor(2), torch.tensor(1)),
        ([0, 0, 1], [0, 1, 0]),
        (np.array([0.1, 0.2, 0.7]), np.array([0.0, 0.9, 0.1])),
        (torch.tensor([0.0, 0.0, 1.0]), np.array([0, 1, 0])),
    ],
)
def test_labels_in_every_form(own, theirs):
    backend = Labelled()
    SGDMix(backend, p=1)(image=picture(0), label=own, sgdmix_metadata=[{"image": picture(1), "label": theirs}])
    assert backend.got == [2, 1]


@pytest.mark.parametrize(
    "labels",
    [[0, 1, 2], (0, 1, 2), np.arange(3), torch.arange(3), np.arange(3.0), np.eye(3), np.eye(3).tolist(), torch.eye(3)],
)
def test_labels_of_a_batch_in_every_form(labels):
    backend = Labelled()
    SGDMix(backend, p=1)(images=np.stack([picture(seed) for seed in range(3)]), label=labels)
    assert backend.got == [0, 1, 2]


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ([1], r"\(2, 1\)"),
        ([1, 1, 0], "no class probabilities"),
        ([0, 0, 0], "no class probabilities"),
        ([3, 4, 20, 30], "no class probabilities"),
        (1.5, "not whole numbers"),
        (-1, "from 0 on"),
        (True, "torch.bool"),
        ("wren", "list with str"),
        (np.nan, "not whole numbers"),
    ],
)
def test_labels_that_say_no_class_are_refused_where_one_is_needed(own, said):
    call = {"image": picture(0), "label": own, "sgdmix_metadata": [{"image": picture(1), "label": own}]}
    with pytest.raises(InvalidInputError, match=said):
        SGDMix(Labelled(), p=1)(**call)
    out = SGDMix("spectral_residual", p=1)(**call)  # nobody asks
    assert out["label"] is own


def test_one_form_of_labels_in_a_call():
    with pytest.raises(InvalidInputError, match="one form for the source and all donors"):
        SGDMix(Labelled(), p=1)(image=picture(0), label=1, sgdmix_metadata=[{"image": picture(1), "label": [0, 1]}])


# Bad inputs, side by side with Mosaic

BAD_IMAGES = [None, "a.jpg", 7, [[1, 2], [3, 4]], np.zeros((0, 4, 3), np.uint8), np.zeros(5, np.uint8)]


@pytest.mark.parametrize("bad", BAD_IMAGES, ids=lambda bad: type(bad).__name__)
def test_donors_that_mosaic_skips_with_a_warning_or_trips_over_are_refused(bad):
    rows = [{"image": picture(1)}, {"image": bad}]
    if np.size(bad):  # Mosaic takes a picture without pixels
        with pytest.raises((UserWarning, AttributeError)):  # warnings are errors here
            A.Compose([A.Mosaic(target_size=(SIDE, SIDE), p=1)])(image=picture(0), mosaic_metadata=rows)
    with pytest.raises(InvalidInputError, match=r"sgdmix_metadata\[1\]"):
        SGDMix(p=1)(image=picture(0), sgdmix_metadata=rows)


@pytest.mark.parametrize("bad", [None, 5, "donors", {"image": 1}, [1], [None], [["image"]], np.zeros((2, 3))])
def test_what_is_no_list_of_donors_is_refused(bad):
    with pytest.raises(InvalidInputError, match=r"expected a list of donors, sgdmix_metadata=\[\{'image': array\}"):
        SGDMix(p=1)(image=picture(0), sgdmix_metadata=bad)


@pytest.mark.parametrize("several", [tuple, list])
def test_donors_in_any_sequence(several):
    rows = [{"image": picture(1)}, {"image": picture(2)}]
    out = SGDMix("spectral_residual", p=1)(image=picture(0), sgdmix_metadata=several(rows))
    assert not np.array_equal(out["image"], picture(0))


def test_broken_pixels_are_refused():
    source, donor = picture(0, dtype="float32"), picture(1, dtype="float32")
    donor[3, 3, 0] = np.nan
    for saliency in ("spectral_residual", "manifold_ranking", brightness):
        with pytest.raises(Exception, match="NaN") as caught:
            mixed(source, [donor], saliency=saliency)
        assert type(caught.value).__module__ == "sgdmix_albu.errors"


# Pipelines


@pytest.mark.parametrize("composed", ["Compose", "ReplayCompose", "OneOf", "SomeOf", "Sequential"])
def test_inside_every_kind_of_composition(composed):
    mix = SGDMix("spectral_residual", p=1)
    inner = {
        "OneOf": lambda: A.OneOf([mix], p=1),
        "SomeOf": lambda: A.SomeOf([mix, A.NoOp()], n=2, p=1),
        "Sequential": lambda: A.Sequential([mix], p=1),
    }
    pipeline = (
        A.ReplayCompose([mix]) if composed == "ReplayCompose" else A.Compose([inner.get(composed, lambda: mix)()])
    )
    out = pipeline(image=picture(0), sgdmix_metadata=[{"image": picture(1)}])
    assert not np.array_equal(out["image"], picture(0))


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_of_a_pipeline_mix_alike(twin):
    pipeline = A.Compose([A.HorizontalFlip(p=0.5), SGDMix("spectral_residual", candidates=2, p=0.7)], seed=3)
    other = twin(pipeline)
    donors = [{"image": picture(seed)} for seed in range(1, 6)]
    for _ in range(8):
        one, two = (p(image=picture(0), sgdmix_metadata=donors)["image"] for p in (pipeline, other))
        assert np.array_equal(one, two)


def test_stored_settings_give_the_same_transform():
    settings = {"mean": [0.5] * 3, "std": [0.25] * 3, "instance_keys": ["mask"], "id_key": "file", "remember": 9}
    stored = json.loads(json.dumps(A.to_dict(A.Compose([SGDMix(**settings)]))))
    (restored,) = A.from_dict(stored).transforms
    assert {name: getattr(restored, name) for name in settings} == {**settings, "instance_keys": ("mask",)}


def test_p_decides_about_the_call():
    pipeline = A.Compose([SGDMix("spectral_residual", p=0.5)], seed=0)
    donors = [{"image": picture(1)}]
    changed = [
        not np.array_equal(pipeline(image=picture(0), sgdmix_metadata=donors)["image"], picture(0)) for _ in range(60)
    ]
    assert 15 < sum(changed) < 45


def test_without_a_seed_torch_does_not_decide():
    """The page says: without seed=, no two runs are alike, whatever torch.manual_seed."""

    def run() -> list[bytes]:
        torch.manual_seed(0)
        pipeline = A.Compose([SGDMix("spectral_residual", candidates=1, p=0.7)])
        donors = [{"image": picture(seed)} for seed in range(1, 9)]
        return [pipeline(image=picture(0), sgdmix_metadata=donors)["image"].tobytes() for _ in range(12)]

    assert run() != run()
