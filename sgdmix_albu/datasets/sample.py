"""Images of a source as tensors of one size, read one by one, with labels and true masks where there are any."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sgdmix_albu.datasets.pixels import load_image
from sgdmix_albu.datasets.source import Source
from sgdmix_albu.errors import DataError


@dataclass(frozen=True)
class Sample:
    """N images of a source: those to mix first, then images that serve as candidates only.

    Attributes:
        keys: N names.
        classes: N class names; empty strings where images have no class.
        images: (N, 3, size, size) uint8.
        labels: (N,) int64 or None.
        truth: (N, size, size) bool true masks or None.
        measured: Number of sources that were drawn at random over the whole set: the first rows.
        sources: Number of sources; rows ``measured`` to ``sources`` show classes that chance left out.
        skipped: Key and reason of each file that could not be used.
        files: N files, or None where images are drawn.
    """

    keys: tuple[str, ...]
    classes: tuple[str, ...]
    images: Tensor
    labels: Tensor | None
    truth: Tensor | None
    measured: int
    sources: int
    skipped: tuple[tuple[str, str], ...]
    files: tuple[Path, ...] | None


def draw_sample(source: Source, *, measured: int, candidates: int, shown_classes: int, size: int, seed: int) -> Sample:
    """Draw and read a sample; the same seed draws the same images.

    Args:
        source: From :func:`sgdmix_albu.datasets.source.open_source`.
        measured: Images drawn at random as sources.
        candidates: Further images drawn, only to be targets.
        shown_classes: Of the first so many classes, one image each is added where chance brought none.
        size: Images are resized to size x size, without regard to their shape, as classifiers' inputs often are.
        seed: Seed of the draw.

    Raises:
        DataError: Fewer than two images can be read; the first reason is given.
    """
    labels = [item.label for item in source.items]
    order = np.random.default_rng(seed).permutation(len(labels)).tolist()
    sampler = Sampler(source, size)
    sampler.read(order, measured)
    measured = len(sampler.rows)
    for label in range(min(shown_classes, len(source.class_names))):
        if label not in {labels[row] for row in sampler.rows}:
            sampler.read([row for row in order if labels[row] == label], 1)
    sources = len(sampler.rows)
    sampler.read(order, candidates)
    if len(sampler.rows) < 2:
        why = "; ".join(f"{key}: {reason}" for key, reason in list(sampler.skipped.items())[:3])
        raise DataError(
            f"an audit needs at least two readable images, found {len(sampler.rows)} in {source.name}"
            + (f" ({why})" if why else "")
        )
    return sampler.sample(measured, sources)


class Sampler:
    """Reads images one by one, remembers what was read and what could not be.

    Args:
        source: What to read from.
        size: Images are squashed to size x size.

    Attributes:
        rows: What was read, in this order.
        skipped: Key and reason of each file that could not be.
    """

    def __init__(self, source: Source, size: int) -> None:
        self.source = source
        self.size = size
        self.rows: list[int] = []
        self.images: list[np.ndarray] = []
        self.truth: list[np.ndarray] = []
        self.skipped: dict[str, str] = {}

    def read(self, order: Iterable[int], wanted: int) -> None:
        """Read up to ``wanted`` further images, in this order, passing over what is read or unreadable."""
        known = set(self.rows)
        for row in order:
            if wanted <= 0:
                return
            item, truth = self.source.items[row], self.source.truth
            if row in known or item.key in self.skipped:
                continue
            try:
                image, _ = load_image(item)
                mask = None if truth is None else truth.mask(item.key, image.size)
            except DataError as error:
                self.skipped[item.key] = str(error)
                continue
            self.rows.append(row)
            self.images.append(np.asarray(image.resize((self.size, self.size), Image.Resampling.BILINEAR)))
            if mask is not None:
                self.truth.append(resized_mask(mask, self.size))
            wanted -= 1

    def sample(self, measured: int, sources: int) -> Sample:
        """What was read; one image at least."""
        items = [self.source.items[row] for row in self.rows]
        files = [item.file for item in items]
        return Sample(
            keys=tuple(item.key for item in items),
            classes=tuple(item.class_name for item in items),
            images=torch.from_numpy(np.stack(self.images)).permute(0, 3, 1, 2).contiguous(),
            labels=torch.tensor([item.label for item in items]) if self.source.class_names else None,
            truth=torch.from_numpy(np.stack(self.truth)) if self.truth else None,
            measured=measured,
            sources=sources,
            skipped=(*((one.key, one.reason) for one in self.source.skipped), *self.skipped.items()),
            files=None if None in files else tuple(filter(None, files)),
        )


def resized_mask(mask: Image.Image, size: int) -> np.ndarray:
    """A mask as (size, size) bool: object where it is brighter than half of its brightest pixel.

    Example:
        >>> resized_mask(Image.fromarray(np.array([[0, 1], [0, 1]], dtype=np.uint8)), 2).tolist()
        [[False, True], [False, True]]
    """
    grey = np.asarray(mask.convert("L"), dtype=np.float32)
    brightest = float(grey.max()) or 1.0
    level = Image.fromarray(grey / brightest).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(level) > 0.5
