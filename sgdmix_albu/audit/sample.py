"""What is audited: a seeded sample of a data set, brought to one size, with true masks where there are any."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sgdmix_albu.errors import DataError, InvalidInputError, UnknownNameError
from sgdmix_albu.io.images import IMAGE_SUFFIXES, class_folders, list_images, read_image
from sgdmix_albu.registry import nearest_names

__all__ = ["Collection", "Reader", "Sample", "draw_sample", "open_collection", "resized"]

# A mask may have another resolution than its image, but not another shape: 2% allows for rounding.
_ASPECT_TOLERANCE = 0.02

Loaded = tuple[Image.Image, Image.Image | None]


@dataclass(frozen=True)
class Collection:
    """A data set that is not read yet.

    Attributes:
        name: What the user calls it.
        keys: Each image's name.
        labels: Each image's class, an index into ``class_names``; None where images have no class.
        class_names: Sorted.
        files: Each image's file; None where images are drawn.
        load: Index to upright RGB image and true mask (mode "1" or "L") or None; raises DataError.
    """

    name: str
    keys: list[str]
    labels: list[int] | None
    class_names: list[str]
    files: list[Path] | None
    load: Callable[[int], Loaded]


@dataclass(frozen=True)
class Sample:
    """N images of a collection: sources first, then images that serve as candidates only.

    Attributes:
        keys: N names.
        classes: N class names; empty strings where images have no class.
        images: (N, 3, size, size) uint8.
        labels: (N,) int64 or None.
        truth: (N, size, size) bool true masks or None.
        measured: Number of sources that were drawn at random over the whole collection: the first rows.
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


def open_collection(
    data: str | os.PathLike[str] | None,
    *,
    dataset: str | None = None,
    masks: str | os.PathLike[str] | None = None,
    size: int = 224,
) -> Collection:
    """List a class-per-folder tree, a flat folder of images, or an embedded data set.

    Args:
        data: The folder, or None with ``dataset``.
        dataset: Name of the embedded data set ("aviary"), or None with ``data``.
        masks: Folder of true masks: for ``owl/1.jpg`` the file ``owl/1.png``, object light, background dark.
            Images without a mask are left out. The embedded data set brings its own.
        size: Side in pixels at which an embedded data set is drawn.

    Raises:
        InvalidInputError: Both or none of ``data`` and ``dataset``, or ``masks`` with ``dataset``.
        UnknownNameError: No such embedded data set.
        DataError: Nothing to read there.
    """
    if (data is None) == (dataset is None):
        raise InvalidInputError(f"expected either data or dataset, got data={data!r} and dataset={dataset!r}")
    if dataset is not None:
        if masks is not None:
            raise InvalidInputError(f"dataset {dataset!r} brings its own true masks; leave masks out")
        return _embedded(dataset, size)
    return _folder(Path(str(data)).expanduser(), None if masks is None else Path(masks).expanduser())


def draw_sample(
    collection: Collection, *, measured: int, candidates: int, shown_classes: int, size: int, seed: int
) -> Sample:
    """Draw and read a sample; the same seed draws the same images.

    Args:
        collection: From :func:`open_collection`.
        measured: Images drawn at random as sources.
        candidates: Further images drawn, only to be targets.
        shown_classes: Of the first so many classes, one image each is added where chance brought none.
        size: Images are resized to size x size, without regard to their shape, as classifiers' inputs often are.
        seed: Seed of the draw.

    Raises:
        DataError: Fewer than two images can be read; the first reason is given.
    """
    order = np.random.default_rng(seed).permutation(len(collection.keys)).tolist()
    reader = Reader(collection, size)
    reader.read(order, measured)
    measured = len(reader.rows)
    if collection.labels is not None:
        for label in range(min(shown_classes, len(collection.class_names))):
            if label not in {collection.labels[row] for row in reader.rows}:
                reader.read([row for row in order if collection.labels[row] == label], 1)
    sources = len(reader.rows)
    reader.read(order, candidates)
    if len(reader.rows) < 2:
        why = "; ".join(f"{key}: {reason}" for key, reason in list(reader.skipped.items())[:3])
        raise DataError(
            f"an audit needs at least two readable images, found {len(reader.rows)} in {collection.name}"
            + (f" ({why})" if why else "")
        )
    return reader.sample(measured, sources)


