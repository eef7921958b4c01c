"""``WithMaps``: each image comes with its own map, moved with it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from sgdmix_albu import SGDMix
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.saliency import SaliencyBank, SaliencyMap, WithMaps, build_bank, collate

SIDE = 32


def _green(images: torch.Tensor) -> torch.Tensor:
    """What is salient is what is green."""
    return images[:, 1]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of two classes, each with a green square somewhere of its own."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    for key, (top, left) in {"owl/1.png": (0, 0), "owl/2.png": (20, 4), "tit/1.png": (8, 22)}.items():
        pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
        pixels[top : top + 8, left : left + 8, 1] = 255
        pixels[0, 0, 0] = 1 + top  # no two are alike
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / key)
    return folder


@pytest.fixture(scope="module")
def bank(photos: Path) -> SaliencyBank:
    return build_bank(photos, photos.parent / "maps", _green, size=SIDE, progress=False)


def test_each_image_has_its_own_map(photos: Path, bank: SaliencyBank) -> None:
    data = WithMaps(ImageFolder(photos), bank)
    assert len(data) == 3
    assert data.classes == ["owl", "tit"]
    for (image, saliency, label), expected in zip((data[k] for k in range(3)), (0, 0, 1), strict=True):
        assert isinstance(saliency, SaliencyMap)
        assert saliency.dtype == torch.uint8
        assert np.array_equal(saliency.numpy(), np.asarray(image)[..., 1])
        assert label == expected


def test_the_transform_moves_both_alike(photos: Path, bank: SaliencyBank) -> None:
    moves = v2.Compose([v2.ToImage(), v2.RandomCrop(24), v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()])
    data = WithMaps(ImageFolder(photos), bank, moves)
    for _ in range(10):
        image, saliency, _ = data[1]
        assert tuple(saliency.shape) == (24, 24)
        assert torch.equal(saliency.as_subclass(torch.Tensor), image[1].as_subclass(torch.Tensor))


def test_a_coarse_map_is_stretched_over_its_image(photos: Path, tmp_path: Path) -> None:
    bank = build_bank(photos, tmp_path / "maps", _green, size=(SIDE // 4, SIDE // 4), progress=False)
    assert bank.shape == (8, 8)
    image, saliency, _ = WithMaps(ImageFolder(photos), bank)[2]
    assert tuple(saliency.shape) == (SIDE, SIDE)
    plain = bank["tit/1.png"][None, None].float()
    stretched = nn.functional.interpolate(plain, size=image.size[::-1], mode="bilinear")[0, 0]
    assert (saliency.as_subclass(torch.Tensor) - stretched).abs().max() <= 1
    flat = WithMaps([(Image.new("RGB", (48, 20)), 0)], bank, source_keys=["tit/1.png"])
    assert tuple(flat[0][1].shape) == (20, 48)


def test_a_subset_has_its_own_images(photos: Path, bank: SaliencyBank) -> None:
    data = WithMaps(Subset(ImageFolder(photos), [2, 0]), bank.folder)
    assert data.source_keys == ["tit/1.png", "owl/1.png"]
    assert torch.equal(data[0][1].as_subclass(torch.Tensor), bank["tit/1.png"])


def test_through_workers_into_a_mix(photos: Path, bank: SaliencyBank) -> None:
    data = WithMaps(ImageFolder(photos), bank, v2.ToImage())
    pickle.loads(pickle.dumps(data))
    (batch,) = DataLoader(data, batch_size=3, collate_fn=collate, num_workers=1)
    images, maps, labels = SGDMix("given", mask="otsu", fill="source")(*batch)
    assert images.shape == (3, 3, SIDE, SIDE)
    assert isinstance(maps, SaliencyMap)
    assert bool((images[:, 1][batch[0][:, 1] == 255] == 255).all())  # the source's square is where it was
    assert labels.tolist() == [0, 0, 1]


def test_keys_for_a_data_set_that_knows_none(photos: Path, bank: SaliencyBank) -> None:
    pairs = [(Image.new("RGB", (SIDE, SIDE)), 5)]
    _, saliency, label = WithMaps(pairs, bank, source_keys=["owl/2.png"])[0]
    assert torch.equal(saliency.as_subclass(torch.Tensor), bank["owl/2.png"])
    assert label == 5


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (None, "list does not say which file each image is"),
        (["owl/1.png", "owl/2.png"], "expected 1 source_keys, one for each image, got 2"),
    ],
)
def test_keys_that_do_not_fit(bank: SaliencyBank, keys: Any, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        WithMaps([(Image.new("RGB", (SIDE, SIDE)), 5)], bank, source_keys=keys)


def test_a_transform_of_the_images_alone_is_refused(photos: Path, bank: SaliencyBank) -> None:
    with pytest.raises(InvalidInputError, match=r"expected a data set without a transform, .* got RandomCrop"):
        WithMaps(ImageFolder(photos, v2.RandomCrop(8)), bank)


def test_an_image_that_the_bank_lacks_is_told_at_once(photos: Path, bank: SaliencyBank) -> None:
    pair = (Image.new("RGB", (SIDE, SIDE)), 0)
    with pytest.raises(DataError, match=r"3 maps of 32 x 32\) lacks 1 of 2 images, 'owl/9.png' among them"):
        WithMaps([pair, pair], bank, source_keys=["owl/1.png", "owl/9.png"])
