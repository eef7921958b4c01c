"""Stage 4: composite source and target under the union mask (SGD-Mix, section 5.2).

I' = M * I_i + (1 - M) * I_j
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sgdmix_albu.arguments import check_number
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.bits import aligned, as_integers, check_gathered, gathered, overlaid
from sgdmix_albu.refusals import refuse_if
from sgdmix_albu.settings import MixSettings
from sgdmix_albu.tensors import BOOL, PIXELS, check_rows, check_tensor
from sgdmix_albu.types import Fill, Rows

__all__ = ["blend", "edge_width", "feathered", "softened"]

_STEPS = 65536  # of a weight between 0 and 1


def blend(source: Tensor, pool: Rows, target: Tensor, masks: Tensor, *, feather: float | None = 0) -> Tensor:
    """Keep the source inside the mask and use row ``target[i]`` of the pool elsewhere.

    Args:
        source: (B, ..., H, W), any real dtype and memory format; not changed.
        pool: Rows of the source's shape and dtype: an (N, ..., H, W) tensor or a sequence of N tensors.
        target: (B,) int64 rows of the pool.
        masks: (B, H, W) bool, True where the source is kept.
        feather: Width in pixels over which the source fades into the target *outside* the mask; inside it
            every pixel is exactly the source's. 0 is the paper's hard composite. None is a soft border, one pixel
            to either side of the mask's edge: :func:`softened`. Integer images are blended exactly and rounded;
            bool ones are always composited hard.

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
    feather = 0 if source.dtype == torch.bool else feather
    if has_graph(source, pool):
        return _followed(source, gathered(pool, target, like=source), masks, feather)
    if feather == 0:
        return overlaid(source, pool, target, masks)
    if source.device.type != "cpu":
        return _faded_everywhere(source, pool, target, edge_weights(masks, feather))
    edge = border(masks, feather)
    mixed = overlaid(source, pool, target, edge.inside)
    fade(mixed, source, edge)
    return mixed


def has_graph(source: Tensor, pool: Rows) -> bool:
    """Whether autograd is to follow the composite."""
    return source.requires_grad or any(row.requires_grad for row in ([pool] if isinstance(pool, Tensor) else pool))


def feathered(masks: Tensor, width: float) -> Tensor:
    """Soft weights of bool masks: exactly 1 inside, falling to 0 over ``width`` pixels outside.

    A box blur of side 2 width + 1, repeated once, gives at most 1/2 outside a straight edge and at least 1/2
    inside; doubling it and clamping puts the whole fall outside. Thin parts, which the blur would thin out,
    are kept by the maximum with the mask itself. The blur is made of running sums, so its cost does not grow with
    the width; weights are rounded to steps of 1/65536, with which integer images are blended without an error.

    Args:
        masks: (B, H, W) bool.
        width: Pixels, positive.

    Returns:
        (B, H, W) float32 in [0, 1].
    """
    check_tensor(masks, "(B, H, W) bool masks", (-1, -1, -1), BOOL)
    check_number("feather", width, "must be a width in pixels, 0 or more", low=0, high=math.inf)
    # Windows that hold the whole image at every pixel all say the same.
    radius = min(max(1, round(float(width) / 2)), max(masks.shape[1:]))
    soft = _box(_box(masks.double(), radius), radius)
    return torch.maximum((2 * soft * _STEPS).round_().clamp_(max=_STEPS) / _STEPS, masks.double()).float()


def softened(masks: Tensor) -> Tensor:
    """Soft weights of bool masks: the share of each pixel's 3 x 3 neighbourhood inside the mask.

    At a straight edge this is 2/3 just inside and 1/3 just outside. That is how often these pixels belong to the
    object: 0.64 and 0.37 by the guided preset, 0.60 and 0.27 by GrabCut, over 67 ECSSD photographs with true masks.
    A fade outside the mask only would show a seam of the source's old background.

    Args:
        masks: (B, H, W) bool.

    Returns:
        (B, H, W) float32 in [0, 1], in steps of 1/65536.

    Example:
        >>> masks = torch.tensor([[[True, True, True, False, False, False]]])
        >>> softened(masks)
        tensor([[[1.0000, 1.0000, 0.6667, 0.3333, 0.0000, 0.0000]]])
    """
    check_tensor(masks, "(B, H, W) bool masks", (-1, -1, -1), BOOL)
    found, most = _neighbours(masks)
    return _steps(found.float() / most)


def _neighbours(masks: Tensor) -> tuple[Tensor, Tensor]:
    """(B, H, W) uint8, how many of each pixel's 3 x 3 neighbourhood lie in the mask, and (H, W), how many there are."""
    ones = masks.new_ones(1, *masks.shape[1:])
    found, most = (_of_three(_of_three(part.view(torch.uint8), 1), 2) for part in (masks, ones))
    return found, most[0]


def _of_three(values: Tensor, dim: int) -> Tensor:
    """Sums of each entry and its neighbours along an axis."""
    sums = values.clone()
    rest = values.shape[dim] - 1
    sums.narrow(dim, 1, rest).add_(values.narrow(dim, 0, rest))
    sums.narrow(dim, 0, rest).add_(values.narrow(dim, 1, rest))
    return sums


