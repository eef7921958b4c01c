"""The images of a set, read, mapped and masked when they are first looked at, and kept from then on."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from sgdmix_albu.bank.describe import Read, described, read_pixels
from sgdmix_albu.bank.descriptors import Descriptors
from sgdmix_albu.bank.map_source import MapSource, open_saliency
from sgdmix_albu.bank.parts import GRID, Entry
from sgdmix_albu.datasets.pixels import Loaded
from sgdmix_albu.datasets.source import Item, Skipped, Source
from sgdmix_albu.errors import DataError
from sgdmix_albu.mixing.masks import MaskPreset, get_mask
from sgdmix_albu.settings import SaliencySettings, Settings
from sgdmix_albu.types import Foreground

K = TypeVar("K")
V = TypeVar("V")

_IMAGES = 1024  # kept as pixels: 150 MB at 224 pixels a side
_FOUND = 8192  # maps or masks kept of one setting


class Album:
    """Images at one size.

    Args:
        source: The set.
        size: Side in pixels that they are brought to.

    Attributes:
        unreadable: Key and reason of each image that was tried and cannot be read.
    """

    def __init__(self, source: Source, size: int) -> None:
        self.source, self.size = source, size
        self.unreadable: dict[str, str] = {}
        self.row_of = {item.key: row for row, item in enumerate(source.items)}
        self._pixels = _Recent[str, Loaded](_IMAGES)
        self._maps: dict[str, KeptMaps] = {}
        self._masks: dict[str, TimedMask] = {}
        self._entries: dict[tuple[str, str], _Recent[str, Entry]] = {}
        self._refused: dict[tuple[str, str], dict[str, str]] = {}

    def unusable(self, settings: Settings) -> dict[str, str]:
        """Key and reason of each image that was tried and cannot be used under these settings."""
        return {**self.unreadable, **self._refused.get(_name(settings), {})}

    def rows(self, settings: Settings) -> np.ndarray:
        """Rows of the source that can be used, as far as is known: what a run draws its candidates from."""
        gone = [self.row_of[key] for key in self.unusable(settings)]
        return np.delete(np.arange(len(self.source.items)), gone)

    def pixels(self, item: Item) -> Loaded:
        """An image.

        Raises:
            DataError: It cannot be read.
        """
        _, found = self._read(item)
        if isinstance(found, str):
            raise DataError(found)
        return found

    def maps(self, saliency: SaliencySettings) -> KeptMaps:
        """A backend's maps; it is opened the first time."""
        if saliency.saliency not in self._maps:
            self._maps[saliency.saliency] = KeptMaps(open_saliency(saliency, self.source.class_names))
        return self._maps[saliency.saliency]

    def entries(self, items: Sequence[Item], settings: Settings) -> dict[str, Entry]:
        """What is known of those images that can be used, by key.

        Raises:
            SGDMixError: None of those that are new can be described: the fault lies with the settings.
        """
        kept = self._entries.setdefault(_name(settings), _Recent(_FOUND))
        refused, skipped = self._refused.setdefault(_name(settings), {}), list[Skipped]()
        new = [item for item in items if item.key not in kept]
        reading = [self._read(item) for item in new]
        mask = self._masks.setdefault(settings.mask, TimedMask(get_mask(settings.mask)))
        for entry in described(reading, self.maps(settings.backend), mask, skipped, hopeless=max(1, len(new))):
            kept[entry.key] = entry
        refused.update((one.key, one.reason) for one in skipped if one.key not in self.unreadable)
        return {item.key: kept[item.key] for item in items if item.key in kept}

    def milliseconds(self, settings: Settings) -> tuple[float | None, float | None]:
        """What the map of one image cost, and its mask."""
        mask = self._masks.get(settings.mask)
        return self.maps(settings.backend).cost.milliseconds, None if mask is None else mask.cost.milliseconds

    def _read(self, item: Item) -> Read:
        if item.key in self._pixels:
            return item, self._pixels[item.key]
        _, found = read_pixels(item, self.size)
        if isinstance(found, str):
            self.unreadable[item.key] = found
        else:
            self._pixels[item.key] = found
        return item, found


@dataclass
class Cost:
    """Seconds, and for how many images."""

    seconds: float = 0.0
    images: int = 0

    @property
    def milliseconds(self) -> float | None:
        """For one image; None before the first."""
        return 1000 * self.seconds / self.images if self.images else None

    def add(self, seconds: float, images: int) -> None:
        """So many more."""
        self.seconds, self.images = self.seconds + seconds, self.images + images


class KeptMaps:
    """A source of maps that keeps what it gave: another mask asks for none again.

    Args:
        source: Gives them.

    Attributes:
        cost: Of those that were made.
    """

    def __init__(self, source: MapSource) -> None:
        self._source, self.cost = source, Cost()
        self._kept = _Recent[tuple[bytes, int], Tensor](_FOUND)

    def __call__(self, images: Tensor, labels: Tensor, digests: Sequence[bytes]) -> Tensor:
        """Coarse maps (B, h, w) of (B, 3, H, W) images; a map may depend on the label."""
        keys = list(zip(digests, labels.tolist(), strict=True))
        new = [row for row, key in enumerate(keys) if key not in self._kept]
        if new:
            if not self.cost.images:  # what is prepared once is not timed
                self._source(images[new[:1]], labels[new[:1]], [digests[new[0]]])
            began = time.perf_counter()
            maps = self._source(images[new], labels[new], [digests[row] for row in new]).cpu()
            self.cost.add(time.perf_counter() - began, len(new))
            for row, found in zip(new, maps, strict=True):
                self._kept[keys[row]] = found
        return torch.stack([self._kept[key] for key in keys])


class TimedMask:
    """A mask preset that knows what it costs."""

    def __init__(self, preset: MaskPreset) -> None:
        self._preset, self.cost = preset, Cost()

    def __call__(self, maps: Tensor, images: Tensor) -> Foreground:
        """As the preset."""
        if not self.cost.images:  # what is prepared once is not timed
            self._preset(maps[:1], images[:1])
        began = time.perf_counter()
        found = self._preset(maps, images)
        self.cost.add(time.perf_counter() - began, len(images))
        return found


def descriptors_of(items: Sequence[Item], entries: Sequence[Entry]) -> Descriptors:
    """What a plan needs to know of images, from what an album knows of them."""
    rows = np.array([entry.row for entry in entries])
    return Descriptors(
        list(items),
        np.stack([entry.map for entry in entries]),
        np.frombuffer(b"".join(entry.grid_mask for entry in entries), np.uint8).reshape(-1, GRID * GRID // 8),
        rows["flat"].astype(bool),
        rows["empty"].astype(bool),
        rows["agreement"],
    )


class _Recent(OrderedDict[K, V], Generic[K, V]):
    """The entries that were used last, at most ``most`` of them."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __getitem__(self, key: K) -> V:
        self.move_to_end(key)
        return super().__getitem__(key)

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        while len(self) > self._most:
            self.popitem(last=False)


def _name(settings: Settings) -> tuple[str, str]:
    return settings.backend.saliency, settings.mask
