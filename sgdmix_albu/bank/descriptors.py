"""Maps and masks of a whole set, computed once for each image and kept small.

For each image: its saliency on a 64 x 64 grid at 8 bits and its mask on the same grid at 1 bit, for choosing
targets; and its mask at full resolution, compressed, for mixing. About 5 to 6 KB for a 224 x 224 photograph.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sgdmix_albu.bank.reference import Reference
from sgdmix_albu.datasets.pixels import Loaded, load_pixels
from sgdmix_albu.datasets.source import Item, Skipped
from sgdmix_albu.errors import DataError, SGDMixError
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.io.threads import ordered_map
from sgdmix_albu.mixing.agreement import held_share
from sgdmix_albu.mixing.described import describe
from sgdmix_albu.mixing.masks import MaskPreset

__all__ = ["GRID", "Descriptors", "check_some_usable", "describe_items", "describe_read", "read_pixels", "unpacked"]

# Of (B, 3, H, W) uint8 images, (B,) labels and the SHA-256 of their files: a MapSource.
Maps: TypeAlias = Callable[[Tensor, Tensor, Sequence[bytes]], Tensor]

GRID = 64
# Images that meet in one call of the saliency backend: few enough that their float copies stay within about 200 MB.
# Fixed, not an option: a network's rounding can depend on the batch, and a run must not depend on its speed.
_BATCH = 32
_BATCH_PIXELS = 16_000_000


@dataclass(frozen=True)
class Descriptors:
    """What planning needs to know of N images, and execution; rows agree.

    Attributes:
        items: The images.
        maps: (N, 64, 64) uint8 saliency.
        grid_masks: (N, 512) uint8, foreground masks on the same grid, eight pixels a byte.
        thresholds: (N,) float32.
        flat: (N,) bool, the saliency map is constant.
        empty: (N,) bool, the mask is empty.
        agreement: (N,) float32, share of the reference's object that the mask holds; NaN where it finds none, or
            nobody was asked.
        packed: N full-resolution masks, compressed; see :meth:`mask`.
        sizes: N pairs of height and width.
        digests: N SHA-256 of the files that were read.
    """

    items: list[Item]
    maps: NDArray[np.uint8]
    grid_masks: NDArray[np.uint8]
    thresholds: NDArray[np.float32]
    flat: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    agreement: NDArray[np.float32]
    packed: list[bytes]
    sizes: list[tuple[int, int]]
    digests: list[bytes]

    def __len__(self) -> int:
        return len(self.items)

    def mask(self, row: int) -> Tensor:
        """(H, W) bool foreground mask of one image at its own resolution."""
        return unpacked(self.packed[row], self.sizes[row])

    def agreement_of(self, row: int) -> float | None:
        """Agreement of one image, None where it has none."""
        agreement = float(self.agreement[row])
        return None if np.isnan(agreement) else agreement

    def coarse(self) -> NDArray[np.uint8]:
        """(N, 256) the maps as 16 x 16 averages, rounded."""
        cells, side = 16, GRID // 16
        coarse = np.empty((len(self), cells * cells), np.uint8)
        for start in range(0, len(self), 4096):  # the maps may be larger than the memory
            block = self.maps[start : start + 4096].reshape(-1, cells, side, cells, side)
            sums = block.sum(axis=(2, 4), dtype=np.uint16)
            coarse[start : start + 4096] = ((sums + side * side // 2) // (side * side)).reshape(len(block), -1)
        return coarse


def unpacked(packed: bytes, size: tuple[int, int]) -> Tensor:
    """(H, W) bool mask from its compressed form.

    Raises:
        DataError: The bytes are not what was written.
    """
    height, width = size
    wanted = -(-height * width // 8)
    try:
        # No more than one byte too many: a few bytes can be made to unpack to gigabytes.
        stream = zlib.decompressobj()
        bits = np.frombuffer(stream.decompress(packed, wanted + 1), np.uint8)
    except zlib.error as error:
        raise DataError(f"a stored mask is damaged: {error}") from error
    if len(bits) != wanted or not stream.eof:
        raise DataError(f"a stored mask is damaged: {len(bits)} bytes for {height} x {width} pixels")
    flat = np.unpackbits(bits, count=height * width)
    return torch.from_numpy(flat.reshape(height, width)).bool()


def describe_items(
    items: Sequence[Item],
    maps_of: Maps,
    preset: MaskPreset,
    *,
    reference: Reference | None = None,
    size: int | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> tuple[Descriptors, list[Skipped]]:
    """Read every image once and keep its map and mask; list those that cannot be used.

    Args:
        items: The images.
        maps_of: Stage 1: a :class:`MapSource`, or a function of the same arguments.
        preset: Stage 3.
        reference: What the masks are compared with; None for nothing.
        size: Bring every image to size x size first.
        jobs: Threads that read; the result does not depend on it.
        progress: Reports each image; None for silence.

    Raises:
        DataError: No image can be used; the first reason is given.
        SGDMixError: ``maps_of`` or the preset fails on everything it is first given.
    """
    reading = ordered_map(lambda item: read_pixels(item, size), items, jobs)
    if progress is not None:
        reading = progress.over(reading, "saliency and masks", len(items))
    described, skipped = describe_read(reading, maps_of, preset, reference=reference, hopeless=1)
    check_some_usable(len(described), len(items), skipped)
    return described, skipped


def check_some_usable(usable: int, count: int, skipped: Sequence[Skipped]) -> None:
    """Refuse a set of which nothing can be used.

    Raises:
        DataError: The first reason is given.
    """
    if not usable:
        why = f"; the first, {skipped[0]}" if skipped else ""
        raise DataError(f"none of {count} images can be used{why}")


def describe_read(
    reading: Iterable[_Read],
    maps_of: Maps,
    preset: MaskPreset,
    *,
    reference: Reference | None = None,
    hopeless: int = 32,
) -> tuple[Descriptors, list[Skipped]]:
    """Descriptors of images as they come, each with its pixels or with the reason why there are none.

    Args:
        reading: The images.
        maps_of: Stage 1.
        preset: Stage 3.
        reference: What the masks are compared with; None for nothing.
        hopeless: When none has succeeded and at least so many failed, the fault lies with the settings, not the images.

    Raises:
        SGDMixError: That fault.
    """
    kept: list[_Kept] = []
    skipped: list[Skipped] = []
    refused = 0
    for window in _windows(reading, skipped):
        found, failed = _describe_window(window, maps_of, preset, reference)
        kept += found
        skipped += [Skipped(key, str(error)) for key, error in failed]
        refused += len(failed)
        if not kept and refused >= hopeless:
            raise failed[0][1]
    return _stacked(kept), skipped


@dataclass(frozen=True)
class _Kept:
    item: Item
    map: Tensor
    grid_mask: bytes
    threshold: float
    flat: bool
    empty: bool
    agreement: float
    packed: bytes
    size: tuple[int, int]
    digest: bytes


_Read: TypeAlias = tuple[Item, Loaded | str]
_Window: TypeAlias = list[tuple[Item, Loaded]]


def read_pixels(item: Item, size: int | None) -> _Read:
    """An item with its image, or with the reason why it cannot be read."""
    try:
        return item, load_pixels(item, size)
    except DataError as error:
        return item, str(error)


def _windows(reading: Iterable[_Read], skipped: list[Skipped]) -> Iterator[_Window]:
    """Readable images in groups of bounded size; the others go to ``skipped``."""
    window: _Window = []
    pixels = 0
    for item, image in reading:
        if isinstance(image, str):
            skipped.append(Skipped(item.key, image))
            continue
        area = image.pixels[0].numel()
        if window and (len(window) == _BATCH or pixels + area > _BATCH_PIXELS):
            yield window
            window, pixels = [], 0
        window.append((item, image))
        pixels += area
    if window:
        yield window


def _describe_window(
    window: _Window, maps_of: Maps, preset: MaskPreset, reference: Reference | None
) -> tuple[list[_Kept], list[tuple[str, SGDMixError]]]:
    """Descriptors of a window in its order, and what failed: images of one size together, alone where that fails."""
    kept: dict[int, _Kept] = {}
    failed: dict[int, SGDMixError] = {}
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, (_, image) in enumerate(window):
        groups.setdefault(tuple(image.pixels.shape), []).append(place)
    queue = list(groups.values())
    while queue:
        places = queue.pop(0)
        try:
            described = _described([window[place] for place in places], maps_of, preset, reference)
        except SGDMixError as error:
            if len(places) > 1:
                queue += [[place] for place in places]
            else:
                failed[places[0]] = error
            continue
        kept.update(zip(places, described, strict=True))
    return [kept[place] for place in sorted(kept)], [(window[place][0].key, failed[place]) for place in sorted(failed)]


def _described(group: _Window, maps_of: Maps, preset: MaskPreset, reference: Reference | None) -> list[_Kept]:
    images = torch.stack([image.pixels for _, image in group])
    labels = torch.tensor([item.label for item, _ in group])
    digests = [image.sha256 for _, image in group]
    result = describe(maps_of(images, labels, digests), images, preset)
    nobody = torch.full((len(group),), torch.nan)
    agreement = nobody if reference is None else held_share(result.masks, reference(images, labels, digests))
    maps = (_on_grid(result.maps) * 255).round_().byte()
    grid_masks = np.packbits((_on_grid(result.masks.float()) > 0.5).flatten(1).numpy(), axis=1)
    return [
        _Kept(
            item=item,
            map=maps[row].clone(),
            grid_mask=grid_masks[row].tobytes(),
            threshold=float(result.thresholds[row]),
            flat=bool(result.flat[row]),
            empty=not result.areas[row],
            agreement=float(agreement[row]),
            packed=zlib.compress(np.packbits(result.masks[row].numpy()).tobytes(), 1),
            size=(images.shape[2], images.shape[3]),
            digest=image.sha256,
        )
        for row, (item, image) in enumerate(group)
    ]


def _on_grid(values: Tensor) -> Tensor:
    """(B, h, w) float to (B, 64, 64): averaged down, or interpolated up where it is coarser."""
    if min(values.shape[1:]) < GRID:
        return F.interpolate(values[:, None], size=(GRID, GRID), mode="bilinear", align_corners=False)[:, 0]
    return F.adaptive_avg_pool2d(values[:, None], GRID)[:, 0]


def _stacked(kept: list[_Kept]) -> Descriptors:
    maps = [one.map.numpy() for one in kept]
    return Descriptors(
        items=[one.item for one in kept],
        maps=np.stack(maps) if maps else np.empty((0, GRID, GRID), np.uint8),
        grid_masks=np.frombuffer(b"".join(one.grid_mask for one in kept), np.uint8).reshape(-1, GRID * GRID // 8),
        thresholds=np.array([one.threshold for one in kept], np.float32),
        flat=np.array([one.flat for one in kept], bool),
        empty=np.array([one.empty for one in kept], bool),
        agreement=np.array([one.agreement for one in kept], np.float32),
        packed=[one.packed for one in kept],
        sizes=[one.size for one in kept],
        digests=[one.digest for one in kept],
    )
