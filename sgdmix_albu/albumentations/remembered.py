"""What was found out about donors in earlier calls, so that the same donors need not be looked at again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch

from sgdmix_albu.albumentations.arrays import Array
from sgdmix_albu.mixing.described import Described


class Seen(NamedTuple):
    """What is known of one picture.

    Attributes:
        description: For selection, N = 1, without labels.
        pixels: Equal for pictures of equal pixels.
        thumbnail: (C, h, w) small version in [0, 1], if the picture was stretched to the sources' size.
    """

    description: Described
    pixels: Hashable
    thumbnail: Array | None


def content(picture: Array) -> Hashable:
    """A key that two pictures share if they are equal: their digest, shape and dtype.

    Unlike ``id()`` it cannot mistake another array in the same memory for the first, nor miss a change in place.
    """
    return hashlib.sha256(np.ascontiguousarray(picture).data).digest(), picture.shape, picture.dtype.str


class Remembered:
    """What was seen in single pictures, by key; of more than ``size`` those unused for longest are forgotten.

    Masks take a bit a pixel. A copy or a pickle of it begins empty.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._rows: OrderedDict[Hashable, tuple[Seen, torch.Size]] = OrderedDict()
        self._lock = Lock()  # loaders that read in threads share their transforms

    def __len__(self) -> int:
        return len(self._rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return Remembered, (self.size,)

    def get(self, key: Hashable) -> Seen | None:
        """What was seen, if it was and is not forgotten."""
        with self._lock:
            if key not in self._rows:
                return None
            self._rows.move_to_end(key)
            seen, shape = self._rows[key]
        bits = np.unpackbits(seen.description.masks.numpy(), count=shape.numel()).view(bool)
        return seen._replace(description=replace(seen.description, masks=torch.from_numpy(bits).view(shape)))

    def put(self, key: Hashable, seen: Seen) -> None:
        """Keep what was seen."""
        masks = seen.description.masks
        packed = replace(seen.description, masks=torch.from_numpy(np.packbits(masks.numpy())))
        with self._lock:
            self._rows[key] = seen._replace(description=packed), masks.shape
            self._rows.move_to_end(key)
            while len(self._rows) > self.size:
                self._rows.popitem(last=False)
