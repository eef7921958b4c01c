"""What every mask preset keeps to, whatever it is registered as."""

from __future__ import annotations

import pytest
import torch

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.masks import get_mask, list_masks

pytestmark = pytest.mark.parametrize("name", list_masks())


def discs(count: int, size: tuple[int, int] = (40, 56)) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps of discs in different places, and pictures of them: bright on a dark, uneven ground."""
    generator = torch.Generator().manual_seed(count)
    rows, columns = torch.meshgrid(*(torch.arange(length) for length in size), indexing="ij")
    centres = torch.tensor([12, 14]) + torch.randint(0, 16, (count, 2), generator=generator)
    away = ((rows - centres[:, 0, None, None]) ** 2 + (columns - centres[:, 1, None, None]) ** 2).sqrt()
    maps = (1 - away / 9).clamp(0, 1)
    ground = torch.randint(0, 60, (count, 3, *size), generator=generator)
    return maps, (ground + 180 * (away < 9)[:, None]).byte()


def test_a_mask_of_the_images_size_for_each_and_a_threshold(name: str) -> None:
    maps, images = discs(4)
    found = get_mask(name)(maps, images)
    assert (found.masks.shape, found.masks.dtype) == ((4, 40, 56), torch.bool)
    assert (found.thresholds.shape, found.thresholds.dtype) == ((4,), torch.float32)
    assert ((found.thresholds >= 0) & (found.thresholds <= 1)).all()
    held = (found.masks & (maps > 0.5)).sum((1, 2)) / (maps > 0.5).sum((1, 2))
    assert (held > 0.9).all()  # the middle of the disc
    assert not found.masks[maps == 0].float().mean() > 0.2


def test_coarse_maps(name: str) -> None:
    maps, images = discs(3)
    coarse = torch.nn.functional.adaptive_avg_pool2d(maps[:, None], (20, 28))[:, 0]
    assert get_mask(name)(coarse, images).masks.shape == (3, 40, 56)


def test_an_images_mask_does_not_depend_on_its_batch(name: str) -> None:
    maps, images = discs(5)
    together = get_mask(name)(maps, images)
    for row in range(5):
        alone = get_mask(name)(maps[row : row + 1], images[row : row + 1])
        assert torch.equal(alone.masks[0], together.masks[row])


def test_float_pictures_are_bytes_by_another_name(name: str) -> None:
    maps, images = discs(3)
    assert torch.equal(get_mask(name)(maps, images).masks, get_mask(name)(maps, images.float() / 255).masks)


def test_a_flat_map_says_nothing(name: str) -> None:
    _, images = discs(2)
    assert not get_mask(name)(torch.full((2, 40, 56), 0.4), images).masks.any()


def test_nothing_comes_of_nothing_and_nothing_is_changed(name: str) -> None:
    maps, images = discs(2)
    before = maps.clone(), images.clone()
    get_mask(name)(maps, images)
    assert torch.equal(maps, before[0])
    assert torch.equal(images, before[1])
    assert get_mask(name)(maps[:0], images[:0]).masks.shape == (0, 40, 56)


def test_maps_that_do_not_fit_are_refused(name: str) -> None:
    maps, images = discs(2)
    with pytest.raises(InvalidInputError):
        get_mask(name)(maps[:1], images)
    with pytest.raises(InvalidInputError):
        get_mask(name)(maps[0], images)
