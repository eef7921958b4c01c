"""The Albumentations face: donors that are the image itself, and donors that were seen before."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch

from sgdmix_albu.albumentations import SGDMix
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing import draw
from sgdmix_albu.saliency import SaliencyBackend, get_backend, register_backend

SIDE = 48


def scene(number: int, side: int = SIDE) -> np.ndarray:
    """A smooth background with one bright square whose place and colour depend on the number."""
    rng = np.random.default_rng(number)
    coarse = rng.uniform(0, 0.4, (5, 5, 3)).astype(np.float32)
    image = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    at, width = int((0.1 + 0.06 * (number % 7)) * side), side // 3
    image[at : at + width, at : at + width] = (0.9, 0.5 + 0.05 * (number % 9), 0.3)
    return np.clip(image * 255, 0, 255).round().astype(np.uint8)


SCENES = [scene(number) for number in range(6)]


class Counting(SaliencyBackend):
    """Brightness, with a count of the images that were looked at."""

    seen = 0

    @property
    def uses_labels(self) -> bool:
        return False

    def _raw(self, images: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        Counting.seen += len(images)
        return images.mean(1)


@pytest.fixture
def counting() -> type[Counting]:
    register_backend("counting", Counting)
    Counting.seen = 0
    return Counting


def donors(*images: np.ndarray, **more: Any) -> list[dict[str, Any]]:
    return [{"image": image, **more} for image in images]


def test_the_target_is_a_donor_that_was_drawn():
    mix = SGDMix("spectral_residual", candidates=1, p=1)
    chosen = set()
    for _ in range(12):
        replay = A.ReplayCompose([mix])(image=SCENES[0], sgdmix_metadata=donors(*SCENES[1:]))["replay"]
        params = replay["transforms"][0]["params"]
        params = params.get("params", params)  # albumentationsx wraps them
        drawn = draw(1, 6, candidates=1, generator=torch.Generator().manual_seed(params["seed"])).candidates
        assert params["target"] == drawn[0].nonzero()[:, 0].tolist()
        chosen.update(params["target"])
    assert len(chosen) > 2


# Never the image itself


@pytest.mark.parametrize("copied", [False, True])
def test_a_donor_with_the_images_own_pixels_is_not_chosen(copied):
    mix = SGDMix("spectral_residual", p=1)
    same = SCENES[0].copy() if copied else SCENES[0]
    for _ in range(3):
        out = mix(image=SCENES[0], sgdmix_metadata=donors(same, SCENES[1]))
        params = mix.get_applied_params()
        assert params.get("params", params)["target"] == [2]
        assert not np.array_equal(out["image"], SCENES[0])
    assert mix.guard_counts["duplicate"] == 0


@pytest.mark.parametrize("interpolation", ["LINEAR", "CUBIC", "AREA", "LANCZOS4"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_donor_that_is_the_image_at_another_size_is_not_chosen(interpolation, dtype):
    large = scene(3, side=190)
    small = cv2.resize(large, (64, 64), interpolation=getattr(cv2, f"INTER_{interpolation}"))
    other = scene(4, side=190)
    if dtype == "float32":
        large, small, other = (image.astype(np.float32) / 255 for image in (large, small, other))
    mix = SGDMix("spectral_residual", p=1)
    alone = mix(image=small, sgdmix_metadata=donors(large))
    assert np.array_equal(alone["image"], small)
    assert mix.guard_counts["duplicate"] == 1
    assert not np.array_equal(mix(image=small, sgdmix_metadata=donors(large, other))["image"], small)


def test_photographs_among_their_originals(shared_data):
    """Resized by the pipeline, each photograph knows its own file and no other one."""
    files = sorted((shared_data / "objects" / "images").glob("*.jpg"))[:12]
    originals = [cv2.imread(str(file))[..., ::-1].copy() for file in files]
    mix = SGDMix("spectral_residual", mask="otsu", p=1)
    pipeline = A.Compose([A.Resize(64, 64), mix])
    for original in originals:
        pipeline(image=original, sgdmix_metadata=donors(original))
    assert mix.guard_counts["duplicate"] == len(originals)
    one, *others = originals
    pipeline(image=one, sgdmix_metadata=donors(*others))
    assert mix.guard_counts["duplicate"] == len(originals)


@pytest.mark.parametrize(
    ("own", "theirs"),
    [
        (3, [3, 4]),
        ("a.jpg", ["a.jpg", "b.jpg"]),
        (("cub", 1), [("cub", 1), ("cub", 2)]),
        (np.int64(3), [3, 4]),
        (np.array(3), [np.array(3), np.array(4)]),
        (torch.tensor(3), [3, torch.tensor(4)]),
        (3, [3, None]),
    ],
)
def test_other_views_of_the_sample_are_not_chosen(own, theirs):
    view = SCENES[0][:, ::-1]  # its pixels differ
    pool = [
        {"image": image} | ({} if key is None else {"id": key})
        for image, key in zip((view, SCENES[1]), theirs, strict=True)
    ]
    mix = SGDMix("spectral_residual", p=1)
    pipeline = A.Compose([mix], strict=True)
    pipeline(image=SCENES[0], id=own, sgdmix_metadata=pool)
    params = mix.get_applied_params()
    if params:  # albumentationsx records them only where a pipeline asks
        assert params["target"] == [2]
    out = pipeline(image=SCENES[0], id=own, sgdmix_metadata=pool[:1])
    assert np.array_equal(out["image"], SCENES[0])
    assert mix.guard_counts["duplicate"] == 1


def test_views_in_a_batch_and_another_key():
    images = np.stack([SCENES[0], SCENES[0][:, ::-1], SCENES[1]])
    mix = SGDMix("spectral_residual", p=1, id_key="file")
    free = A.ReplayCompose([mix])(images=images)["replay"]["transforms"][0]["params"]
    out = A.ReplayCompose([mix])(images=images, file=["x", "x", "y"])
    params = out["replay"]["transforms"][0]["params"]
    free, params = free.get("params", free), params.get("params", params)
    assert params["target"][:2] == [2, 2]
    assert free["target"][2] == params["target"][2]


def test_images_that_say_nothing_are_samples_of_their_own():
    images = np.stack(SCENES[:3])
    mix = SGDMix("spectral_residual", p=1)
    assert (mix(images=images, id=[None, None, None])["images"] != images).any((1, 2, 3)).all()


def test_ids_nobody_can_compare_are_refused():
    pool = donors(SCENES[1], id=[1])
    mix = SGDMix("spectral_residual", p=1)
    with pytest.raises(InvalidInputError, match="expected id to name the sample.*got list.*id_key="):
        mix(image=SCENES[0], id=0, sgdmix_metadata=pool)
    with pytest.raises(InvalidInputError, match="expected id to hold one for each of 2 images"):
        mix(images=np.stack(SCENES[:2]), id=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of nested tensors as such
        nested = torch.nested.nested_tensor([torch.rand(2), torch.rand(3)])
    with pytest.raises(InvalidInputError, match="to hold one for each of 2 images"):
        mix(images=np.stack(SCENES[:2]), id=nested)
    assert not np.array_equal(
        SGDMix("spectral_residual", id_key=None, p=1)(image=SCENES[0], id=[0], sgdmix_metadata=pool)["image"], SCENES[0]
    )


def test_what_changes_nothing_is_not_called_applied():
    """The donor differs only where the source is kept."""
    plain = np.full((SIDE, SIDE, 3), 30, np.uint8)
    one, other = plain.copy(), plain.copy()
    one[10:20, 10:20], other[12:18, 12:18] = 250, 240
    mix = SGDMix(lambda images: (images.mean(1) > 0.5).float(), mask="otsu", p=1)
    out = mix(image=one, sgdmix_metadata=donors(other))
    assert np.array_equal(out["image"], one)
    assert mix.guard_counts["duplicate"] == 1


# Donors set once


def test_donors_are_looked_at_once(counting):
    mix = A.Compose([SGDMix("counting", mask="otsu", p=1)])
    pool = donors(*SCENES[1:])
    mixes = [mix(image=SCENES[0], sgdmix_metadata=pool)["image"] for _ in range(4)]
    assert counting.seen == len(SCENES) + 3, "the image itself is looked at in each call"
    fresh = A.Compose([SGDMix("counting", mask="otsu", p=1, remember=0)])
    counting.seen = 0
    for mixed in mixes:
        assert np.array_equal(fresh(image=SCENES[0], sgdmix_metadata=pool)["image"], mixed)
    assert counting.seen == 4 * len(SCENES)


@pytest.mark.parametrize("saliency", ["spectral_residual", "manifold_ranking"])
@pytest.mark.parametrize("mask", ["otsu", "guided"])
def test_remembered_donors_give_the_same_mixes(saliency, mask):
    pool = donors(*[scene(number, side=60) for number in range(10, 16)])
    one, other = SGDMix(saliency, mask=mask, p=1), SGDMix(saliency, mask=mask, p=1, remember=0)
    for source in (*SCENES, *SCENES):
        with_memory, without = (mix(image=source, sgdmix_metadata=pool)["image"] for mix in (one, other))
        assert np.array_equal(with_memory, without)


def test_memory_that_is_used_again_is_not_mistaken(counting):
    """New pixels in the array of an old donor, in place or at the address of a dead one, are looked at anew."""
    mix = SGDMix("counting", mask="otsu", p=1)
    buffer = SCENES[1].copy()
    fresh = SGDMix("counting", mask="otsu", p=1, remember=0)
    for image in (*SCENES[2:], *SCENES[2:]):
        buffer[:] = image
        pool = donors(buffer, SCENES[1])
        assert np.array_equal(
            mix(image=SCENES[0], sgdmix_metadata=pool)["image"], fresh(image=SCENES[0], sgdmix_metadata=pool)["image"]
        )
    for image in SCENES[2:]:
        pool = donors(image + np.uint8(1))  # a temporary array, freed after the call
        expected = fresh(image=SCENES[0], sgdmix_metadata=pool)["image"]
        assert np.array_equal(mix(image=SCENES[0], sgdmix_metadata=donors(image + np.uint8(1)))["image"], expected)


def test_donors_read_anew_are_known_again(counting):
    mix = SGDMix("counting", p=1)
    for _ in range(3):
        mix(image=SCENES[0], sgdmix_metadata=donors(*(image.copy(order="F") for image in SCENES[1:])))
    assert counting.seen == len(SCENES) + 2


def test_memory_is_bounded_and_the_latest_stay(counting):
    mix = SGDMix("counting", p=1, remember=2)
    for image in SCENES[1:4]:
        mix(image=SCENES[0], sgdmix_metadata=donors(image))
    counting.seen = 0
    for image in SCENES[2:4]:
        mix(image=SCENES[0], sgdmix_metadata=donors(image))
    assert counting.seen == 2, "the last two are known, the source is looked at"
    mix(image=SCENES[0], sgdmix_metadata=donors(SCENES[1]))
    assert counting.seen == 4


def test_another_size_of_the_image_is_another_description(counting):
    mix = SGDMix("counting", mask="otsu", p=1)
    pool = donors(*SCENES[1:])
    for side in (SIDE, 32, SIDE):
        source = scene(0, side)
        fresh = SGDMix("counting", mask="otsu", p=1, remember=0)
        assert np.array_equal(
            mix(image=source, sgdmix_metadata=pool)["image"], fresh(image=source, sgdmix_metadata=pool)["image"]
        )


def test_maps_that_travel_with_donors_are_part_of_what_is_remembered():
    source = {"image": SCENES[0], "mask": np.zeros((SIDE, SIDE), np.float32)}
    source["mask"][:20, :20] = 1
    mix = SGDMix("given", saliency_key="mask", mask="otsu", fill="source", p=1)
    maps = np.zeros((2, SIDE, SIDE), np.float32)
    maps[0, :10, :10], maps[1, -10:, -10:] = 1, 1
    for own in (maps[0], maps[1], maps[0]):
        out = mix(**source, sgdmix_metadata=[{"image": SCENES[1], "mask": own}])
        kept = (source["mask"] > 0) | (own > 0)
        assert np.array_equal(out["image"], np.where(kept[..., None], SCENES[0], SCENES[1]))


def test_functions_are_asked_once_about_a_donor():
    asked = []

    def bright(images: torch.Tensor) -> torch.Tensor:
        asked.append(len(images))
        return images.mean(1)

    for remember, expected in ((None, [6, 1]), (10, [6, 1]), (0, [6, 6])):
        asked.clear()
        mix = SGDMix(bright, p=1, remember=remember)
        for _ in range(2):
            mix(image=SCENES[0], sgdmix_metadata=donors(*SCENES[1:]))
        assert asked == expected


class Looking(torch.nn.Module):
    """A network that counts what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weigh = torch.nn.Conv2d(3, 1, 1)
        self.asked: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.asked.append(len(images))
        return self.weigh(images)


