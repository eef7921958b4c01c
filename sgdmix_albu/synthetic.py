"""Train on an expanded set: real images, some of them replaced by synthetic ones as they are drawn."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.files import stays_below
from sgdmix_albu.images import decode_image, read_image
from sgdmix_albu.offline.files import METADATA
from sgdmix_albu.offline.shards import member_name

__all__ = ["Mode", "SyntheticMix", "SyntheticPool", "synthetic_batches", "synthetic_samples"]

Mode: TypeAlias = Literal["source", "class", "pool"]


class SyntheticPool:
    """The images that ``sgdmix generate`` wrote, by source and class. Cheap to send to workers.

    Args:
        out: The folder: images or tar shards, with ``metadata.jsonl``.

    Raises:
        DataError: Not finished, damaged, or a file that the manifest names is not there.
    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.out = Path(out)
        self.names: list[str] = []
        self.shards: list[str | None] = []
        self.labels: list[str] = []
        self.numbers: list[int] = []
        self.by_source: dict[str, list[int]] = {}
        self.by_class: dict[str, list[int]] = {}
        for place, row in enumerate(_rows(self.out)):
            self.names.append(row["file_name"])
            self.shards.append(row.get("shard"))
            self.labels.append(row["label"])
            self.numbers.append(row["label_index"])
            self.by_source.setdefault(row["source"], []).append(place)
            self.by_class.setdefault(row["label"], []).append(place)
        there = {path.relative_to(self.out).as_posix() for path in self.out.rglob("*") if path.is_file()}
        wanted = [shard or name for shard, name in zip(self.shards, self.names, strict=True)]
        missing = sorted(set(wanted) - there)
        if missing:
            raise DataError(
                f"{len(missing)} files that {self.out / METADATA} names are not there, such as {missing[0]}; "
                "run the same `sgdmix generate` again"
            )
        self._members: dict[str, dict[str, tuple[int, int]]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def image(self, place: int) -> Image.Image:
        """One image, RGB.

        Raises:
            DataError: It cannot be read.
        """
        shard = self.shards[place]
        if shard is None:
            return read_image(self.out / self.names[place])
        if shard not in self._members:
            self._members[shard] = _members(self.out / shard)
        member = member_name(self.names[place])
        if member not in self._members[shard]:
            raise DataError(f"{self.out / shard} has no member {member}")
        start, size = self._members[shard][member]
        with (self.out / shard).open("rb") as file:
            file.seek(start)
            return decode_image(file.read(size), f"{member} in {self.out / shard}")

    def among(self, mode: Mode, *, source: str, label: str) -> Sequence[int]:
        """Places of the images that may stand for a real one.

        Args:
            mode: "source", made from that very image; "class", from any of its class; "pool", from any.
            source: The real image's key.
            label: Its class.
        """
        if mode == "source":
            return self.by_source.get(source, ())
        return self.by_class.get(label, ()) if mode == "class" else range(len(self))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_members": {}}


class SyntheticMix(Dataset[Any]):
    """A data set in which each image is replaced, with probability p, by a synthetic one.

    Replacing, not adding, keeps an epoch's length and the share of each class. Where the synthetic image may come
    from, ``mode``, is what published methods differ in: "source", one made from the very image that was drawn, is
    DA-Fusion's way (Trabucco et al., ICLR 2024: probability 0.5); "pool", any of all with its own label, is what the
    released code of Diff-Mix does (Wang et al., CVPR 2024: probability 0.1, 0.3 for few shots); "class", any of its
    class, lies between the two and is nobody's that we know of. The specification of SGD-Mix does not say which it
    uses.

    Args:
        real: A map-style data set of (image, label) with ``classes``, such as torchvision's ``ImageFolder``.
        out: The folder that ``sgdmix generate`` wrote.
        p: Probability of a synthetic image, in [0, 1].
        mode: "source", "class" or "pool".
        transform: For the synthetic images, PIL RGB; "real" takes ``real.transform``, so that they are treated as the
            real ones are. A data set that has no such attribute needs its transform given here; None leaves PIL.
        source_keys: Key of each real image as ``sgdmix generate`` knew it, ``"warbler/0001.jpg"``; None for an
            ``ImageFolder``, which knows them, or a data set with ``source_keys``.
        seed: None draws from torch's generator, as transforms do: other draws in each worker and epoch, the same
            after ``torch.manual_seed``. A number makes each draw follow from seed, epoch and index alone, whatever
            the workers; call :meth:`set_epoch` then.

    Raises:
        InvalidInputError: A setting means nothing, or keys or classes are unknown.
        DataError: The folder is not finished, damaged, or of other classes.

    Example:
        >>> import tempfile
        >>> from sgdmix_albu.datasets import get_dataset
        >>> from sgdmix_albu.offline import Settings, generate
        >>> out = tempfile.mkdtemp()
        >>> _ = generate(None, out, dataset="aviary", limit=6, settings=Settings(size=64, multiplier=2))
        >>> mixed = SyntheticMix(get_dataset("aviary"), out, p=1.0)
        >>> image, label = mixed[0]
        >>> image.size, label
        ((64, 64), 0)
    """

    def __init__(
        self,
        real: Any,
        out: str | os.PathLike[str],
        *,
        p: float = 0.5,
        mode: Mode = "source",
        transform: Callable[[Image.Image], Any] | Literal["real"] | None = "real",
        source_keys: Sequence[str] | None = None,
        seed: int | None = None,
    ) -> None:
        _check(p, mode)
        if transform == "real" and not hasattr(real, "transform"):
            raise InvalidInputError(
                f"{type(real).__name__} has no attribute 'transform'; pass transform= for the synthetic images"
            )
        self.real, self.p, self.mode, self.transform, self.seed = real, p, mode, transform, seed
        self.pool = SyntheticPool(out)
        self.classes = list(getattr(real, "classes", ()))
        strangers = sorted(set(self.pool.labels) - set(self.classes))
        if strangers:
            raise DataError(f"{out} has the class {strangers[0]!r}, the real data set has {self.classes[:5]}")
        self.source_keys = _keys(real) if source_keys is None else list(source_keys)
        if len(self.source_keys) != len(real):
            raise InvalidInputError(
                f"expected {len(real)} source_keys, one for each image, got {len(self.source_keys)}"
            )
        if mode == "source" and not set(self.source_keys) & set(self.pool.by_source):
            raise DataError(
                f"{out} was made from other images: {next(iter(self.pool.by_source), 'none')!r} there, "
                f"{self.source_keys[0]!r} here"
            )
        self._epoch = torch.zeros(1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # workers that persist see it too

    def set_epoch(self, epoch: int) -> None:
        """Other draws, where ``seed`` was given; call it before each epoch, as for a ``DistributedSampler``."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.real)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """The real item, or a synthetic image and a label of the same kind."""
        chance, which = self._draws(index)
        if chance < self.p:
            label = self._label(index)
            places = self.pool.among(self.mode, source=self.source_keys[index], label=self.classes[label])
            if places:  # nothing was made from an image with flat saliency, for one
                place = places[int(which * len(places))]
                if self.mode == "pool":
                    label = self.classes.index(self.pool.labels[place])
                return self._treated(self.pool.image(place)), self._as_real(label)
        item: tuple[Any, Any] = self.real[index]
        return item

    def _draws(self, index: int) -> tuple[float, float]:
        if self.seed is None:
            chance, which = torch.rand(2, dtype=torch.float64).tolist()
            return chance, which
        entropy = (self.seed, int(self._epoch), index)
        chance, which = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy))).random(2).tolist()
        return chance, which

    def _label(self, index: int) -> int:
        targets = getattr(self.real, "targets", None)
        return int(self.real[index][1] if targets is None else targets[index])

    def _as_real(self, label: int) -> Any:
        change = getattr(self.real, "target_transform", None)
        return label if change is None else change(label)

    def _treated(self, image: Image.Image) -> Any:
        transform = self.real.transform if self.transform == "real" else self.transform
        return image if transform is None else transform(image)


def synthetic_batches(
    out: str | os.PathLike[str],
    *,
    p: float = 0.5,
    mode: Mode = "class",
    class_names: Sequence[str],
    image: str = "image",
    label: str = "label",
    source: str = "source",
    transform: Callable[[Image.Image], Any] | None = None,
) -> Callable[[dict[str, list[Any]]], dict[str, list[Any]]]:
    """The same for Hugging Face data sets: ``dataset.set_transform(synthetic_batches(...))``.

    Args:
        out: The folder that ``sgdmix generate`` wrote.
        p: Probability of a synthetic image.
        mode: As for :class:`SyntheticMix`; "source" needs a column of keys.
        class_names: Names of the labels: ``dataset.features["label"].names``.
        image: Column of the images.
        label: Column of the labels, class indices.
        source: Column of the source keys.
        transform: For all images, real and synthetic, PIL RGB.

    Returns:
        A function of batches, which draws from torch's generator.
    """
    _check(p, mode)
    return partial(_replace, SyntheticPool(out), p, mode, tuple(class_names), image, label, source, transform)


def synthetic_samples(
    samples: Iterable[dict[str, Any]],
    out: str | os.PathLike[str],
    *,
    p: float = 0.5,
    mode: Mode = "source",
    image: str = "png",
    label: str = "cls",
) -> Iterator[dict[str, Any]]:
    """The same for WebDataset pipelines of decoded samples: ``pipeline.compose(partial(synthetic_samples, out=...))``.

    Args:
        samples: Dictionaries with ``"__key__"``, a PIL image and a class index. With mode "source" a sample's key is
            the source's without its suffix, ``"warbler/0001"``.
        out: The folder that ``sgdmix generate`` wrote.
        p: Probability of a synthetic image.
        mode: As for :class:`SyntheticMix`.
        image: Key of the image.
        label: Key of the label.

    Yields:
        Each sample, or a copy of it with a synthetic image, and its label where the mode is "pool".
    """
    _check(p, mode)
    pool = SyntheticPool(out)
    of_number = dict(zip(pool.numbers, pool.labels, strict=True))
    of_stem = {source.rpartition(".")[0]: source for source in pool.by_source}
    for sample in samples:
        source = of_stem.get(sample["__key__"], "")
        place = _drawn(pool, p, mode, source, of_number.get(int(sample[label]), ""))
        if place is None:
            yield sample
        else:
            number = pool.numbers[place] if mode == "pool" else sample[label]
            yield {**sample, image: pool.image(place), label: number}


def _replace(
    pool: SyntheticPool,
    p: float,
    mode: Mode,
    class_names: Sequence[str],
    image: str,
    label: str,
    source: str,
    transform: Callable[[Image.Image], Any] | None,
    batch: dict[str, list[Any]],
) -> dict[str, list[Any]]:
    images, labels = list(batch[image]), list(batch[label])
    if mode == "source" and source not in batch:
        raise InvalidInputError(f"mode='source' needs the column {source!r}, the batch has {sorted(batch)}")
    keys = batch.get(source, [""] * len(images))
    for row, number in enumerate(batch[label]):
        place = _drawn(pool, p, mode, keys[row], class_names[number])
        if place is not None:
            images[row] = pool.image(place)
            labels[row] = class_names.index(pool.labels[place])
    if transform is not None:
        images = [transform(one) for one in images]
    return {**batch, image: images, label: labels}


def _drawn(pool: SyntheticPool, p: float, mode: Mode, source: str, label: str) -> int | None:
    chance, which = torch.rand(2, dtype=torch.float64).tolist()
    places = pool.among(mode, source=source, label=label) if chance < p else ()
    return places[int(which * len(places))] if places else None


def _check(p: float, mode: str) -> None:
    if not 0 <= p <= 1:
        raise InvalidInputError(f"p must be a probability in [0, 1], got {p!r}")
    if mode not in get_args(Mode):
        raise InvalidInputError(f"mode must be 'source', 'class' or 'pool', got {mode!r}")


def _keys(real: Any) -> list[str]:
    if hasattr(real, "source_keys"):
        return list(real.source_keys)
    if not hasattr(real, "samples") or not hasattr(real, "root"):
        raise InvalidInputError(
            f"{type(real).__name__} does not tell its images' keys; pass source_keys=, one for each image, "
            "as sgdmix generate knew them: 'warbler/0001.jpg'"
        )
    return [Path(path).relative_to(real.root).as_posix() for path, *_ in real.samples]


def _members(shard: Path) -> dict[str, tuple[int, int]]:
    """Where each file of a tar archive begins, and its size."""
    try:
        with tarfile.open(shard) as tar:
            return {member.name: (member.offset_data, member.size) for member in tar}
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{shard} is damaged: {error}; run the same `sgdmix generate` again") from error


def _rows(out: Path) -> Iterator[Mapping[str, Any]]:
    path = out / METADATA
    if not path.is_file():
        raise DataError(f"{out} has no {METADATA}: sgdmix generate has not finished there")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
                sound = all(isinstance(row[key], str) for key in ("file_name", "label", "source"))
                sound = sound and isinstance(row["label_index"], int) and stays_below(row["file_name"])
            except (ValueError, KeyError, TypeError, RecursionError):
                sound = False
            if not sound:
                raise DataError(f"line {number} of {path} is damaged")
            yield row
