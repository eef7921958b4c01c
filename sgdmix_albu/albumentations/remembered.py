"""What was found out about donors in earlier calls, so that the same donors need not be looked at again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace
from threading import Lock
from typing import Any

import numpy as np
import torch

from sgdmix_albu.albumentations.arrays import Array
from sgdmix_albu.mixing import Described

__all__ = ["Remembered", "content"]


def content(picture: Array) -> Hashable:
    """A key that two pictures share if they are equal: their digest, shape and dtype.

    Unlike ``id()`` it cannot mistake another array in the same memory for the first, nor miss a change in place.
    """
    return hashlib.sha256(np.ascontiguousarray(picture)).digest(), picture.shape, picture.dtype.str


class Remembered:
    """Descriptions of single pictures by key; of more than ``size`` those unused for longest are forgotten.

    Its masks take a bit a pixel. A copy or a pickle of it begins empty.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._rows: OrderedDict[Hashable, tuple[Described, torch.Size, Hashable]] = OrderedDict()
        self._lock = Lock()  # loaders that read in threads share their transforms

    def __len__(self) -> int:
        return len(self._rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return Remembered, (self.size,)

    def get(self, key: Hashable) -> tuple[Described, Hashable] | None:
        """The description, N = 1, and what was kept with it."""
        with self._lock:
            if key not in self._rows:
                return None
            self._rows.move_to_end(key)
            known, shape, pixels = self._rows[key]
        bits = np.unpackbits(known.masks.numpy(), count=shape.numel()).view(bool)
        return replace(known, masks=torch.from_numpy(bits).view(shape)), pixels

    def put(self, key: Hashable, known: Described, pixels: Hashable) -> None:
        """Keep a description with N = 1 and no labels, and the content of the picture that it is about."""
        packed = replace(known, masks=torch.from_numpy(np.packbits(known.masks.numpy())))
        with self._lock:
            self._rows[key] = packed, known.masks.shape, pixels
            self._rows.move_to_end(key)
            while len(self._rows) > self.size:
                self._rows.popitem(last=False)
