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
    for maps, bytes_ in [
        (floats > 0.5, torch.where(floats > 0.5, 255, 0).to(torch.uint8)),
        ((floats * 255).to(torch.uint8), (floats * 255).to(torch.uint8)),
    ]:
        out = given_maps(maps, (2, 3, 10, 8))
        assert out.dtype == torch.uint8
        assert torch.equal(out, bytes_.reshape(2, 5, 4))


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


# Class ids


def regions(*values: int, side: int = 64) -> Tensor:
    """A label map: one flat region for each value."""
    ids = torch.full((side, side), values[0], dtype=torch.uint8)
    for k, value in enumerate(values[1:]):
        row, column = 12 * (k % 5), 12 * (k // 5)
        ids[row : row + 10, column : column + 10] = value
    return ids


@pytest.mark.parametrize(
    "values",
    [
        (2, 3, 1),  # a trimap of the Oxford pets
        (0, 1),
        (0, 1, 255),
        (0, 15, 255, 7),  # PASCAL VOC
        tuple(range(21)),
        (3, 12, 17, 120),  # ADE20K
        (0, 91, 182, 113),  # COCO-Stuff
        (1, 1),
    ],
)
def test_class_ids_are_refused_with_the_remedy(values: tuple[int, ...]) -> None:
    maps = torch.stack([regions(*values), regions(*values).flip(1)])
    with pytest.raises(InvalidInputError, match=r"look like class ids.*bool mask \(mask == its class\)"):
        given_maps(maps, (2, 3, 64, 64))
    chosen = maps == values[-1]
    assert torch.equal(given_maps(chosen, (2, 3, 64, 64)), chosen * torch.tensor(255, dtype=torch.uint8))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16])
def test_other_integers_are_refused_with_the_remedy(dtype: torch.dtype) -> None:
    with pytest.raises(InvalidInputError, match=r"got torch.int.*bool mask"):
        given_maps(regions(0, 1, 2)[None].to(dtype), (1, 3, 64, 64))


@pytest.mark.parametrize(
    "values",
    [(0, 255), (255,), (0,), (0, 128, 255), (0, 51, 102, 204), (0, 64, 128, 191, 255), (0, 85, 170), (0, 128)],
)
def test_masks_and_levels_stay(values: tuple[int, ...]) -> None:
    maps = regions(*values)[None]
    assert torch.equal(given_maps(maps, (1, 3, 64, 64)), maps)


def test_soft_maps_stay_and_dark_ones_beside_bright_ones() -> None:
    bright = (blob() * 255).to(torch.uint8)
    dark = bright // 20
    maps = torch.stack([bright, dark])
    assert torch.equal(given_maps(maps, (2, 3, 40, 48)), maps)
    with pytest.raises(InvalidInputError, match="look like class ids"):
        given_maps(dark[None], (1, 3, 40, 48))


@pytest.mark.parametrize("values", [[1, 2, 3], [0, 1], [0, 1, 255], [0, 7, 20, 255]])
def test_label_maps_are_no_saliency(values: list[int]) -> None:
    maps = torch.tensor(values, dtype=torch.uint8)[torch.randint(len(values), (2, 8, 8))]
    maps[0, 0, : len(values)] = torch.tensor(values, dtype=torch.uint8)
    with pytest.raises(InvalidInputError, match="class ids.*mask == its class"):
        given_maps(maps, (2, 3, 8, 8))


@pytest.mark.parametrize("values", [[0, 255], [0], [255], [0, 51, 255], [0, 60, 120]])
def test_masks_and_maps_of_eight_bits_stay(values: list[int]) -> None:
    maps = torch.tensor(values, dtype=torch.uint8)[torch.randint(len(values), (2, 8, 8))]
    assert torch.equal(given_maps(maps, (2, 3, 8, 8)), maps)
    torch.testing.assert_close(given_maps((maps > 100).float(), (2, 3, 8, 8)), (maps > 100).float())