def _steps(shares: Tensor) -> Tensor:
    """float32 in [0, 1], in steps with which integer images are blended without an error."""
    return (shares.float() * _STEPS).round_() / _STEPS


def edge_width(fill: Fill, feather: float | None) -> float | None:
    """The ``feather`` of :func:`blend`: the user's; if None, a soft border next to paint, else a hard edge.

    The source's own mask follows its outline, where pixels of the old background are seen first. A union
    mask mostly runs through backgrounds, and the paper's edge is hard.

    Example:
        >>> edge_width("source", None), edge_width("inpaint", None), edge_width("inpaint", 3)
        (0, None, 3)
    """
    MixSettings(fill=fill, feather=feather)
    return 0 if feather is None and fill == "source" else feather


def _box(values: Tensor, radius: int) -> Tensor:
    """Means of (B, H, W) over windows of 2 radius + 1 a side, cut at the border."""
    for axis in (1, 2):
        length = values.shape[axis]
        at = torch.arange(length, device=values.device)
        first, last = (at - radius).clamp_min(0), (at + radius + 1).clamp_max(length)
        sums = torch.cat([torch.zeros_like(values.narrow(axis, 0, 1)), values.cumsum(axis)], axis)
        count = (last - first)[:, None] if axis == 1 else last - first
        values = (sums.index_select(axis, last) - sums.index_select(axis, first)) / count
    return values


def edge_weights(masks: Tensor, feather: float | None) -> Tensor:
    """(B, H, W) float32 shares of the source."""
    if feather == 0:
        return masks.float()
    return softened(masks) if feather is None else feathered(masks, feather)


def _followed(source: Tensor, target: Tensor, masks: Tensor, feather: float | None) -> Tensor:
    """The composite of float images that autograd can follow."""
    if feather == 0:
        return torch.where(aligned(masks, source), source, target)
    weight = aligned(edge_weights(masks, feather), source)
    faded = torch.where(weight == 0, target, _faded(source, target, weight))
    return torch.where(weight == 1, source, faded)


def _faded_everywhere(source: Tensor, pool: Rows, target: Tensor, weight: Tensor) -> Tensor:
    """The composite as a GPU makes it: every pixel is faded, since to look for those that need it is to wait."""
    mixed = overlaid(source, pool, target, weight == 1)
    partly = aligned((weight > 0) & (weight < 1), source)
    faded = _faded(source, mixed, aligned(weight, source))
    return torch.where(partly, as_integers(faded), as_integers(mixed)).view(source.dtype)


class Border(NamedTuple):
    """Where sources are opaque, and where partly transparent.

    Attributes:
        inside: (B, H, W) bool.
        places: (n,) int64 image, row and column of the partly transparent pixels; None for no such pixels.
        shares: (n,) float32, of these; or None.
    """

    inside: Tensor
    places: tuple[Tensor, ...] | None = None
    shares: Tensor | None = None


def border(masks: Tensor, feather: float | None) -> Border:
    """What :func:`edge_weights` says, where it is no whole number."""
    if feather == 0:
        return Border(masks)
    if feather is not None:
        weight = feathered(masks, feather)
        places = ((weight > 0) & (weight < 1)).nonzero(as_tuple=True)
        return Border(weight == 1, places, weight[places])
    found, most = _neighbours(masks)
    inside = found == most
    places = ((found > 0) ^ inside).nonzero(as_tuple=True)
    return Border(inside, places, _steps(found[places].float() / most[places[1:]]))


def fade(mixed: Tensor, source: Tensor, edge: Border) -> None:
    """Let the source fade into what stands in ``mixed``, the bits of the target, where it has a part.

    Those are few pixels, and whole images in float64 would take several times the time of all the rest.
    """
    if edge.places is None or edge.shares is None:
        return
    image, row, column = edge.places
    bits, own = as_integers(mixed), as_integers(source)
    own, other = (part[image, ..., row, column].view(source.dtype) for part in (own, bits))
    share = edge.shares.reshape(-1, *[1] * (source.ndim - 3))
    bits[image, ..., row, column] = as_integers(_faded(own, other, share))


def _faded(source: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    if not source.dtype.is_floating_point:
        wide = torch.float32 if source.element_size() == 1 else torch.float64  # 8 bits and 16 of a weight: no error
        return torch.lerp(target.to(wide), source.to(wide), weight.to(wide)).round_().to(source.dtype)
    return torch.lerp(target.float(), source.float(), weight).to(source.dtype)


def _check(source: Tensor, pool: Rows, target: Tensor, masks: Tensor, feather: Any) -> None:
    check_tensor(source, "images (B, ..., H, W)", (-1, -1, -1), PIXELS, more=True)
    size = source.shape[:1] + source.shape[-2:]
    check_tensor(masks, f"bool masks {tuple(size)} for images {tuple(source.shape)}", tuple(size), BOOL)
    count = len(source)
    check_tensor(target, f"one target for each of {count} images, whole numbers", (count,), {torch.int64, torch.int32})
    MixSettings(feather=feather)
    if not count:
        return
    check_rows(pool, source, ())
    refuse_if(
        (target < 0) | (target >= len(pool)),
        lambda: InvalidInputError(
            f"expected targets among the {len(pool)} rows of the pool, got {int(target.min())} to {int(target.max())}"
        ),
    )
    check_gathered(pool, source, target)
