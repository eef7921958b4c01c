"""Stage 4: composite source and target under the union mask (SGD-Mix, section 5.2).

I' = M * I_i + (1 - M) * I_j
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.types import Rows

__all__ = ["blend", "feathered"]

_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def blend(source: Tensor, pool: Rows, target: Tensor, masks: Tensor, *, feather: float = 0) -> Tensor:
    """Keep the source where the mask holds and take row ``target[i]`` of the pool elsewhere.

    Args:
        source: (B, ..., H, W), any dtype and memory format; not changed.
        pool: Rows of the source's shape and dtype: an (N, ..., H, W) tensor or a sequence of N tensors.
        target: (B,) int64 rows of the pool.
        masks: (B, H, W) bool, True where the source is kept.
        feather: Width in pixels over which the source fades into the target *outside* the mask; inside it
            every pixel is exactly the source's. 0 is the paper's hard composite. Integer images are
            blended in float32 and rounded; bool ones are always composited hard.

    Returns:
        (B, ..., H, W) in fresh memory, the source's dtype, device and memory format.

    Raises:
        InvalidInputError: Shapes, dtypes or the feather width do not fit.

    Example:
        >>> import torch
        >>> images = torch.tensor([[[[1, 1]]], [[[2, 2]]]], dtype=torch.uint8)
        >>> masks = torch.tensor([[[True, False]], [[True, True]]])
        >>> blend(images, images, torch.tensor([1, 0]), masks).flatten(1)
        tensor([[1, 2],
                [2, 2]], dtype=torch.uint8)
    """
    _check(source, pool, target, masks, feather)
    if source.numel() == 0:
        return source.clone()
    if feather and source.dtype != torch.bool:
        return _blend_soft(source, _gather(source, pool, target), feathered(masks, feather))
    mixed = _bits(_gather(source, pool, target))
    # In place: no third batch in memory.
    return torch.where(_align(masks, source), _bits(source), mixed, out=mixed).view(source.dtype)


def feathered(masks: Tensor, width: float) -> Tensor:
    """Soft weights of bool masks: exactly 1 inside, falling to 0 over ``width`` pixels outside.

    A box blur of side 2 width + 1, repeated once, gives at most 1/2 outside a straight edge and at least 1/2
    inside; doubling it and clamping puts the whole fall outside. Thin parts, which the blur would thin out,
    are kept by the maximum with the mask itself.

    Args:
        masks: (B, H, W) bool.
        width: Pixels, positive.

    Returns:
        (B, H, W) float32 in [0, 1].
    """
    radius = max(1, round(width / 2))
    soft = masks[:, None].float()
    for _ in range(2):
        soft = F.avg_pool2d(soft, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)
    return torch.maximum((2 * soft[:, 0]).clamp_(max=1), masks.float())


def _blend_soft(source: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    weight = _align(weight, source)
    mixed = torch.lerp(target.float(), source.float(), weight)
    if not source.dtype.is_floating_point:
        mixed = mixed.round_()
    return torch.where(weight == 1, _bits(source), _bits(mixed.to(source.dtype))).view(source.dtype)


def _gather(source: Tensor, pool: Rows, target: Tensor) -> Tensor:
    """The chosen rows in fresh memory, in the source's memory format."""
    if isinstance(pool, Tensor):
        rows = _bits(pool)[target.to(pool.device)]  # unlike index_select, indexing keeps the format
        return rows.view(pool.dtype)
    return torch.stack([pool[row] for row in target.tolist()], out=torch.empty_like(source))


def _bits(images: Tensor) -> Tensor:
    """The same memory as signed integers where torch 2.8 can neither index nor choose: unsigned beyond 8 bits."""
    return images.view(_SIGNED.get(images.dtype, images.dtype))


def _align(masks: Tensor, images: Tensor) -> Tensor:
    """(B, H, W) to (B, 1, ..., 1, H, W) with the images' number of dimensions."""
    return masks.reshape(masks.shape[:1] + (1,) * (images.ndim - 3) + masks.shape[1:])


def _check(source: Tensor, pool: Rows, target: Tensor, masks: Tensor, feather: float) -> None:
    if source.ndim < 3 or masks.shape != source.shape[:1] + source.shape[-2:] or masks.dtype != torch.bool:
        raise InvalidInputError(
            "expected images (B, ..., H, W) and bool masks (B, H, W), got "
            f"{tuple(source.shape)} and {masks.dtype} {tuple(masks.shape)}"
        )
    if target.shape != source.shape[:1]:
        raise InvalidInputError(f"expected one target for each of {len(source)} images, got {tuple(target.shape)}")
    if len(source) and (pool[0].shape != source.shape[1:] or pool[0].dtype != source.dtype):
        raise InvalidInputError(
            f"expected a pool of {source.dtype} {tuple(source.shape[1:])} images, "
            f"got {pool[0].dtype} {tuple(pool[0].shape)}"
        )
    if not feather >= 0:
        raise InvalidInputError(f"feather must be a width in pixels, 0 or more, got {feather!r}")