class Reader:
    """Reads images one by one, remembers what was read and what could not be.

    Args:
        collection: What to read from.
        size: Images are squashed to size x size.

    Attributes:
        rows: What was read, in this order.
        skipped: Key and reason of each file that could not be.
    """

    def __init__(self, collection: Collection, size: int) -> None:
        self.collection = collection
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
            key = self.collection.keys[row]
            if row in known or key in self.skipped:
                continue
            try:
                image, mask = self.collection.load(row)
            except DataError as error:
                self.skipped[key] = str(error)
                continue
            self.rows.append(row)
            self.images.append(np.asarray(image.resize((self.size, self.size), Image.Resampling.BILINEAR)))
            if mask is not None:
                self.truth.append(resized(mask, self.size))
            wanted -= 1

    def sample(self, measured: int, sources: int) -> Sample:
        """What was read; one image at least."""
        labels, files = self.collection.labels, self.collection.files
        named = None if labels is None else [labels[row] for row in self.rows]
        return Sample(
            keys=tuple(self.collection.keys[row] for row in self.rows),
            classes=("",) * len(self.rows)
            if named is None
            else tuple(self.collection.class_names[label] for label in named),
            images=torch.from_numpy(np.stack(self.images)).permute(0, 3, 1, 2).contiguous(),
            labels=None if named is None else torch.tensor(named),
            truth=torch.from_numpy(np.stack(self.truth)) if self.truth else None,
            measured=measured,
            sources=sources,
            skipped=tuple(self.skipped.items()),
            files=None if files is None else tuple(files[row] for row in self.rows),
        )


def resized(mask: Image.Image, size: int) -> np.ndarray:
    """A mask as (size, size) bool: object where it is brighter than half of its brightest pixel.

    Example:
        >>> resized(Image.fromarray(np.array([[0, 1], [0, 1]], dtype=np.uint8)), 2).tolist()
        [[False, True], [False, True]]
    """
    grey = np.asarray(mask.convert("L"), dtype=np.float32)
    brightest = float(grey.max()) or 1.0
    level = Image.fromarray(grey / brightest).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(level) > 0.5


def _folder(root: Path, masks: Path | None) -> Collection:
    paths, labels, class_names = _tree_or_flat(root)
    keys = [path.relative_to(root).as_posix() for path in paths]
    if masks is not None:
        if not masks.is_dir():
            raise DataError(f"expected a folder of true masks, {masks} is not there")
        # A pipe, or a link to nothing, is a mask that cannot be read: the audit names it, and goes on without.
        kept = [i for i, key in enumerate(keys) if os.path.lexists(_mask_path(masks, key))]
        if not kept:
            raise DataError(
                f"found no true mask for any of {len(keys)} images; for {keys[0]} expected {_mask_path(masks, keys[0])}"
            )
        paths, keys = [paths[i] for i in kept], [keys[i] for i in kept]
        labels = None if labels is None else [labels[i] for i in kept]

    def load(row: int) -> Loaded:
        image = read_image(paths[row])
        return image, None if masks is None else _read_mask(_mask_path(masks, keys[row]), image.size)

    return Collection(str(root), keys, labels, class_names, paths, load)


def _tree_or_flat(root: Path) -> tuple[list[Path], list[int] | None, list[str]]:
    """Class-per-folder where there is an image in a folder; else the images of the folder itself."""
    try:
        entries = list_images(root)
    except DataError:
        flat = (
            sorted(path for path in root.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir())
            if root.is_dir()
            else []
        )
        if not flat:
            raise
        return flat, None, []
    return [entry.path for entry in entries], [entry.label for entry in entries], class_folders(root)


def _mask_path(masks: Path, key: str) -> Path:
    return (masks / key).with_suffix(".png")


def _read_mask(path: Path, size: tuple[int, int]) -> Image.Image:
    mask = read_image(path)
    expected, came = size[0] / size[1], mask.width / mask.height
    if abs(came / expected - 1) > _ASPECT_TOLERANCE:
        raise DataError(
            f"the true mask {path} is {mask.width} x {mask.height}, its image {size[0]} x {size[1]}: "
            "expected the same shape"
        )
    return mask


def _embedded(name: str, size: int) -> Collection:
    if name != "aviary":
        raise UnknownNameError(f"unknown data set {name!r}{nearest_names(name, ['aviary'])} Known: aviary")
    from sgdmix_albu.datasets.aviary import Aviary

    birds = Aviary("train", size=size)

    def load(row: int) -> Loaded:
        drawn = birds.render(row)
        return Image.fromarray(drawn.image), Image.fromarray(drawn.mask)

    keys = [f"{birds.classes[label]}/{row:04d}" for row, label in enumerate(birds.targets)]
    return Collection(name, keys, birds.targets, birds.classes, None, load)
