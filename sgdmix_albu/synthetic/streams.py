"""Synthetic images for Hugging Face data sets and WebDataset pipelines, whose samples are dictionaries."""

from __future__ import annotations

import operator
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from sgdmix_albu.arguments import check_functions, check_names, check_sequence, check_text, said
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.printable import printable
from sgdmix_albu.synthetic.choice import Choice, Mode, check_share_and_mode
from sgdmix_albu.synthetic.pool import SyntheticPool, opened

_PATIENCE = 1000  # samples without a known key before a warning


def synthetic_batches(
    out: str | os.PathLike[str] | SyntheticPool,
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
        out: The folder that ``sgdmix generate`` wrote, or a :class:`SyntheticPool` of it.
        p: Probability of a synthetic image.
        mode: As for :class:`SyntheticMix`, but not "balanced"; "source" needs a column of keys.
        class_names: Names of the labels: ``dataset.features["label"].names``.
        image: Column of the images.
        label: Column of the labels, class indices.
        source: Column of the source keys.
        transform: For all images, real and synthetic, PIL RGB.

    Returns:
        A function of batches, which draws from torch's generator. It warns where none of the first thousand rows has
        a source that the folder knows.

    Raises:
        InvalidInputError: Invalid settings.
        DataError: The folder is not finished, damaged, or of other classes.
    """
    check_text(image=image, label=label, source=source)
    check_functions(transform=transform)
    check_names("class_names", class_names)
    stream = _Stream(out, p, mode, class_names)
    return _Batches(stream, image, label, source if mode == "source" else None, transform)


def synthetic_samples(
    samples: Iterable[dict[str, Any]],
    out: str | os.PathLike[str] | SyntheticPool,
    *,
    p: float = 0.5,
    mode: Mode = "source",
    class_names: Sequence[str] | None = None,
    image: str = "png",
    label: str = "cls",
) -> Iterator[dict[str, Any]]:
    """The same for WebDataset pipelines of decoded samples: ``pipeline.compose(partial(synthetic_samples, out=...))``.

    Args:
        samples: Dictionaries with ``"__key__"``, a PIL image and a class index. With mode "source" a sample's key is
            the source's without its suffix, ``"warbler/0001"``.
        out: The folder that ``sgdmix generate`` wrote, or a :class:`SyntheticPool` of it, which saves reading
            the folder again in each epoch.
        p: Probability of a synthetic image.
        mode: As for :class:`SyntheticMix`, but not "balanced".
        class_names: Names of the labels; None if they are those of the expanded set.
        image: Key of the image.
        label: Key of the label.

    Returns:
        Each sample, or a copy of it with a synthetic image, and its label where the mode is "pool". A warning says
        where neither the first thousand samples nor the whole stream have a key that the folder knows.

    Raises:
        InvalidInputError: Invalid settings.
        DataError: The folder is not finished, damaged, of other classes, or two of its sources share a key.
    """
    check_text(image=image, label=label)
    if class_names is not None:
        check_names("class_names", class_names)
    stream = _Stream(out, p, mode, class_names)
    source_of = _by_stem(stream.pool) if mode == "source" else {}
    return _replaced(samples, stream, source_of, image, label)


class _Batches:
    """The function that :func:`synthetic_batches` gives: a class, so that it can be sent to workers."""

    def __init__(
        self,
        stream: _Stream,
        image: str,
        label: str,
        source: str | None,
        transform: Callable[[Image.Image], Any] | None,
    ) -> None:
        self._stream, self._keys = stream, _Keys(stream.pool, stream.pool.by_source)
        self._image, self._label, self._source, self._transform = image, label, source, transform

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """A copy of the batch with some images, and perhaps their labels, replaced."""
        wanted = [self._image, self._label, *([] if self._source is None else [self._source])]
        _check_keys("a batch with the columns", batch, wanted)
        for name in wanted:
            check_sequence(batch[name], f"the column {name!r} as a list")
            if len(batch[name]) != len(batch[self._image]):
                raise InvalidInputError(f"expected columns of one length, got {len(batch[name])} in {name!r}")
        images, labels = list(batch[self._image]), list(batch[self._label])
        for row, key in enumerate([""] * len(images) if self._source is None else batch[self._source]):
            if self._source is not None:
                self._keys.note(key)
            images[row], labels[row] = self._stream.replaced(images[row], labels[row], source=key)
        if self._transform is not None:
            images = [self._transform(one) for one in images]
        return {**batch, self._image: images, self._label: labels}


def _replaced(
    samples: Iterable[dict[str, Any]], stream: _Stream, source_of: dict[str, str], image: str, label: str
) -> Iterator[dict[str, Any]]:
    keys = _Keys(stream.pool, source_of)
    try:
        coming = iter(samples)
    except TypeError:
        raise InvalidInputError(f"expected an iterable of dictionaries, got {said(samples)}") from None
    for sample in coming:
        _check_keys("samples with the keys", sample, ["__key__", image, label])
        if source_of:
            keys.note(sample["__key__"])
        source = source_of.get(sample["__key__"], "")
        picture, number = stream.replaced(sample[image], sample[label], source=source)
        yield sample if picture is sample[image] else {**sample, image: picture, label: number}
    keys.end()


def _check_keys(expected: str, held: Any, wanted: Sequence[str]) -> None:
    """Refuse what is no dictionary with these keys."""
    if not isinstance(held, Mapping) or not all(name in held for name in wanted):
        came = f"one with {', '.join(map(said, held)) or 'none'}" if isinstance(held, Mapping) else said(held)
        raise InvalidInputError(f"expected {expected} {', '.join(map(repr, wanted))}, got {came}")


class _Stream:
    """A draw for each sample, and labels by their names."""

    def __init__(
        self, out: str | os.PathLike[str] | SyntheticPool, p: float, mode: Mode, class_names: Sequence[str] | None
    ) -> None:
        check_share_and_mode(p, mode)
        if mode == "balanced":
            raise InvalidInputError("mode='balanced' needs the number of real images of each class: use SyntheticMix")
        self.pool, self.p = opened(out), p
        self._choice = Choice(self.pool, mode)
        if class_names is None:
            self._names = dict(zip(self.pool.numbers, self.pool.labels, strict=True))
        else:
            self.pool.check_classes(class_names)
            self._names = dict(enumerate(class_names))
        self._last = None if class_names is None else len(class_names) - 1
        self._numbers = {name: number for number, name in self._names.items()}

    def replaced(self, image: Any, label: Any, *, source: str) -> tuple[Any, Any]:
        """The image and its label, or others in their stead."""
        name = self._name(label)
        chance, which = torch.rand(2, dtype=torch.float64).tolist()
        place = self._choice.place(which, source=source, label=name) if chance < self.p else None
        if place is None:
            return image, label
        return self.pool.image(place), self._numbers[self.pool.labels[place]] if self._choice.own_label else label

    def _name(self, label: Any) -> str | None:
        """None for a class of which nothing was made, where all that is known of classes is the folder."""
        try:
            number = operator.index(label)
        except TypeError:
            number = -1
        if number < 0 or (self._last is not None and number > self._last):
            limits = "0 or more" if self._last is None else f"0 to {self._last}"
            raise InvalidInputError(f"expected a class index, {limits}, as label; got {said(label)}")
        return self._names.get(number)


class _Keys:
    """Warns once where no sample has a key that the folder knows: all images would stay real, and nothing said."""

    def __init__(self, pool: SyntheticPool, known: Collection[str]) -> None:
        self._pool, self._known = pool, known
        self._seen, self._settled, self._example = 0, False, ""

    def note(self, key: str) -> None:
        """Called for every sample."""
        if self._settled:
            return
        self._seen, self._example, self._settled = self._seen + 1, key, key in self._known
        if self._seen == _PATIENCE:
            self.end()

    def end(self) -> None:
        """Called where there are no more."""
        if self._seen and not self._settled:
            self._settled = True
            warnings.warn(
                printable(
                    f"none of {self._seen} samples was expanded in {self._pool.out}, so all stay real: "
                    f"{self._example!r} here, {next(iter(self._known))!r} there"
                ),
                stacklevel=2,
            )


def _by_stem(pool: SyntheticPool) -> dict[str, str]:
    """Key of each source as WebDataset has it, without the suffix."""
    found: dict[str, str] = {}
    for source in pool.by_source:
        stem = source.rpartition(".")[0]
        if stem in found:
            raise DataError(f"{pool.out} was made from {found[stem]} and {source}, which share the key {stem!r}")
        found[stem] = source
    return found
