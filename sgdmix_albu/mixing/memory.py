"""Images of earlier batches, kept as further candidates, so that N = 50 works with small batches."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.bits import as_integers, gathered
from sgdmix_albu.mixing.described import Described
from sgdmix_albu.types import MixPlan


@dataclass(frozen=True)
class Recalled:
    """The images that a memory holds, N of them, in the order of its places.

    Attributes:
        described: What selection needs to know of them.
        keys: N sample identities, None where nobody told.
        leaves: For each tensor of a sample (the image first) the memory's own (N, ...) rows: they change with the next
            :meth:`Memory.store`.
    """

    described: Described
    keys: list[Hashable | None]
    leaves: list[Tensor]

    def taken(self, plan: MixPlan) -> tuple[MixPlan, list[Tensor]]:
        """Copies, for each tensor, of the rows that became targets, and the plan with these alone behind the batch."""
        count = len(plan.target)
        if plan.target.device.type != "cpu":  # a row for each image, needed or not: to count them is to wait
            behind = torch.arange(count, 2 * count, device=plan.target.device)
            target = torch.where(plan.target < count, plan.target, behind)
            wanted = (plan.target - count).clamp_min(0)
        else:
            far = torch.unique(plan.target[plan.target >= count])
            if not len(far):
                return plan, []
            target = torch.where(plan.target < count, plan.target, count + torch.searchsorted(far, plan.target))
            wanted = far - count
        return replace(plan, target=target), [gathered(rows, wanted) for rows in self.leaves]


class Memory:
    """The last ``size`` images with what is known of them, in tensors that are made once and written over in turn.

    An image may come with companions (segmentation masks, a second view) that are composited alike; the
    tensors of one image make a row. When a batch comes that the rows do not fit (another image size, dtype, device or
    number of companions), they are forgotten, since they can never be targets in it.

    Args:
        size: The most images kept; 0 keeps none.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._rows: dict[Any, Tensor] = {}
        self._keys: list[Hashable | None] = []
        self._used = self._next = 0

    def __len__(self) -> int:
        return self._used

    def recall(self, leaves: Sequence[Tensor], described: Described) -> Recalled | None:
        """What is remembered and fits this batch; None if nothing does.

        Args:
            leaves: The batch's tensors, each (B, ...), the image first.
            described: What is known of the batch's images.
        """
        columns = _columns(leaves, described)
        if _form(self._rows) != _form(columns):
            self._rows, self._keys = {}, []  # their memory is free before the new rows take theirs
            self._used = self._next = 0
        if not self._used:
            return None
        known = {name: rows[: self._used] for name, rows in self._rows.items()}
        own = [known.pop(place) for place in range(len(leaves))]
        return Recalled(Described(**known), self._keys[: self._used], own)

    def store(self, leaves: Sequence[Tensor], described: Described, keys: Sequence[Hashable] | None = None) -> None:
        """Remember the batch's images, copied, so that later changes to the batch do not reach them."""
        count = min(self.size, len(described.masks))
        if not count:
            return
        columns = _columns(leaves, described)
        if not self._used:
            try:
                self._make(columns)
            except (MemoryError, RuntimeError) as error:
                raise InvalidInputError(f"not enough memory for memory={self.size} such images: {error}") from error
        first = len(described.masks) - count
        places = [(self._next + i) % self.size for i in range(count)]
        where = (torch.arange(count, device=described.masks.device) + self._next) % self.size
        for name, column in columns.items():
            # As integers: torch writes no uint16 rows by index.
            rows = as_integers(self._rows[name])
            rows.index_copy_(0, where.to(rows.device), as_integers(column[first:]))
        for i, place in enumerate(places, first):
            self._keys[place] = None if keys is None else keys[i]
        self._next = (self._next + count) % self.size
        self._used = min(self.size, self._used + count)

    # Tensors made in inference mode could not be written outside it: one transform may serve validation and training.
    @torch.inference_mode(False)
    def _make(self, columns: dict[Any, Tensor]) -> None:
        self._rows = {
            name: torch.empty(self.size, *column.shape[1:], dtype=column.dtype, device=column.device)
            for name, column in columns.items()
        }
        self._keys = [None] * self.size


def _columns(leaves: Sequence[Tensor], described: Described) -> dict[Any, Tensor]:
    """What there is to remember, an image a row: a sample's tensors by their places, what is known of it by name."""
    known = {name: value for name, value in vars(described).items() if value is not None}
    return {place: leaf.detach().as_subclass(Tensor) for place, leaf in enumerate(leaves)} | known


def _form(columns: dict[Any, Tensor]) -> dict[Any, Any]:
    return {name: (column.shape[1:], column.dtype, column.device) for name, column in columns.items()}
