"""Stage 2: for each source, the candidate with the nearest saliency map (SGD-Mix, section 5.1).

j* = argmin_j || Z_i - Z_j ||_2,  j != i
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import torch
from torch import Tensor

from sgdmix_albu.arguments import check_count, check_sequence, said
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.labels import class_ids
from sgdmix_albu.settings import MixSettings
from sgdmix_albu.tensors import BOOL, FLOATS, INTEGERS, check_generator, check_tensor
from sgdmix_albu.types import TargetClass

__all__ = ["class_allows", "draw_candidates", "nearest", "pairwise_distances", "same_ids", "uniform"]

_MOST = 2**31 - 1  # images of a pool
_STEPS = 65535  # of a map between 0 and 1, when two are compared


def pairwise_distances(maps: Tensor, pool: Tensor) -> Tensor:
    """Exact root-mean-square difference between every map and every map of the pool, by one matrix product.

    This is the paper's L2 distance divided by sqrt(h w), so that it lies in [0, 1] at every resolution; the
    argmin is the same. Maps are read in steps of 1/65535. Then ||a||^2 + ||b||^2 - 2ab is a sum of whole numbers
    below 2^53, which float64 adds exactly in any order: the batch, the threads and the processor do not
    change a distance, and equal ones are equal.

    Args:
        maps: (B, h, w) float in [0, 1], h w at most 2^20.
        pool: (N, h, w) float in [0, 1].

    Returns:
        (B, N) float64.

    Raises:
        InvalidInputError: The maps' sizes differ.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[[0.0, 0.0]], [[1.0, 1.0]]])
        >>> pairwise_distances(maps, maps)
        tensor([[0., 1.],
                [1., 0.]], dtype=torch.float64)
    """
    for part in (maps, pool):
        check_tensor(part, "maps (N, h, w) of floats in [0, 1]", (-1, -1, -1), FLOATS)
    if maps.shape[1:] != pool.shape[1:]:
        raise InvalidInputError(
            f"expected maps (B, h, w) and a pool (N, h, w) of one size, got {tuple(maps.shape)} and {tuple(pool.shape)}"
        )
    a, b = ((part.flatten(1).double() * _STEPS).round_() for part in (maps, pool))
    squared = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * (a @ b.T)
    return (squared / max(a.shape[1], 1)).sqrt_() / _STEPS


def nearest(distances: Tensor, eligible: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest eligible candidate of each source.

    Args:
        distances: (B, N) from :func:`pairwise_distances`.
        eligible: (B, N) bool, True where the candidate may be chosen.

    Returns:
        (B,) int64 rows of the pool, -1 where nothing is eligible, and (B,) distances, infinite there.
        Of candidates equally near, the lowest row wins.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[[0.0]], [[0.9]], [[1.0]]])
        >>> others = ~torch.eye(3, dtype=torch.bool)
        >>> nearest(pairwise_distances(maps, maps), others)[0]
        tensor([1, 2, 1])
    """
    check_tensor(distances, "distances (B, N)", (-1, -1), FLOATS)
    check_tensor(eligible, f"bool {tuple(distances.shape)}, who is eligible", tuple(distances.shape), BOOL)
    if not distances.shape[0] or not distances.shape[1]:
        none = torch.full(distances.shape[:1], -1, dtype=torch.int64, device=distances.device)
        return none, torch.full_like(none, torch.inf, dtype=distances.dtype)
    distance, chosen = distances.masked_fill(~eligible, torch.inf).min(1)
    return chosen.masked_fill(distance.isinf(), -1), distance


