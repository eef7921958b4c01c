"""A data set in which real images are replaced by synthetic ones as they are drawn."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from sgdmix_albu.arguments import check_count, check_names, check_seed, said
from sgdmix_albu.datasets.real import RealImages
from sgdmix_albu.errors import DataError, InvalidInputError, InvalidTypeError
from sgdmix_albu.synthetic.choice import Choice, Mode, check_share_and_mode
from sgdmix_albu.synthetic.pool import SyntheticPool, opened


class SyntheticMix(Dataset[Any]):
    """A data set in which each image is replaced, with probability p, by a synthetic one.

    Replacing, not adding, keeps an epoch's length. Published methods differ in where the synthetic image comes from,
    ``mode``; the paper does not say which it uses.

    * "source": one made from the same image, with its label. DA-Fusion's way (Trabucco et al., ICLR
      2024: probability 0.5).
    * "class": any of its class, with its label. No published method that we know does this.
    * "pool": any of all, with its own label. What the released code of Diff-Mix does (Wang et al., CVPR 2024:
      probability 0.1, 0.3 for few shots). An epoch's share of each class moves towards that of the pool.
    * "balanced": first a class, with a probability proportional to 1 / (n + 1), where n is the number of its real
      images, then any of its images, with its own label; classes without synthetic images are skipped. What Diff-Mix
      does for long tails (probability 0.1): rare classes are seen more often than they are in ``real``.

    Args:
        real: A map-style data set of (image, label) with ``classes``, such as torchvision's ``ImageFolder``, or a
            ``torch.utils.data.Subset`` of one. "balanced" needs its ``targets``.
        out: The folder that ``sgdmix generate`` wrote, or a :class:`SyntheticPool` of it.
        p: Probability of a synthetic image, in [0, 1].
        mode: "source", "class", "pool" or "balanced".
        transform: For the synthetic images, PIL RGB; "real" uses ``real.transform``. A data set
            without that attribute needs its transform here; None leaves PIL.
            Setting the attribute later, as timm's ``create_loader`` does, sets ``real.transform`` too.
        source_keys: Key of each real image as ``sgdmix generate`` listed it, ``"warbler/0001.jpg"``; None for an
            ``ImageFolder``, which has them, or a data set with ``source_keys``.
        seed: None draws from torch's generator, as transforms do: different draws in each worker and epoch, the same
            ones after ``torch.manual_seed``. With a number from 0 to 2**63 - 1, each draw depends only on seed, epoch
            and index; then call :meth:`set_epoch`.

    Raises:
        InvalidInputError: Invalid settings, keys or plain labels are unknown, or ``out`` is a URL.
        DataError: The folder is not finished, damaged, or of other classes.

    Example:
        >>> import tempfile
        >>> from sgdmix_albu.datasets import get_dataset
        >>> from sgdmix_albu.expand import Settings, generate
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
        out: str | os.PathLike[str] | SyntheticPool,
        *,
        p: float = 0.5,
        mode: Mode = "source",
        transform: Callable[[Image.Image], Any] | Literal["real"] | None = "real",
        source_keys: Sequence[str] | None = None,
        seed: int | None = None,
    ) -> None:
        check_share_and_mode(p, mode)
        real_ones = isinstance(transform, str) and transform == "real"
        if transform is not None and not real_ones and not callable(transform):
            raise InvalidInputError(f"transform must be 'real', a function of images or None, got {said(transform)}")
        if seed is not None:
            check_seed(seed)
        self.real, self.p, self.mode, self.seed = real, p, mode, seed
        self._as_real, self._transform = real_ones, None if isinstance(transform, str) else transform
        self._known = RealImages(real)
        if real_ones and not hasattr(self._known.inner, "transform"):
            raise InvalidInputError(
                f"{type(self._known.inner).__name__} has no attribute 'transform'; pass transform= for the synthetic "
                "images"
            )
        self.pool = opened(out)
        self.classes = self._known.classes
        self.pool.check_classes(self.classes)
        if source_keys is not None:
            check_names("source_keys", source_keys)
        self.source_keys = self._known.keys() if source_keys is None else list(source_keys)
        if len(self.source_keys) != len(real):
            raise InvalidInputError(
                f"expected {len(real)} source_keys, one for each image, got {len(self.source_keys)}"
            )
        if mode == "source" and not set(self.source_keys) & set(self.pool.by_source):
            raise DataError(
                f"{self.pool.out} was made from other images: {next(iter(self.pool.by_source))!r} there, "
                f"{next(iter(self.source_keys), 'none')!r} here"
            )
        self._choice = Choice(self.pool, mode, self._known.counts() if mode == "balanced" else None)
        self._epoch = torch.zeros(1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # workers that persist see it too

    @property
    def transform(self) -> Callable[[Image.Image], Any] | None:
        """What synthetic images go through. Setting it sets it for real and synthetic images alike.

        Raises:
            InvalidInputError: The data set of real images has no such attribute, so it cannot be set.
        """
        found: Callable[[Image.Image], Any] | None = self._known.inner.transform if self._as_real else self._transform
        return found

    @transform.setter
    def transform(self, transform: Callable[[Image.Image], Any] | None) -> None:
        inner = self._known.inner
        if not hasattr(inner, "transform"):
            raise InvalidInputError(
                f"{type(inner).__name__} has no attribute 'transform', so real images would not go through this one"
            )
        inner.transform, self._as_real = transform, True

    def set_epoch(self, epoch: int) -> None:
        """Other draws, where ``seed`` was given; call it before each epoch, as for a ``DistributedSampler``."""
        check_count("epoch", epoch, "must be 0 or more", least=0)
        self._epoch.fill_(int(epoch))

    def __len__(self) -> int:
        return len(self.real)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """The real item, or a synthetic image and a label of the same kind.

        Raises:
            IndexError: There is no such item.
            InvalidTypeError: The index is no whole number.
        """
        try:
            place = operator.index(index)
        except (TypeError, RuntimeError):  # of tensors that hold no number
            raise InvalidTypeError(f"expected a whole number as index, got {said(index)}") from None
        place += len(self) if place < 0 else 0
        if not 0 <= place < len(self):
            # Not one of ours: iterating over a data set without an iterator ends at Python's own IndexError.
            raise IndexError(f"image {said(index)} of a data set of {len(self)}")
        item: tuple[Any, Any] | None = self._synthetic(place)
        return self.real[place] if item is None else item

    def _synthetic(self, index: int) -> tuple[Any, Any] | None:
        """What stands for a real item; None where it stays."""
        chance, which = self._draws(index)
        if chance >= self.p:
            return None
        # Some data sets read their image for a label; they are asked only where it is needed.
        label = None if self._choice.own_label else self._known.label(index)
        name = None if label is None else self.classes[label]
        place = self._choice.place(which, source=self.source_keys[index], label=name)
        if place is None:  # nothing was made from an image with flat saliency, for one
            return None
        if label is None:
            label = self.classes.index(self.pool.labels[place])
        image = self.pool.image(place)
        return image if self.transform is None else self.transform(image), self._known.transformed(label)

    def _draws(self, index: int) -> tuple[float, float]:
        if self.seed is None:
            chance, which = torch.rand(2, dtype=torch.float64).tolist()
            return chance, which
        entropy = (self.seed, int(self._epoch), index)
        chance, which = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy))).random(2).tolist()
        return chance, which