@pytest.mark.parametrize(
    "through", [lambda net: net, lambda net: lambda images: net(images)[:, 0], lambda net: get_backend(net)]
)
def test_what_a_network_saw_holds_while_its_weights_do(through):
    net, pool = Looking(), donors(*SCENES[1:])
    mix = SGDMix(through(net), mask="otsu", p=1)
    for _ in range(2):
        mix(image=SCENES[0], sgdmix_metadata=pool)
    assert net.asked == [6, 6], "by default nothing is remembered"
    net.asked.clear()
    mix = SGDMix(through(net), mask="otsu", p=1, remember=10)
    for _ in range(2):
        mix(image=SCENES[0], sgdmix_metadata=pool)
    net.weigh.weight.data.mul_(-1)  # behind autograd's back
    for _ in range(2):
        mix(image=SCENES[0], sgdmix_metadata=pool)
    assert net.asked == [6, 1, 6, 1]


def test_floats_whose_range_had_to_be_recognised_are_not_remembered(counting):
    """One image out of [0, 1] can change how the whole call is read."""
    plain = [image.astype(np.float32) / 255 for image in SCENES]
    normalised = [(image - 0.45) / 0.22 for image in plain]
    for images, options, looked in (
        (plain, {}, 7),
        (normalised, {}, 12),
        (normalised, {"mean": (0.45,) * 3, "std": (0.22,) * 3}, 7),
    ):
        counting.seen = 0
        mix = SGDMix("counting", p=1, **options)
        for _ in range(2):
            mix(image=images[0], sgdmix_metadata=donors(*images[1:]))
        assert counting.seen == looked


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda mix: pickle.loads(pickle.dumps(mix))])
def test_copies_begin_with_nothing_remembered(twin, counting):
    mix = SGDMix("counting", p=1)
    mix(image=SCENES[0], sgdmix_metadata=donors(*SCENES[1:]))
    other = twin(mix)
    counting.seen = 0
    other(image=SCENES[0], sgdmix_metadata=donors(*SCENES[1:]))
    assert counting.seen == len(SCENES)
    other(image=SCENES[0], sgdmix_metadata=donors(*SCENES[1:]))
    assert counting.seen == len(SCENES) + 1