def draw_candidates(batch: int, pool: int, candidates: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw ``candidates`` rows of the pool for each source, without replacement and never the source itself.

    Source i is row i of the pool. When the pool holds no more than ``candidates`` others, all are taken and
    nothing random is drawn.

    Returns:
        (batch, pool) bool on the CPU, True where the row is a candidate.

    Example:
        >>> draw_candidates(2, 4, 50)
        tensor([[False,  True,  True,  True],
                [ True, False,  True,  True]])
    """
    for name, count in (("batch", batch), ("pool", pool)):
        check_count(name, count, "must be a number of images, 0 or more", least=0, most=_MOST)
    check_count("candidates", candidates, "must be a positive integer")
    if batch > pool:
        raise InvalidInputError(f"the pool must begin with the batch itself: got a batch of {batch}, a pool of {pool}")
    itself = torch.eye(batch, pool, dtype=torch.bool, device="cpu")
    if candidates >= pool - 1:
        return ~itself
    keys = uniform((batch, pool), generator).masked_fill_(itself, torch.inf)
    chosen = keys.topk(candidates, dim=1, largest=False).indices
    return torch.zeros_like(itself).scatter_(1, chosen, True)


def uniform(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """float32 draws in [0, 1) on the CPU, from a generator on any device; None for torch's own on the CPU."""
    check_generator(generator)
    check_sequence(shape, "a shape as a sequence of lengths")
    for length in shape:
        check_count("a length in shape", length, "must be 0 or more", least=0, most=_MOST)
    device = "cpu" if generator is None else generator.device
    return torch.rand(shape, generator=generator, dtype=torch.float32, device=device).cpu()


def class_allows(labels: Tensor, pool_labels: Tensor, target_class: TargetClass) -> Tensor:
    """Which candidates the class constraint allows: (B, N) bool.

    Args:
        labels: The sources' classes, (B,) or (B, K); see :func:`sgdmix_albu.mixing.labels.class_ids`.
        pool_labels: (N,) or (N, K), the same for the pool.
        target_class: "any", "same" or "different".

    Raises:
        InvalidInputError: An unknown constraint, or labels of another shape.

    Example:
        >>> import torch
        >>> class_allows(torch.tensor([0, 1]), torch.tensor([0, 1]), "different")
        tensor([[False,  True],
                [ True, False]])
    """
    MixSettings(target_class=target_class)
    labels, pool_labels = class_ids(labels, None), class_ids(pool_labels, None)
    equal = labels[:, None] == pool_labels[None]
    if target_class == "any":
        return torch.ones_like(equal)
    return equal if target_class == "same" else ~equal


def same_ids(ids: Sequence[Hashable] | Tensor, pool_ids: Sequence[Hashable] | Tensor) -> Tensor:
    """Which pool images are the same sample as a source, (B, N) bool: other views of it, or it from the last epoch.

    Args:
        ids: B sample identities: hashable keys (names, numbers), or an integer tensor (B,).
        pool_ids: N, the same for the pool.

    Raises:
        InvalidInputError: Keys that cannot be compared, or a tensor of another shape or dtype.

    Example:
        >>> same_ids(["a", "b"], ["a", "b", "a"])
        tensor([[ True, False,  True],
                [False,  True, False]])
    """
    numbers: dict[Hashable, int] = {}
    rows, columns = (
        torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys_of(part)], dtype=torch.int64)
        for part in (ids, pool_ids)
    )
    return rows[:, None] == columns


def keys_of(ids: Sequence[Hashable] | Tensor) -> list[Hashable]:
    """Sample identities as a list of hashable keys.

    Raises:
        InvalidInputError: Not a sequence of hashable keys or an integer tensor (B,).
    """
    if isinstance(ids, Tensor):
        check_tensor(ids, "ids as an integer tensor (B,)", (-1,), INTEGERS | BOOL)
        return list(ids.tolist())
    # The order of a set is not that of the images.
    if isinstance(ids, str | bytes | AbstractSet | Mapping) or not hasattr(ids, "__len__"):
        raise InvalidInputError(f"expected ids as B keys or an integer tensor (B,), got {type(ids).__name__}")
    try:
        told = list(ids)
    except TypeError:  # a class that has what its objects would have, an array without an axis
        raise InvalidInputError(f"expected ids as B keys or an integer tensor (B,), got {said(ids)}") from None
    for i, key in enumerate(told):
        if isinstance(key, Tensor) and key.ndim == 0:
            check_tensor(key, "ids of whole numbers", (), INTEGERS | BOOL)
            told[i] = key.item()
        elif isinstance(key, Tensor) or not hashable(key):
            raise InvalidInputError(f"expected hashable ids (names, numbers, tuples), got {type(key).__name__}")
    return told


def hashable(key: object) -> bool:
    """Whether this can be looked up; a tuple of lists cannot, whatever its type says."""
    try:
        hash(key)
    except TypeError:
        return False
    return True
