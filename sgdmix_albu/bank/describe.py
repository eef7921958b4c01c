"""From images to what a bank keeps of them: their maps, and their masks where those are wanted.

With masks, a map is kept on a 64 x 64 grid at 8 bits and the mask on the same grid at 1 bit, for choosing targets, and
the mask at full resolution, compressed, for mixing: about 5 to 6 KB for a 224 x 224 photograph. Without, a map is kept
as the backend gives it.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sgdmix_albu.bank.parts import GRID, ROW, Entry
from sgdmix_albu.datasets.pixels import Loaded, load_pixels
from sgdmix_albu.datasets.source import Item, Skipped
from sgdmix_albu.errors import DataError, SGDMixError
from sgdmix_albu.mixing.agreement import held_share
from sgdmix_albu.mixing.described import describe
from sgdmix_albu.mixing.masks import MaskPreset

# Images that meet in one call of the saliency backend: few enough that their float copies stay within about 200 MB.
# Fixed where a run depends on it: a network's rounding can depend on the batch, and a run must not depend on its speed.
_BATCH = 32
_BATCH_PIXELS = 16_000_000
HOPELESS = 32  # when none has succeeded and at least so many were refused, the fault lies with the settings

# From (B, 3, H, W) uint8 images, (B,) labels and the SHA-256 of their files: a MapSource, or a reference's masks.
Maps: TypeAlias = Callable[[Tensor, Tensor, Sequence[bytes]], Tensor]
Read: TypeAlias = tuple[Item, Loaded | str]
_Window: TypeAlias = list[tuple[Item, Loaded]]


def read_pixels(item: Item, size: int | None) -> Read:
    """An item with its image, or with the reason why it cannot be read."""
    try:
        return item, load_pixels(item, size)
    except DataError as error:
        return item, str(error)


def described(
    reading: Iterable[Read],
    maps_of: Maps,
    preset: MaskPreset | None,
    skipped: list[Skipped],
    *,
    reference: Maps | None = None,
    batch: int | None = None,
    hopeless: int = HOPELESS,
    refused: list[SGDMixError] | None = None,
) -> Iterator[Entry]:
    """What is to be kept of images as they come, each with its pixels or with the reason why there are none.

    Args:
        reading: The images.
        maps_of: Stage 1: a source of maps.
        preset: Stage 3; None for maps alone.
        skipped: Gets those that cannot be used, and why.
        reference: Gives the masks (B, H, W) that others are compared with; None for nothing.
        batch: Images that meet in one call of ``maps_of``.
        hopeless: When none has succeeded and at least so many failed, the fault lies with the settings, not the images.
        refused: Gets the errors of those that were read and failed; None for nobody.

    Raises:
        SGDMixError: That fault.
    """
    good, refused = 0, [] if refused is None else refused
    for window in _windows(reading, skipped, batch or _BATCH):
        for (item, _), found in zip(window, _of_window(window, maps_of, preset, reference), strict=True):
            if isinstance(found, Entry):
                good += 1
                yield found
            else:
                refused.append(found)
                skipped.append(Skipped(item.key, str(found)))
        if not good and len(refused) >= hopeless:
            raise refused[0]


def _windows(reading: Iterable[Read], skipped: list[Skipped], batch: int) -> Iterator[_Window]:
    """Readable images in groups of bounded size; the others go to ``skipped``."""
    window: _Window = []
    pixels = 0
    for item, image in reading:
        if isinstance(image, str):
            skipped.append(Skipped(item.key, image))
            continue
        area = image.pixels[0].numel()
        if window and (len(window) == batch or pixels + area > _BATCH_PIXELS):
            yield window
            window, pixels = [], 0
        window.append((item, image))
        pixels += area
    if window:
        yield window


def _of_window(
    window: _Window, maps_of: Maps, preset: MaskPreset | None, reference: Maps | None
) -> list[Entry | SGDMixError]:
    """An entry for each image of a window, or what failed: images of one size together, alone where that fails."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, (_, image) in enumerate(window):
        groups.setdefault(tuple(image.pixels.shape), []).append(place)
    found: dict[int, Entry | SGDMixError] = {}
    queue = deque(groups.values())
    while queue:
        places = queue.popleft()
        try:
            entries = _entries([window[place] for place in places], maps_of, preset, reference)
            found.update(zip(places, entries, strict=True))
        except SGDMixError as error:
            if len(places) > 1:
                queue.extend([place] for place in places)
            else:
                found[places[0]] = error
    return [found[place] for place in range(len(window))]


def _entries(group: _Window, maps_of: Maps, preset: MaskPreset | None, reference: Maps | None) -> list[Entry]:
    images = torch.stack([image.pixels for _, image in group])
    labels = torch.tensor([item.label for item, _ in group])
    digests = [image.sha256 for _, image in group]
    rows = np.zeros(len(group), ROW)
    rows["label"], rows["size"], rows["agreement"] = labels.numpy(), images.shape[2:], np.nan
    rows["sha256"] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    maps = maps_of(images, labels, digests)
    if preset is None:
        return [Entry(item.key, row, levels) for (item, _), row, levels in zip(group, rows, _levels(maps), strict=True)]
    found = describe(maps, images, preset)
    rows["threshold"], rows["flat"] = found.thresholds.numpy(), found.flat.numpy()
    rows["empty"] = found.areas.numpy() == 0
    if reference is not None:
        rows["agreement"] = held_share(found.masks, reference(images, labels, digests)).numpy()
    grid_masks = np.packbits((_on_grid(found.masks.float()) > 0.5).flatten(1).numpy(), axis=1)
    packed = [zlib.compress(np.packbits(mask).tobytes(), 1) for mask in found.masks.numpy()]
    kept = zip(group, rows, _levels(_on_grid(found.maps)), grid_masks, packed, strict=True)
    return [Entry(item.key, row, levels, grid.tobytes(), mask) for (item, _), row, levels, grid, mask in kept]


def _levels(maps: Tensor) -> NDArray[np.uint8]:
    levels: NDArray[np.uint8] = (maps * 255).round().to(torch.uint8).cpu().numpy()
    return levels


def _on_grid(values: Tensor) -> Tensor:
    """(B, h, w) float to (B, 64, 64): averaged down, or interpolated up where it is coarser."""
    if min(values.shape[1:]) < GRID:
        return F.interpolate(values[:, None], size=(GRID, GRID), mode="bilinear", align_corners=False)[:, 0]
    return F.adaptive_avg_pool2d(values[:, None], GRID)[:, 0]
