"""The Albumentations face inside A.Compose: geometry before it, replay, storage, seeds, loader workers."""

from __future__ import annotations

import json
import pickle
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import sgdmix_albu
from sgdmix_albu.albumentations import SGDMix
from sgdmix_albu.errors import InvalidInputError, InvalidTypeError

H, W, DONORS = 32, 40, 12


def test_the_other_face_says_so() -> None:
    """Both are called SGDMix, and are told apart by the error, wherever one stands in the other's place."""
    with pytest.raises(AttributeError, match=r"inside A\.Compose use sgdmix_albu\.albumentations\.SGDMix"):
        A.Compose([sgdmix_albu.SGDMix()])
    assert not hasattr(sgdmix_albu.SGDMix(), "no_such_name")
    with pytest.raises(InvalidTypeError, match=r"for batches of tensors use sgdmix_albu\.SGDMix"):
        SGDMix()(torch.rand(2, 3, 8, 8), torch.arange(2))


def donors(n: int = DONORS, **more: Any) -> list[dict[str, Any]]:
    """Pictures with an object each; donor k is k + 1 everywhere else, so that a mix shows where it came from."""
    rows = []
    for k in range(n):
        image = np.full((H, W, 3), k + 1, np.uint8)
        image[8:16, 8 + k : 18 + k] = 200
        rows.append({"image": image, **more})
    return rows


def source() -> np.ndarray:
    image = np.zeros((H, W, 3), np.uint8)
    image[10:20, 12:24] = 255
    return image


def bright(images: torch.Tensor) -> torch.Tensor:
    return (images.mean(1) > 0.5).float()


def came_from(mixed: np.ndarray) -> int:
    """Which donor the background is of; 0 for an unmixed image."""
    return int(mixed[-1, -1, 0])


def test_strict_compose_knows_the_keys():
    pipeline = A.Compose([A.HorizontalFlip(p=0.5), A.OneOf([SGDMix(p=1)], p=1)], strict=True, seed=0)
    out = pipeline(image=source(), label=3, sgdmix_metadata=donors())
    assert out["label"] == 3
    assert came_from(out["image"]) > 0
    with pytest.raises(ValueError, match="Key other_metadata is not in available keys"):
        pipeline(image=source(), other_metadata=donors())
    A.Compose([SGDMix(metadata_key="other_metadata", label_key="kind")], strict=True)(
        image=source(), kind=3, other_metadata=donors()
    )


def test_saliency_follows_the_image_through_geometry():
    """Where the map is, the source stays: a map that lagged behind would keep the wrong pixels."""
    image, saliency = source(), np.zeros((H, W), np.float32)
    saliency[10:20, 12:24] = 1
    nowhere = np.zeros((24, 24), np.float32)
    nowhere[0, 0] = 1
    donor = {"image": np.full((24, 24, 3), 9, np.uint8), "saliency": nowhere}
    pipeline = A.Compose(
        [
            A.RandomCrop(24, 24),
            A.HorizontalFlip(p=0.5),
            A.RandomRotate90(p=0.5),
            SGDMix("given", mask="otsu", feather=0, p=1),
        ],
        additional_targets={"saliency": "mask"},
        seed=1,
    )
    for _ in range(10):
        out = pipeline(image=image, mask=saliency, saliency=saliency, sgdmix_metadata=[donor | {"mask": nowhere}])
        kept = out["saliency"] > 0
        assert (out["image"][kept] == 255).all()
        kept[0, 0] = True
        assert (out["image"][~kept] == 9).all()


@pytest.mark.parametrize("fill", ["source", "inpaint"])
@pytest.mark.parametrize("saliency", ["spectral_residual", bright])
def test_replay_gives_the_same_pixels_without_the_donors(saliency, fill):
    pipeline = A.ReplayCompose([A.HorizontalFlip(p=0.5), SGDMix(saliency, candidates=4, fill=fill, p=0.7)])
    seen = set()
    for _ in range(20):
        out = pipeline(image=source(), mask=source()[..., 0], sgdmix_metadata=donors(mask=np.full((H, W), 7, np.uint8)))
        seen.add(came_from(out["image"]))
        stored = pickle.loads(pickle.dumps(out["replay"]))
        again = A.ReplayCompose.replay(stored, image=source(), mask=source()[..., 0])
        assert np.array_equal(again["image"], out["image"])
        assert np.array_equal(again["mask"], out["mask"])
    assert len(seen) > 2


