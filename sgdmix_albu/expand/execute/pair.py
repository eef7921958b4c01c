"""Rows in, files out. Nothing random happens here: any number of threads gives the same bytes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.bank.descriptors import Descriptors
from sgdmix_albu.datasets.pixels import load_again, resized, to_image, to_pixels
from sgdmix_albu.datasets.source import Skipped
from sgdmix_albu.errors import DataError
from sgdmix_albu.expand.plan.targets import Row
from sgdmix_albu.expand.store.files import OutputFolder
from sgdmix_albu.io.threads import ordered_map
from sgdmix_albu.mixing.composition import compose
from sgdmix_albu.mixing.plan import plan_pairs
from sgdmix_albu.types import Fill

__all__ = ["FORMATS", "Done", "Pair", "encoded", "execute", "mix_pair", "mix_row"]

# Level 1 is 2.5 times as fast as Pillow's default and gives photographs 5% larger. JPEG keeps full colour
# resolution, since mask edges are sharp in colour too.
FORMATS: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "png": ("PNG", {"compress_level": 1}),
    "jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
}


@dataclass(frozen=True)
class Done:
    """A file that was written.

    Attributes:
        row: The plan's row.
        kept: Share of the image's pixels that are the source's.
        size: The file's bytes.
        sha256: Of the file, in hexadecimal.
    """

    row: Row
    kept: float
    size: int
    sha256: str


class Pair(NamedTuple):
    """A source on a target's background.

    Attributes:
        pixels: (3, H, W) uint8.
        kept: (H, W) bool, where the source is kept.
        hole: (H, W) bool, where paint shows in the place of the target's object; nowhere with ``fill="source"``.
    """

    pixels: Tensor
    kept: Tensor
    hole: Tensor


def execute(
    rows: list[Row],
    descriptors: Descriptors,
    folder: OutputFolder,
    *,
    size: int | None,
    fill: Fill,
    feather: float | None,
    jobs: int,
) -> Iterator[Done | Skipped]:
    """Write each row's image, in order.

    Args:
        rows: The plan.
        descriptors: What the plan's rows refer to.
        folder: Where the files go.
        size: As for the descriptors.
        fill: What stands where the target's object was.
        feather: As for :func:`mix_pair`.
        jobs: Threads.

    Yields:
        For each row, what was written, or why nothing was: an image that could be read when it was described
        and cannot be read any more, or one that the format cannot hold.

    Raises:
        DataError: A file cannot be written.
    """

    def write(row: Row) -> Done | Skipped:
        try:
            pixels, kept = mix_row(row, descriptors, size=size, fill=fill, feather=feather)
            content = encoded(pixels, PurePosixPath(row.name).suffix[1:])
        except DataError as error:
            return Skipped(descriptors.items[row.source].key, str(error))
        folder.write(row.name, content)
        return Done(row, kept, len(content), hashlib.sha256(content).hexdigest())

    return ordered_map(write, rows, jobs)


def mix_row(
    row: Row, descriptors: Descriptors, *, size: int | None, fill: Fill, feather: float | None
) -> tuple[Tensor, float]:
    """The image of one row: (3, H, W) uint8, and the share of its pixels that are the source's.

    Raises:
        DataError: Source or target cannot be read any more, has changed, or leaves nothing to paint from.
    """
    source = load_again(descriptors.items[row.source], descriptors.digests[row.source], size)
    if row.target is None:
        return source, 1.0
    target = load_again(descriptors.items[row.target], descriptors.digests[row.target], size)
    masks = descriptors.mask(row.source), descriptors.mask(row.target)
    pair = mix_pair(source, target, *masks, fill=fill, feather=feather)
    return pair.pixels, float(pair.kept.float().mean())


def mix_pair(source: Tensor, target: Tensor, own: Tensor, other: Tensor, *, fill: Fill, feather: float | None) -> Pair:
    """One source on one target's background; the target, and its mask, are brought to the source's size.

    Args:
        source: (3, H, W) uint8.
        target: (3, h, w) uint8.
        own: (H, W) bool, the source's mask.
        other: (h, w) bool, the target's.
        fill: What stands where the target's object was: "source" keeps the source's pixels there, "inpaint" paints.
        feather: Width in pixels of the fade outside the mask; None for a hard edge with "source", a soft border with
            "inpaint".

    Raises:
        DataError: The target's object leaves nothing to paint from, at the source's size.
    """
    if target.shape != source.shape:
        height, width = source.shape[1:]
        target = to_pixels(resized(to_image(target), (width, height)))
        other = F.interpolate(other[None, None].float(), size=(height, width), mode="nearest-exact")[0, 0] > 0
    plan = plan_pairs(own[None], other[None], fill)
    if plan.holes is not None and bool(plan.holes.all()):
        raise DataError("its target's object fills the image: nothing is left to paint a background from")
    mixed = compose(plan, source[None], target[None], feather=feather)
    return Pair(mixed[0], plan.masks[0], torch.zeros_like(own) if plan.painted is None else plan.painted[0])


def encoded(pixels: Tensor, suffix: str) -> bytes:
    """(3, H, W) uint8 pixels as a file, by the suffix "png" or "jpg".

    Raises:
        DataError: The format cannot hold them.
    """
    kind, options = FORMATS[suffix]
    content = io.BytesIO()
    try:
        to_image(pixels).save(content, kind, **options)
    except (OSError, ValueError) as error:  # JPEG knows no more than 65535 pixels a side, for one
        raise DataError(f"its outputs cannot be written as {suffix}: {error}") from error
    return content.getvalue()
