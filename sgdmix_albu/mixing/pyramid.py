"""Pull-push: colours around holes, spread into them.

Known pixels are averaged into ever coarser images until no cell is unknown; on the way back each unknown cell takes
what the coarser image says. The last step, to the full size, is made everywhere or only where somebody looks.
Gortler, Grzeszczuk, Szeliski and Cohen, "The Lumigraph", SIGGRAPH 1996, section 3.4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.refusals import refuse_if


def halved(values: Tensor) -> Tensor:
    """(B, C, H, W) to sums of two by two, (B, C, ceil(H / 2), ceil(W / 2)); see :func:`_halved` for odd lengths."""
    return _halved(_halved(values, 2), 3)


def without_holes(sums: Tensor, known: Tensor) -> Tensor:
    """Half the size of an image, without holes.

    Args:
        sums: (B, C, h, w) floats, :func:`halved` of the image with zeros in the holes.
        known: (B, 1, H, W) bool, where there is none.

    Returns:
        (B, C, h, w): means where a pixel is known, else what is around.
    """
    has_hole = (~known).flatten(1).any(1)[:, None, None, None]
    finer = []
    while True:
        counts = halved(known.view(torch.uint8))  # 16 at the most
        known = counts > 0
        values = sums.div_(counts.clamp(min=1))
        if max(values.shape[-2:]) == 1 or (known.device.type == "cpu" and bool(known.all())):
            break
        finer.append((values, known))
        sums = halved(values)
    words = "expected finite pixels around the holes, got NaN, infinite or far too large ones"
    refuse_if(~values.isfinite() & has_hole, lambda: InvalidInputError(words))
    while finer:
        fine, known = finer.pop()
        # Where nothing is known, the sum is 0; to choose by a mask would take longer.
        values = enlarged(values, fine.shape[-2:]).mul_((~known).to(fine.dtype)).add_(fine)
    return values


def _halved(values: Tensor, dim: int) -> Tensor:
    """Sums along one axis at half its length: of two neighbours each, or where it is odd of 1, 2, 1 around every other.

    Both are symmetric, so that a flipped image is painted flipped.
    """
    rows = values.movedim(dim, 0)
    even, odd = rows[0::2], rows[1::2]
    if len(even) == len(odd):
        return (even + odd).movedim(0, dim)
    sums = even + even
    sums[:-1] += odd
    sums[1:] += odd
    return sums.movedim(0, dim)


def enlarged(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """Back to the finer size, by linear interpolation between the centres of the cells that :func:`_halved` made.

    Along the rows first, where neighbours lie in different words: there are half as many of them.
    """
    for dim, length in zip((3, 2), reversed(size), strict=True):
        rows = values.movedim(dim, 0)
        pairs = values.new_empty((*values.shape[:dim], len(rows), 2, *values.shape[dim + 1 :]))
        first, second = pairs.movedim((dim, dim + 1), (0, 1)).unbind(1)
        odd = length % 2
        slope = rows.diff(dim=0).mul_(0.5 if odd else 0.25)
        torch.add(rows[:-1], slope, out=second[:-1])
        second[-1:] = rows[-1:]
        if odd:
            first[:] = rows
        else:
            torch.sub(rows[1:], slope, out=first[1:])
            first[:1] = rows[:1]
        values = pairs.flatten(dim, dim + 1).narrow(dim, 0, length)
    return values


def enlarged_at(values: Tensor, size: tuple[int, ...], image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """:func:`enlarged` at n pixels of the finer size: (n, C), the same bits.

    Args:
        values: (B, C, h, w).
        size: (H, W).
        image: (n,) int64, of B.
        row: (n,) int64, of H.
        column: (n,) int64, of W.
    """
    height, width = values.shape[-2:]
    cells = values.movedim(1, -1).flatten(0, 2)
    above, below, down = _between(row, size[0])
    left, right, across = _between(column, size[1])
    lines = []
    for line in (above, below):
        start = (image * height + line) * width
        first, second = (cells.index_select(0, start + place) for place in (left, right))
        lines.append(second.sub_(first).mul_(across).add_(first))
    first, second = lines
    return second.sub_(first).mul_(down).add_(first)


def _between(places: Tensor, length: int) -> tuple[Tensor, Tensor, float]:
    """For places along an axis of this length: the cell that each lies in, the nearest other one, and that one's share.

    At the ends there is no other one.
    """
    cell, odd = places >> 1, places & 1
    if length % 2:  # cells are centred on every other place
        return cell, cell + odd, 0.5
    return cell, (cell + 2 * odd - 1).clamp(0, (length - 1) // 2), 0.25