def test_replay_of_a_batch_and_of_what_was_not_there():
    batch = np.stack([row["image"] for row in donors(4)])
    pipeline = A.ReplayCompose([SGDMix(bright, p=1)])
    out = pipeline(images=batch)
    assert np.array_equal(A.ReplayCompose.replay(out["replay"], images=batch)["images"], out["images"])
    with pytest.raises(InvalidInputError, match="for 4 pictures, got 3"):
        A.ReplayCompose.replay(out["replay"], images=batch[:3])
    with pytest.raises(InvalidInputError, match="decided without masks"):
        A.ReplayCompose.replay(out["replay"], images=batch, masks=batch[..., 0])
    with pytest.raises(InvalidInputError, match="decided for pictures of 32 x 40, got 30 x 40"):
        A.ReplayCompose.replay(out["replay"], images=batch[:, 2:])


def test_applied_params_are_recorded():
    transform = SGDMix(bright, p=1)
    transform(image=source(), sgdmix_metadata=donors(3))
    applied = transform.get_applied_params()
    params = applied.get("params", applied)  # albumentationsx wraps them
    assert params["union"].shape == (1, H, W)
    assert params["target"][0] in {1, 2, 3}
    assert params["distance"][0] > 0
    assert params["kept"][0] == pytest.approx(params["union"].mean())
    plain = {key: params[key] for key in ("batched", "seed", "target", "distance", "kept", "guards")}
    assert json.loads(json.dumps(plain)) == plain


def test_settings_survive_storage():
    settings = {
        "saliency": "spectral_residual",
        "candidates": 7,
        "mask": "otsu",
        "max_coverage": 0.8,
        "target_class": "different",
        "feather": 2,
        "exclude_duplicates": True,
        "metadata_key": "others",
        "saliency_key": "map",
        "fill": "inpaint",
        "label_key": None,
        "p": 0.25,
    }
    stored = json.loads(json.dumps(A.to_dict(A.Compose([SGDMix(**settings)]))))
    assert stored["transform"]["transforms"][0]["__class_fullname__"] == "sgdmix_albu.albumentations.SGDMix"
    (restored,) = A.from_dict(stored).transforms
    assert type(restored) is SGDMix
    assert {name: getattr(restored, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"saliency": bright}, "got saliency of function"),
        ({"mask": lambda maps, images: None}, "got mask of function"),
    ],
)
def test_objects_are_not_stored(settings, said):
    with pytest.raises(InvalidInputError, match=said):
        A.to_dict(A.Compose([SGDMix(**settings)]))


def test_seeds():
    def run(seed: int | None, calls: int = 12) -> list[int]:
        pipeline = A.Compose([SGDMix(bright, candidates=1, p=0.8)], seed=seed)
        return [came_from(pipeline(image=source(), sgdmix_metadata=donors())["image"]) for _ in range(calls)]

    assert run(5) == run(5)
    assert len(set(run(5))) > 3
    assert run(5) != run(6)
    assert run(None) != run(None)
    pipeline = A.Compose([SGDMix(bright, candidates=1, p=0.8)])
    pipeline.set_random_seed(5)
    assert [came_from(pipeline(image=source(), sgdmix_metadata=donors())["image"]) for _ in range(12)] == run(5)


def test_global_generators_are_left_alone():
    state = torch.get_rng_state()
    SGDMix(bright, p=1)(image=source(), sgdmix_metadata=donors())
    assert torch.equal(torch.get_rng_state(), state)


class Mixes(Dataset[tuple[int, int]]):
    """Item i: the worker that served it, and the donor of a fresh mix."""

    def __init__(self, seed: int | None) -> None:
        self.pipeline = A.Compose([SGDMix(bright, candidates=1, p=0.8)], seed=seed)
        self.donors = donors()

    def __len__(self) -> int:
        return 16

    def __getitem__(self, i: int) -> tuple[int, int]:
        worker = torch.utils.data.get_worker_info()
        mixed = self.pipeline(image=source(), sgdmix_metadata=self.donors)["image"]
        return worker.id, came_from(mixed)


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("persistent", [False, True])
def test_workers_and_epochs_differ_and_runs_repeat(seed, persistent):
    def run() -> list[list[int]]:
        torch.manual_seed(3)
        loader = DataLoader(Mixes(seed), batch_size=None, num_workers=2, persistent_workers=persistent)
        streams = []
        for _ in range(2):
            served = list(loader)
            streams += [[donor for worker, donor in served if worker == k] for k in (0, 1)]
        return streams

    streams = run()
    assert len({tuple(stream) for stream in streams}) == 4
    follows_torch = seed is not None or hasattr(A, "SampledParams")  # albumentationsx seeds workers by torch
    assert (run() == streams) == follows_torch


def test_pickled_transform_mixes_alike():
    transform = SGDMix("spectral_residual", candidates=3, p=1)
    transform.set_random_seed(11)
    twin = pickle.loads(pickle.dumps(transform))
    for _ in range(3):
        one, two = (t(image=source(), sgdmix_metadata=donors())["image"] for t in (transform, twin))
        assert np.array_equal(one, two)
