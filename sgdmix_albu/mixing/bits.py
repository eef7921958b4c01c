"""Images as their bits: gathered, chosen by a mask, counted and compared, without an opinion on what they mean.

On a CPU, torch chooses by a mask (``where``) and adds up bytes one by one. Here both are done a register at a time: by
exclusive-or, and on words of eight bytes; a few images at once, so that what is read twice is still in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.tensors import BOOL, PIXELS, check_rows, check_tensor
from sgdmix_albu.types import Rows

# By bytes: the integers as which an image's bits are read.
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_WORD = 8  # bytes
_LANE = 255  # ones that a byte of a word can count
_CACHE = 2**19  # bytes of images that are worked on at once
_GLANCE = 4  # every so many rows are added up on a CPU
# Odd numbers without a pattern (the golden ratio's, and two of splitmix64), as signed ones.
_MIXERS = (-7046029254386353131, -4658895280553007687, -7723592293110705685)


def as_integers(images: Tensor) -> Tensor:
    """The same memory read as signed integers, for comparing bit by bit: NaN equals NaN there."""
    check_tensor(images, "images", (), PIXELS, more=True)
    return _integers(images)


def _integers(images: Tensor) -> Tensor:
    return images.detach().as_subclass(Tensor).view(_INTEGERS[images.element_size()])


def areas(masks: Tensor) -> Tensor:
    """(N,) int32 pixels in each of (N, H, W) bool masks."""
    check_tensor(masks, "(N, H, W) bool masks", (-1, -1, -1), BOOL)
    if masks.device.type != "cpu":
        return masks.flatten(1).sum(1, dtype=torch.int32)
    # Eight counters stand side by side in a word, and none overflows.
    words = _words(masks.flatten(1))
    groups = words.shape[1] // _LANE
    grouped = words[:, : groups * _LANE].reshape(len(words), groups, _LANE)
    counters = [words[:, groups * _LANE :].sum(1, keepdim=True), grouped.sum(2)]
    return torch.cat(counters, 1).view(torch.uint8).sum(1, dtype=torch.int32)


def gathered(pool: Rows, target: Tensor, *, like: Tensor | None = None) -> Tensor:
    """Row ``target[i]`` of the pool for each i, in fresh memory; a sequence's in the memory format of ``like``."""
    if isinstance(pool, Joined) and target.device.type != "cpu":
        return pool.gathered(target)
    if not isinstance(pool, Tensor):
        chosen = [pool[row] for row in target.tolist()]
        if like is None or any(row.requires_grad for row in chosen):
            return torch.stack(chosen)
        return torch.stack(chosen, out=torch.empty_like(like)[: len(chosen)])
    if pool.requires_grad:
        return pool[target.to(pool.device)]
    bits, target = _integers(pool), target.to(pool.device)
    if bits.is_contiguous():
        return bits.flatten(1).index_select(0, target).view(len(target), *bits.shape[1:]).view(pool.dtype)
    last = bits.movedim(1, -1)  # channels last
    if bits.ndim != 4 or not last.is_contiguous():
        return bits[target].view(pool.dtype)
    taken = last.flatten(1).index_select(0, target).view(len(target), *last.shape[1:])
    return taken.movedim(-1, 1).view(pool.dtype)


class Joined(Sequence[Tensor]):
    """Images and further ones as the rows of one pool, without a copy of either."""

    def __init__(self, images: Tensor, further: Tensor) -> None:
        self.images, self.further = images, further

    def __len__(self) -> int:
        return len(self.images) + len(self.further)

    def __getitem__(self, row: Any) -> Any:
        count = len(self.images)
        return self.images[row] if row < count else self.further[row - count]

    def gathered(self, target: Tensor) -> Tensor:
        """Rows of both, without asking which are whose."""
        count = len(self.images)
        near = gathered(self.images, target.clamp_max(count - 1))
        far = gathered(self.further, (target - count).clamp_min(0))
        return torch.where(each(target < count, near), _integers(near), _integers(far)).view(near.dtype)


def check_gathered(pool: Rows, images: Tensor, target: Tensor) -> None:
    """Refuse a pool whose rows, those that are targets at least, are no images like these."""
    if isinstance(pool, Joined):
        check_rows(pool.images, images, ())
        check_rows(pool.further, images, ())
    else:
        check_rows(pool, images, () if isinstance(pool, Tensor) else target.tolist())


def overlaid(source: Tensor, pool: Rows, target: Tensor, masks: Tensor) -> Tensor:
    """The source's bits where the mask holds, and those of row ``target[i]`` of the pool elsewhere.

    Args:
        source: (B, ..., H, W), any real dtype and memory format.
        pool: Rows of the same shape and dtype.
        target: (B,) rows of the pool.
        masks: (B, H, W) bool.

    Returns:
        (B, ..., H, W) in fresh memory, the source's dtype and memory format; without a graph.
    """
    if source.device.type != "cpu":
        mixed = _integers(gathered(pool, target, like=source))
        return torch.where(aligned(masks, source), _integers(source), mixed).view(source.dtype)
    made = torch.empty_like(source.detach().as_subclass(Tensor))
    bits, own = _integers(made), _integers(source)
    others = _integers(pool).unbind() if isinstance(pool, Tensor) else pool
    rows = [others[row] if isinstance(pool, Tensor) else _integers(others[row]) for row in target.tolist()]
    singles = list(zip(own.unbind(), rows, bits.unbind(), strict=True))
    for part in parts(source):
        for kept, other, mixed in singles[part]:
            torch.bitwise_xor(kept, other, out=mixed)
        # 0 where the source is kept, and all ones elsewhere: what is not in the mix stands in no bit.
        elsewhere = masks[part].view(torch.int8).sub(1).to(bits.dtype)
        bits[part].bitwise_and_(aligned(elsewhere, source)).bitwise_xor_(own[part])
    return made


