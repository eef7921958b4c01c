"""A data set of image files whose saliency maps come from a bank, for training on them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional

from sgdmix_albu.arguments import check_names, said
from sgdmix_albu.bank.maps import SaliencyBank
from sgdmix_albu.datasets.real import RealImages
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.saliency.given import SaliencyMap


class WithMaps(Dataset[Any]):
    """Images with their maps from a bank: (image, map, label), with one transform for image and map.

    Give the loader :func:`sgdmix_albu.saliency.collate`, which keeps the maps' type, and mix with
    ``SGDMix("given")``. If the bank holds finished masks, use ``mask="otsu"``.

    Args:
        dataset: Map-style, of (image, label) without a transform: an ``ImageFolder``, a data set with
            ``source_keys``, or a ``Subset`` of one. Images are PIL or tensors (C, H, W).
        bank: A :class:`SaliencyBank`, or its folder.
        transform: A torchvision v2 transform, or another function of (image, map); None changes nothing.
        source_keys: Key of each image as the bank lists it, ``"warbler/0001.jpg"``; None for data sets that have them.

    Raises:
        InvalidInputError: The data set has a transform of its own, which would not move the maps, or unknown keys.
        DataError: The bank lacks an image, or there is no bank.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from torchvision.datasets import ImageFolder
        >>> from torchvision.transforms import v2
        >>> from sgdmix_albu.datasets import get_dataset
        >>> from sgdmix_albu.datasets.tree import write_tree
        >>> from sgdmix_albu.saliency import build_bank
        >>> photos, maps = (Path(tempfile.mkdtemp()) / name for name in ("photos", "maps"))
        >>> _ = write_tree(get_dataset("aviary", per_species=1, size=64), photos)
        >>> _ = build_bank(photos, maps, "spectral_residual", progress=False)
        >>> data = WithMaps(ImageFolder(photos), maps, v2.Compose([v2.ToImage(), v2.RandomCrop(48)]))
        >>> image, saliency, label = data[3]
        >>> tuple(image.shape), tuple(saliency.shape), label
        ((3, 48, 48), (48, 48), 3)
    """

    # Where users import it from, and where pickle finds it.
    __module__ = "sgdmix_albu.bank"

    def __init__(
        self,
        dataset: Any,
        bank: SaliencyBank | str | os.PathLike[str],
        transform: Callable[..., Any] | None = None,
        *,
        source_keys: Sequence[str] | None = None,
    ) -> None:
        known = RealImages(dataset)
        own = getattr(known.inner, "transform", None)
        if own is not None:
            raise InvalidInputError(
                "expected a data set without a transform, since its crops and flips would not move the maps; give "
                f"WithMaps the transform instead, got {said(own)}"
            )
        if source_keys is not None:
            check_names("source_keys", source_keys)
        self.dataset, self.transform, self.classes = dataset, transform, known.classes
        self.bank = bank if isinstance(bank, SaliencyBank) else SaliencyBank(bank)
        self.source_keys = known.keys() if source_keys is None else list(source_keys)
        if len(self.source_keys) != len(dataset):
            raise InvalidInputError(
                f"expected {len(dataset)} source_keys, one for each image, got {len(self.source_keys)}"
            )
        missing = sorted(set(self.source_keys) - set(self.bank.keys))
        if missing:
            raise DataError(
                f"{self.bank!r} lacks {len(missing)} of {len(dataset)} images, {missing[0]!r} among them: it was "
                "made from another folder, they were added later, or they could not be read (see its `skipped`)"
            )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, Any, Any]:
        """The image, its map (H, W) uint8 of the image's size, and its label; 255 is the most salient.

        Raises:
            DataError: The map's bytes are not those that were written.
        """
        image, label = self.dataset[index]
        found = self.bank[self.source_keys[index]]
        height, width = functional.get_size(image)
        if (height, width) != tuple(found.shape):
            found = functional.resize(found[None], [height, width])[0]
        saliency = SaliencyMap(found)
        if self.transform is not None:
            image, saliency = self.transform(image, saliency)
        return image, saliency, label
