"""Maps and masks of a whole set: exact masks, one result for any batch and any number of threads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expand_helpers import bright, brightness, photograph, write_tree
from PIL import Image
from torch import Tensor

from sgdmix_albu.bank import descriptors as describing
from sgdmix_albu.bank.descriptors import Descriptors, describe_items
from sgdmix_albu.bank.map_source import MapSource
from sgdmix_albu.datasets.source import Item, open_source
from sgdmix_albu.errors import DataError, SGDMixError
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.masks import get_mask
from sgdmix_albu.saliency import get_backend


def items(folder: Path, arrays: list[np.ndarray]) -> list[Item]:
    for number, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{number}.png")
    return [Item(f"{number}.png", "c", 0, Storage(folder)) for number in range(len(arrays))]


def by(function: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """A function of images and labels as a source of maps."""
    return lambda images, labels, digests: function(images, labels)


def same(a: Descriptors, b: Descriptors) -> bool:
    return (
        [item.key for item in a.items] == [item.key for item in b.items]
        and all(
            np.array_equal(getattr(a, name), getattr(b, name))
            for name in ("maps", "grid_masks", "thresholds", "flat", "empty")
        )
        and (a.packed, a.sizes, a.digests) == (b.packed, b.sizes, b.digests)
    )


def test_masks_come_back_exactly(tmp_path: Path) -> None:
    arrays = [photograph(seed, size) for seed, size in enumerate([(40, 48), (33, 7), (130, 65)])]
    found, skipped = describe_items(items(tmp_path, arrays), by(brightness), bright)
    assert skipped == []
    for row, array in enumerate(arrays):
        assert np.array_equal(found.mask(row).numpy(), array.astype(np.float32).mean(2) / 255 > 0.5)
        assert found.digests[row] == hashlib.sha256((tmp_path / f"{row}.png").read_bytes()).digest()


def test_the_grid_is_an_area_average(tmp_path: Path) -> None:
    array = photograph(1, (128, 192))
    found, _ = describe_items(items(tmp_path, [array]), by(brightness), bright)
    values = array.astype(np.float64).mean(2) / 255
    # describe() averages 3 x 3 first (192 pixels to 64), then the grid stretches the shorter side: compare on
    # an image whose sides are whole multiples of the grid.
    assert found.maps.shape == (1, 64, 64)
    assert abs(found.maps.mean() / 255 - values.mean()) < 0.01
    assert abs(np.unpackbits(found.grid_masks).mean() - (values > 0.5).mean()) < 0.01


def test_flat_and_empty(tmp_path: Path) -> None:
    flat = np.full((20, 20, 3), 90, np.uint8)
    speck = np.full((200, 200, 3), 90, np.uint8)
    speck[5, 5] = 255  # too small for the grid, but not empty
    found, _ = describe_items(items(tmp_path, [flat, photograph(0), speck]), by(brightness), bright)
    assert found.flat.tolist() == [True, False, False]
    assert found.empty.tolist() == [True, False, False]


@pytest.mark.parametrize(("batch", "pixels", "jobs"), [(1, 10**9, 1), (5, 10**9, 3), (32, 10_000, 2)])
def test_one_result_for_any_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, pixels: int, jobs: int
) -> None:
    listed = open_source(write_tree(tmp_path)).items
    maps_of, preset = MapSource(get_backend("spectral_residual")), get_mask("otsu")
    expected, _ = describe_items(listed, maps_of, preset)
    monkeypatch.setattr(describing, "_BATCH", batch)
    monkeypatch.setattr(describing, "_BATCH_PIXELS", pixels)
    found, _ = describe_items(listed, maps_of, preset, jobs=jobs)
    assert same(found, expected)


def test_unreadable_images_are_listed(tmp_path: Path) -> None:
    listed = items(tmp_path, [photograph(0), photograph(1), photograph(2)])
    (tmp_path / "1.png").write_bytes(b"")
    found, skipped = describe_items(listed, by(brightness), bright, jobs=2)
    assert [item.key for item in found.items] == ["0.png", "2.png"]
    assert [one.key for one in skipped] == ["1.png"]
    assert "is empty" in skipped[0].reason


def test_an_image_that_the_backend_refuses_does_not_take_others_with_it(tmp_path: Path) -> None:
    def squeamish(images: Tensor, labels: Tensor) -> Tensor:
        if bool((images.flatten(1).amax(1) == 255).any()):
            raise SGDMixError("too bright")
        return brightness(images)

    arrays = [np.minimum(photograph(seed), 254) for seed in range(4)]
    arrays[2][0, 0] = 255
    found, skipped = describe_items(items(tmp_path, arrays), by(squeamish), bright)
    assert [item.key for item in found.items] == ["0.png", "1.png", "3.png"]
    assert [str(one) for one in skipped] == ["2.png: too bright"]


def test_a_backend_that_refuses_everything_ends_the_run(tmp_path: Path) -> None:
    def broken(images: Tensor, labels: Tensor) -> Tensor:
        raise SGDMixError("no such layer")

    with pytest.raises(SGDMixError, match="no such layer"):
        describe_items(items(tmp_path, [photograph(0), photograph(1)]), by(broken), bright)


def test_nothing_readable(tmp_path: Path) -> None:
    listed = items(tmp_path, [photograph(0)])
    (tmp_path / "0.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"none of 1 images can be used; the first, 0\.png"):
        describe_items(listed, by(brightness), bright)


def test_labels_reach_the_backend(tmp_path: Path) -> None:
    seen: list[int] = []

    def maps(images: Tensor, labels: Tensor) -> Tensor:
        seen.extend(labels.tolist())
        return brightness(images)

    describe_items(open_source(write_tree(tmp_path, classes=3, images=2)).items, by(maps), bright)
    assert sorted(seen) == [0, 0, 1, 1, 2, 2]