def aligned(masks: Tensor, images: Tensor) -> Tensor:
    """(B, H, W) to (B, 1, ..., 1, H, W) with the images' number of dimensions."""
    return masks.reshape(masks.shape[:1] + (1,) * (images.ndim - 3) + masks.shape[1:])


def each(rows: Tensor, images: Tensor) -> Tensor:
    """(B,) to (B, 1, ..., 1) with the images' number of dimensions."""
    return rows.view(-1, *[1] * (images.ndim - 1))


def bit_sums(images: Tensor) -> Tensor:
    """(B,) int64, a number for each image that equal images share, made of their bits as whole numbers.

    On a CPU it is the sum of every fourth row's: a glance, after which :func:`same_pixels` compares. On a GPU, where to
    compare is to wait, it is a hash of the whole image: two that differ share it once in 2^64.
    """
    check_tensor(images, "images (B, ..., H, W)", (-1, -1, -1), PIXELS, more=True)
    bits = _integers(images)
    if images.device.type == "cpu":
        return _words(bits[..., ::_GLANCE, :].flatten(1)).sum(1)
    words = _words(bits.flatten(1))
    words = words * _MIXERS[0] + torch.arange(words.shape[1], device=words.device) * _MIXERS[1]
    for mixer in _MIXERS:
        words = (words ^ (words >> 29)) * mixer
    return (words ^ (words >> 32)).sum(1)


def same_pixels(images: Tensor, pool: Rows, *, sums: Tensor | None = None, pool_sums: Tensor | None = None) -> Tensor:
    """Which pool images have exactly a source's pixels, (B, N) bool: repeats that a sampler put in a batch.

    Sums of their bits are compared first, so that only likely repeats are compared whole; on a GPU they decide.

    Args:
        images: (B, ..., H, W).
        pool: N rows of the same shape: a tensor, or a sequence of tensors with ``pool_sums``.
        sums: (B,), what :func:`bit_sums` says of the images, where it is known already.
        pool_sums: (N,), the same for the pool.

    Example:
        >>> import torch
        >>> images = torch.tensor([0.0, 1.0, 0.0])[:, None, None, None].expand(3, 3, 2, 2)
        >>> same_pixels(images, images)[0]
        tensor([ True, False,  True])
    """
    check_tensor(images, "images (B, ..., H, W)", (-1, -1, -1), PIXELS, more=True)
    check_rows(pool, images, None if pool_sums is None else ())
    sums = bit_sums(images) if sums is None else sums
    if pool_sums is None:
        pool_sums = bit_sums(pool if isinstance(pool, Tensor) else torch.stack([*pool]))
    for part, rows in ((sums, images), (pool_sums, pool)):
        check_tensor(part, f"an int64 sum for each of {len(rows)} images", (len(rows),), {torch.int64})
    likely = sums[:, None] == pool_sums
    if likely.device.type != "cpu":
        return likely
    known: list[int] = []
    told: list[int] = sums.tolist()
    for i, columns in enumerate(_columns(likely)):
        # What an equal source's comparisons gave: a batch of repeats would compare every pair.
        equal = next((k for k in known if told[k] == told[i] and _same_bits(images[i], images[k])), None)
        if equal is not None:
            likely[i] = likely[equal]
            continue
        known.append(i)
        for j in columns:
            if not _same_bits(images[i], pool[j]):
                likely[i, j] = False
    return likely


def _columns(likely: Tensor) -> list[list[int]]:
    """Where each row is true."""
    columns: list[list[int]] = [[] for _ in range(len(likely))]
    for i, j in likely.nonzero().tolist():
        columns[i].append(j)
    return columns


def _same_bits(one: Tensor, other: Tensor) -> bool:
    check_tensor(other, f"a pool of {one.dtype} {tuple(one.shape)} images", tuple(one.shape), {one.dtype})
    return torch.equal(_integers(one), _integers(other))


def _words(flat: Tensor) -> Tensor:
    """(N, n) numbers as (N, m) int64 words, filled up with zeros."""
    if not flat.numel():
        return torch.empty(len(flat), 0, dtype=torch.int64, device=flat.device)
    missing = -flat.shape[1] % (_WORD // flat.element_size())
    if missing:
        return F.pad(_integers(flat), (0, missing)).view(torch.int64)
    flat = flat.contiguous()
    begins_within = flat.storage_offset() * flat.element_size() % _WORD  # a view of other memory
    return (flat.clone() if begins_within else flat).view(torch.int64)


def parts(images: Tensor, size: int = _CACHE) -> Iterator[slice]:
    """Images that are worked on at once: on a CPU as many as ``size`` bytes hold, on a GPU all."""
    each = images[:1].numel() * images.element_size()
    step = size // max(each, 1) if images.device.type == "cpu" else len(images)
    step = max(1, step)
    return (slice(start, start + step) for start in range(0, len(images), step))
