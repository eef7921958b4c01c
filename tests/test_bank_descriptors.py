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

from sgdmix_albu.bank import describe as describing
from sgdmix_albu.bank.describe import described, read_pixels
from sgdmix_albu.bank.descriptors import check_some_usable
from sgdmix_albu.bank.map_source import MapSource
from sgdmix_albu.bank.parts import Entry, Parts
from sgdmix_albu.datasets.source import Item, Skipped, open_source
from sgdmix_albu.errors import DataError, SGDMixError
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.io.threads import ordered_map
from sgdmix_albu.masks import get_mask
from sgdmix_albu.saliency import get_backend


def items(folder: Path, arrays: list[np.ndarray]) -> list[Item]:
    for number, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{number}.png")
    return [Item(f"{number}.png", "c", 0, Storage(folder)) for number in range(len(arrays))]


def by(function: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """A function of images and labels as a source of maps."""
    return lambda images, labels, digests: function(images, labels)


def describe(listed: list[Item], maps_of: Any, preset: Any, jobs: int = 1) -> tuple[list[Entry], list[Skipped]]:
    """What a bank keeps of images, and those that it cannot use."""
    skipped: list[Skipped] = []
    reading = ordered_map(lambda item: read_pixels(item, None), listed, jobs)
    return list(described(reading, maps_of, preset, skipped, hopeless=1)), skipped


def same(a: list[Entry], b: list[Entry]) -> bool:
    def plain(one: Entry) -> dict[str, Any]:
        return {**one._asdict(), "map": one.map.tolist(), "row": one.row.tobytes()}

    return list(map(plain, a)) == list(map(plain, b))


def test_masks_come_back_exactly(tmp_path: Path) -> None:
    arrays = [photograph(seed, size) for seed, size in enumerate([(40, 48), (33, 7), (130, 65)])]
    found, skipped = describe(items(tmp_path, arrays), by(brightness), bright)
    assert skipped == []
    parts = Parts(Storage(tmp_path / "bank"), "", masks=True)
    parts.write(0, found, range(3))
    for row, array in enumerate(arrays):
        assert np.array_equal(parts.mask(0, row).numpy(), array.astype(np.float32).mean(2) / 255 > 0.5)
        digest = hashlib.sha256((tmp_path / f"{row}.png").read_bytes()).digest()
        assert bytes(parts.read(0).rows["sha256"][row]) == digest
        assert parts.read(0).rows["size"][row].tolist() == list(array.shape[:2])
    read, grid_masks = parts.maps(0)
    assert np.array_equal(read, [one.map for one in found])
    assert [one.tobytes() for one in grid_masks] == [one.grid_mask for one in found]


def test_the_grid_is_an_area_average(tmp_path: Path) -> None:
    array = photograph(1, (128, 192))
    found, _ = describe(items(tmp_path, [array]), by(brightness), bright)
    values = array.astype(np.float64).mean(2) / 255
    # describe() averages 3 x 3 first (192 pixels to 64), then the grid stretches the shorter side: compare on
    # an image whose sides are whole multiples of the grid.
    assert found[0].map.shape == (64, 64)
    assert abs(found[0].map.mean() / 255 - values.mean()) < 0.01
    assert abs(np.unpackbits(np.frombuffer(found[0].grid_mask, np.uint8)).mean() - (values > 0.5).mean()) < 0.01


def test_flat_and_empty(tmp_path: Path) -> None:
    flat = np.full((20, 20, 3), 90, np.uint8)
    speck = np.full((200, 200, 3), 90, np.uint8)
    speck[5, 5] = 255  # too small for the grid, but not empty
    found, _ = describe(items(tmp_path, [flat, photograph(0), speck]), by(brightness), bright)
    assert [bool(one.row["flat"]) for one in found] == [True, False, False]
    assert [bool(one.row["empty"]) for one in found] == [True, False, False]


@pytest.mark.parametrize(("batch", "pixels", "jobs"), [(1, 10**9, 1), (5, 10**9, 3), (32, 10_000, 2)])
def test_one_result_for_any_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, pixels: int, jobs: int
) -> None:
    listed = open_source(write_tree(tmp_path)).items
    maps_of, preset = MapSource(get_backend("spectral_residual")), get_mask("otsu")
    expected, _ = describe(listed, maps_of, preset)
    monkeypatch.setattr(describing, "_BATCH", batch)
    monkeypatch.setattr(describing, "_BATCH_PIXELS", pixels)
    found, _ = describe(listed, maps_of, preset, jobs=jobs)
    assert same(found, expected)


def test_unreadable_images_are_listed(tmp_path: Path) -> None:
    listed = items(tmp_path, [photograph(0), photograph(1), photograph(2)])
    (tmp_path / "1.png").write_bytes(b"")
    found, skipped = describe(listed, by(brightness), bright, jobs=2)
    assert [one.key for one in found] == ["0.png", "2.png"]
    assert [one.key for one in skipped] == ["1.png"]
    assert "is empty" in skipped[0].reason


def test_an_image_that_the_backend_refuses_does_not_take_others_with_it(tmp_path: Path) -> None:
    def squeamish(images: Tensor, labels: Tensor) -> Tensor:
        if bool((images.flatten(1).amax(1) == 255).any()):
            raise SGDMixError("too bright")
        return brightness(images)

    arrays = [np.minimum(photograph(seed), 254) for seed in range(4)]
    arrays[2][0, 0] = 255
    found, skipped = describe(items(tmp_path, arrays), by(squeamish), bright)
    assert [one.key for one in found] == ["0.png", "1.png", "3.png"]
    assert [str(one) for one in skipped] == ["2.png: too bright"]


def test_a_backend_that_refuses_everything_ends_the_run(tmp_path: Path) -> None:
    def broken(images: Tensor, labels: Tensor) -> Tensor:
        raise SGDMixError("no such layer")

    with pytest.raises(SGDMixError, match="no such layer"):
        describe(items(tmp_path, [photograph(0), photograph(1)]), by(broken), bright)


def test_nothing_readable(tmp_path: Path) -> None:
    listed = items(tmp_path, [photograph(0)])
    (tmp_path / "0.png").write_bytes(b"x")
    found, skipped = describe(listed, by(brightness), bright)
    with pytest.raises(DataError, match=r"none of 1 images can be used; the first, 0\.png"):
        check_some_usable(len(found), 1, skipped)


def test_labels_reach_the_backend(tmp_path: Path) -> None:
    seen: list[int] = []

    def maps(images: Tensor, labels: Tensor) -> Tensor:
        seen.extend(labels.tolist())
        return brightness(images)

    describe(open_source(write_tree(tmp_path, classes=3, images=2)).items, by(maps), bright)
    assert sorted(seen) == [0, 0, 1, 1, 2, 2]
