"""Given saliency: it follows the image through torchvision's geometry and the loader, and is checked, not repaired."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.saliency import SaliencyMap, collate
from sgdmix_albu.saliency.given import given_maps

GEOMETRY = {
    "flip": v2.RandomHorizontalFlip(1.0),
    "vertical flip": v2.RandomVerticalFlip(1.0),
    "crop": v2.RandomCrop(20),
    "centre crop": v2.CenterCrop(20),
    "resized crop": v2.RandomResizedCrop(24, antialias=True),
    "resize": v2.Resize((20, 31), antialias=True),
    "rotate": v2.RandomRotation(25),
    "affine": v2.RandomAffine(20, (0.1, 0.1), (0.8, 1.2), 10),
    "perspective": v2.RandomPerspective(p=1.0),
    "elastic": v2.ElasticTransform(alpha=20.0),
    "pad": v2.Pad(3),
    "zoom out": v2.RandomZoomOut(p=1.0),
    "colour": v2.ColorJitter(0.2, 0.2),
    "float": v2.ToDtype(torch.float32, scale=True),
}


def blob() -> Tensor:
    """(40, 48) float in [0, 1]: off centre, and smooth, so that interpolation changes it little."""
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(48.0), indexing="ij")
    return torch.exp(-((y - 15) ** 2 + (x - 28) ** 2) / 120)


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.bool])
def test_moves_with_the_image_and_keeps_its_type(name: str, dtype: torch.dtype) -> None:
    if dtype == torch.bool and name == "elastic":
        pytest.skip("torchvision has no elastic transform for bool masks")
    plain = blob() if dtype.is_floating_point else (blob() * 255).to(torch.uint8)
    plain = plain > 127 if dtype == torch.bool else plain
    picture = tv_tensors.Image((blob() * 255).to(torch.uint8).expand(3, -1, -1).clone())
    torch.manual_seed(3)
    image, moved = GEOMETRY[name](picture, SaliencyMap(plain))
    assert type(moved) is SaliencyMap
    assert moved.dtype == dtype
    assert moved.shape == image.shape[-2:]
    if name != "colour" and dtype == torch.float32:
        seen = image[0].float() / (255 if image.dtype == torch.uint8 else 1)
        # Nearest against bilinear sampling of the same smooth blob: about half a pixel apart.
        assert (moved.as_subclass(Tensor) - seen.as_subclass(Tensor)).abs().mean() < 0.03


class Samples(Dataset[Any]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        image = tv_tensors.Image(torch.full((3, 4, 5), index, dtype=torch.uint8))
        return {"image": image, "extra": (SaliencyMap(torch.full((4, 5), index / 4)), index)}


@pytest.mark.parametrize("workers", [0, 1])
def test_collate_keeps_the_type(workers: int) -> None:
    batch = next(iter(DataLoader(Samples(), 4, collate_fn=collate, num_workers=workers)))
    maps, labels = batch["extra"]
    assert type(batch["image"]) is tv_tensors.Image
    assert type(maps) is SaliencyMap
    assert maps.as_subclass(Tensor)[:, 0, 0].tolist() == [0, 0.25, 0.5, 0.75]
    assert type(labels) is Tensor
    assert labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("shape", [(2, 5, 4), (2, 1, 5, 4)])
def test_values_are_taken_as_they_are(shape: tuple[int, ...]) -> None:
    floats = torch.rand(shape) * 0.6 + 0.2  # not stretched
    for maps in [floats, floats.double(), SaliencyMap(floats)]:
        out = given_maps(maps, (2, 3, 10, 8))
        assert type(out) is Tensor
        assert out.dtype == torch.float32
        assert torch.equal(out, floats.reshape(2, 5, 4))
    assert torch.equal(given_maps(floats > 0.5, (2, 3, 10, 8)), (floats > 0.5).float().reshape(2, 5, 4))
    bytes_ = (floats * 255).to(torch.uint8)
    assert torch.equal(given_maps(bytes_, (2, 3, 10, 8)), bytes_.float().reshape(2, 5, 4) / 255)


def test_input_is_not_changed() -> None:
    maps = torch.rand(2, 5, 4)
    before = maps.clone()
    given_maps(maps, (2, 3, 5, 4)).zero_()
    assert torch.equal(maps, before)


def test_empty_batch() -> None:
    assert given_maps(torch.zeros(0, 5, 4), (0, 3, 5, 4)).shape == (0, 5, 4)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (torch.rand(5, 4), r"\(2, h, w\).*got shape \(5, 4\)"),
        (torch.rand(3, 5, 4), r"got shape \(3, 5, 4\)"),
        (torch.rand(2, 3, 5, 4), r"got shape \(2, 3, 5, 4\)"),
        (torch.rand(2, 0, 4), r"got shape \(2, 0, 4\)"),
        (torch.zeros(2, 5, 4, dtype=torch.int64), "bool, uint8 or float, got torch.int64"),
        (torch.full((2, 5, 4), 1.5), r"in \[0, 1\], got values from 1.5 to 1.5"),
        (torch.full((2, 5, 4), -0.01), "from -0.01"),
        (torch.full((2, 5, 4), torch.nan), "nan"),
    ],
)
def test_refused(maps: Tensor, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        given_maps(maps, (2, 3, 5, 4))
