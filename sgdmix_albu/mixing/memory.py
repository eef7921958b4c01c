"""Images of earlier batches, kept as further candidates, so that N = 50 works with small batches."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.described import Described
from sgdmix_albu.mixing.selection import as_integers
from sgdmix_albu.types import MixPlan

__all__ = ["Memory", "Recalled"]


@dataclass(frozen=True)
class Recalled:
    """The images that a memory holds, N of them, in the order of its places.

    Attributes:
        described: What selection needs to know of them.
        sums: (N,) int64, their :func:`sgdmix_albu.mixing.selection.bit_sums`.
        keys: N sample identities, None where nobody told.
        leaves: For each tensor of a sample (the image first) the memory's own (N, ...) rows: they change with the next
            :meth:`Memory.store`.
    """

    described: Described
    sums: Tensor
    keys: list[Hashable | None]
    leaves: list[Tensor]

    def taken(self, plan: MixPlan) -> tuple[MixPlan, list[Tensor]]:
        """Copies, for each tensor, of the rows that became targets, and the plan with these alone behind the batch."""
        count = len(plan.target)
        far = torch.unique(plan.target[plan.target >= count])
        if not len(far):
            return plan, []
        target = torch.where(plan.target < count, plan.target, count + torch.searchsorted(far, plan.target))
        return replace(plan, target=target), [rows[(far - count).to(rows.device)] for rows in self.leaves]


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
        self._leaves: list[Tensor] = []
        self._described: dict[str, Any] = {}
        self._keys: list[Hashable | None] = []
        self._used = self._next = 0
        self._forget()

    def __len__(self) -> int:
        return self._used

    def recall(self, leaves: Sequence[Tensor], described: Described) -> Recalled | None:
        """What is remembered and fits this batch; None if nothing does.

        Args:
            leaves: The batch's tensors, each (B, ...), the image first.
            described: What is known of the batch's images.
        """
        if self._used and not self._fits(leaves, described):
            self._forget()
        if not self._used:
            return None
        known: dict[str, Any] = {
            name: None if rows is None else rows[: self._used] for name, rows in self._described.items()
        }
        return Recalled(
            Described(**known),
            self._sums[: self._used],
            self._keys[: self._used],
            [rows[: self._used] for rows in self._leaves],
        )

    def store(
        self,
        leaves: Sequence[Tensor],
        described: Described,
        sums: Tensor,
        keys: Sequence[Hashable] | None = None,
    ) -> None:
        """Remember the batch's images, copied, so that later changes to the batch do not reach them."""
        count = min(self.size, len(described.masks))
        if not count:
            return
        if not self._used:
            try:
                self._make(leaves, described, sums)
            except (MemoryError, RuntimeError) as error:
                raise InvalidInputError(f"there is no room for a memory of {self.size} such images: {error}") from error
        new = range(len(described.masks) - count, len(described.masks))
        places = [(self._next + i) % self.size for i in range(count)]
        where = torch.tensor(places, device=sums.device)
        for rows, leaf in zip(self._leaves, leaves, strict=True):
            _write(rows, where, leaf.detach().as_subclass(Tensor)[new.start :])
        for name, value in vars(described).items():
            if value is not None:
                _write(self._described[name], where, value[new.start :])
        _write(self._sums, where, sums[new.start :])
        for place, i in zip(places, new, strict=True):
            self._keys[place] = None if keys is None else keys[i]
        self._next = (self._next + count) % self.size
        self._used = min(self.size, self._used + count)

    # Tensors made in inference mode could not be written outside it: one transform may serve validation and training.
    @torch.inference_mode(False)
    def _make(self, leaves: Sequence[Tensor], described: Described, sums: Tensor) -> None:
        self._leaves = [_room(self.size, leaf) for leaf in leaves]
        self._described = {
            name: None if value is None else _room(self.size, value) for name, value in vars(described).items()
        }
        self._sums = _room(self.size, sums)
        self._keys = [None] * self.size

    def _forget(self) -> None:
        self._used = self._next = 0
        self._leaves = []
        self._described = {}
        self._sums = torch.zeros(0, dtype=torch.int64)
        self._keys = []

    def _fits(self, leaves: Sequence[Tensor], described: Described) -> bool:
        return (
            len(leaves) == len(self._leaves)
            and all(_alike(rows, leaf) for rows, leaf in zip(self._leaves, leaves, strict=True))
            and self._described["maps"].shape[1:] == described.maps.shape[1:]
            and (self._described["labels"] is None) == (described.labels is None)
        )


def _room(size: int, like: Tensor) -> Tensor:
    return torch.empty(size, *like.shape[1:], dtype=like.dtype, device=like.device)


def _alike(rows: Tensor, leaf: Tensor) -> bool:
    return rows.shape[1:] == leaf.shape[1:] and rows.dtype == leaf.dtype and rows.device == leaf.device


def _write(rows: Tensor, places: Tensor, values: Tensor) -> None:
    # As integers: torch writes no uint16 rows by index.
    as_integers(rows).index_copy_(0, places.to(rows.device), as_integers(values))
