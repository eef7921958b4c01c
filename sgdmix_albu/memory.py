"""Images of earlier batches, kept as further candidates, so that N = 50 works with small batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from sgdmix_albu.mixing import Described

__all__ = ["Memory"]


class Memory:
    """The last ``size`` images with what is known of them.

    An image may come with companions (segmentation masks, a second view) that are composited alike; the
    tensors of one image make a row. Rows that do not fit the current batch (another image size, dtype or
    number of companions) are forgotten, since they can never be targets in it.

    Args:
        size: The most images kept; 0 keeps none.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._rows: deque[tuple[tuple[Tensor, ...], Described]] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._rows)

    def recall(self, leaves: Sequence[Tensor], described: Described) -> tuple[list[tuple[Tensor, ...]], Described]:
        """Rows that fit, and the description of the whole pool: the batch first, then what is remembered.

        Args:
            leaves: The batch's tensors, each (B, ...), the image first.
            described: What is known of the batch's images.
        """
        fitting = [row for row in self._rows if _fits(row, leaves, described)]
        self._rows = deque(fitting, maxlen=self.size)
        for _, known in fitting:
            described = described.followed_by(known)
        return [tensors for tensors, _ in fitting], described

    def store(self, leaves: Sequence[Tensor], described: Described) -> None:
        """Remember the batch's images, copied, so that later changes to the batch do not reach them."""
        batch = len(described.masks)
        for i in range(max(0, batch - self.size), batch):
            tensors = tuple(leaf[i].as_subclass(torch.Tensor).clone() for leaf in leaves)
            self._rows.append((tensors, described.row(i)))


def _fits(row: tuple[tuple[Tensor, ...], Described], leaves: Sequence[Tensor], described: Described) -> bool:
    tensors, known = row
    return (
        len(tensors) == len(leaves)
        and all(
            tensor.shape == leaf.shape[1:] and tensor.dtype == leaf.dtype and tensor.device == leaf.device
            for tensor, leaf in zip(tensors, leaves, strict=True)
        )
        and known.maps.shape[1:] == described.maps.shape[1:]
        and (known.labels is None) == (described.labels is None)
    )
