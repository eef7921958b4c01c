"""Where the source's object goes in the mix: where it was, or scaled and moved at random.

The second is the free placement of ForAug (Nauen, Moser, Raue, Frolov and Dengel, arXiv 2503.09399), in the setting of
its published code: the object's area is drawn between that of the smaller and that of the larger of the two objects,
widened by 30%, and its place uniformly among those where it fits the frame. Here it never grows beyond the frame (there
it is cropped), and never shrinks below 1/100 of the image: an object too small to see cannot carry the label.

A placement is (scale, dy, dx): the point (y, x) of the source, in pixels and with (0, 0) the corner of the first one,
moves to (scale y + dy H, scale x + dx W). (1, 0, 0) changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.bits import as_integers
from sgdmix_albu.mixing.blending import edge_weights
from sgdmix_albu.mixing.fill import inpaint_nearest
from sgdmix_albu.refusals import refuse_if
from sgdmix_albu.tensors import sent

_WIDENED = 0.3  # of the range of areas, to either side
_LEAST = 0.01  # of the image's area: objects that are larger do not become smaller than this
_LEAST_SHARE = 1e-6  # of a pixel: what is divided by less than this says no colour
# float32 holds them and their products with a weight.
_NARROW = frozenset({torch.uint8, torch.int8, torch.float16, torch.bfloat16, torch.float32})


def placements(masks: Tensor, areas: Tensor, theirs: Tensor, drawn: Tensor, max_coverage: float) -> Tensor:
    """Scale and place of each object, from uniform draws.

    Args:
        masks: (B, H, W) bool, the sources' objects.
        areas: (B,) pixels in them.
        theirs: (B,) pixels in the targets' own objects.
        drawn: (B, 3) uniform in [0, 1): for area, y and x.
        max_coverage: The largest share of the image that an object grows to.

    Returns:
        (B, 3) float64 scale, dy, dx; (1, 0, 0) for empty masks.

    Example:
        >>> masks = torch.zeros(1, 10, 10, dtype=torch.bool)
        >>> masks[0, :2, :4] = True
        >>> placements(masks, torch.tensor([8]), torch.tensor([32]), torch.tensor([[0.8, 0.5, 0]]), 0.95)
        tensor([[2.0736, 0.3000, 0.0000]], dtype=torch.float64)
    """
    height, width = masks.shape[1:]
    drawn, areas, theirs = (sent(part.double(), masks.device) for part in (drawn, areas, theirs))
    top, tall = _extent(masks.any(2))
    left, wide = _extent(masks.any(1))
    small = torch.minimum(areas, theirs) * (1 - _WIDENED)
    large = torch.maximum(areas, theirs) * (1 + _WIDENED)
    least = areas.clamp_max(_LEAST * height * width)
    area = (small + drawn[:, 0] * (large - small)).clamp_max(max_coverage * height * width)
    scale = (torch.maximum(area, least) / areas.clamp_min(1)).sqrt()
    scale = torch.minimum(scale, torch.minimum(height / tall.clamp_min(1), width / wide.clamp_min(1)))
    dy = (_drawn_place(drawn[:, 1], height - scale * tall) - scale * top) / height
    dx = (_drawn_place(drawn[:, 2], width - scale * wide) - scale * left) / width
    return torch.where((areas > 0)[:, None], torch.stack([scale, dy, dx], 1), unmoved(len(masks), masks.device))


def _drawn_place(drawn: Tensor, room: Tensor) -> Tensor:
    """(B,) whole pixels from 0 to the room that is left: an object that keeps its size keeps its pixels, too."""
    whole = room.clamp_min(0).floor()
    return (drawn * (whole + 1)).floor().minimum(whole)


def unmoved(count: int, device: torch.device) -> Tensor:
    """(count, 3): placements that change nothing."""
    unmoved = torch.zeros(count, 3, dtype=torch.float64, device=device)
    unmoved[:, 0] = 1
    return unmoved


def moved_masks(masks: Tensor, placement: Tensor) -> Tensor:
    """(B, H, W) bool: the pixels of which the moved objects cover at least half."""
    return _moved(masks[:, None].float(), placement)[:, 0] >= 0.5 if len(masks) else masks.clone()


def moved_instances(instances: Tensor, masks: Tensor, placement: Tensor) -> Tensor:
    """(B, ..., H, W) values of the objects where these come to stand, 0 elsewhere: each the object's nearest one."""
    return pasted(instances, torch.zeros_like(instances), masks, placement, feather=0, hard=True)


def moved_points(points: Tensor, placement: Tensor, size: Sequence[int]) -> Tensor:
    """Where (N, 2) points x, y in pixels come to stand, float64; (0.0, 0.0) to (1.0, 1.0) is the first pixel.

    Args:
        points: Of one image.
        placement: (3,) scale, dy, dx.
        size: (H, W) of the image.

    Example:
        >>> moved_points(torch.tensor([[4.0, 2.0]]), torch.tensor([0.5, 0.25, 0]), (8, 8))
        tensor([[2., 3.]], dtype=torch.float64)
    """
    scale, dy, dx = placement.double().unbind()
    shift = torch.stack([dx * size[1], dy * size[0]])
    return points.double() * scale + shift


def pasted(
    sources: Tensor, plates: Tensor, masks: Tensor, placement: Tensor, *, feather: float | None, hard: bool = False
) -> Tensor:
    """Cut the objects out, move them, and paste them on the plates.

    Colours are moved together with the weights of the cut-out, by which they are multiplied first and divided
    afterwards (Porter and Duff, "Compositing digital images", SIGGRAPH 1984): no colour comes along that the unmoved
    object would not show. Each pixel is the mean over a window of the source, one pixel wide where the object grows
    (bilinear interpolation) and as wide as the pixel itself where it shrinks (no aliasing).

    Args:
        sources: (B, ..., H, W), any real dtype.
        plates: The same, the targets' backgrounds.
        masks: (B, H, W) bool, the objects where they stand in the sources.
        placement: (B, 3), as :func:`placements` gives it.
        feather: As in :func:`sgdmix_albu.mixing.blend`; it is scaled with the object.
        hard: Values can neither fade nor be averaged: each pixel takes the object's nearest one.

    Returns:
        (B, ..., H, W) in fresh memory, the sources' dtype and device.
    """
    size = sources.shape
    flat = (len(sources), math.prod(size[1:-2]), *size[-2:])
    if hard or sources.dtype == torch.bool:
        values = as_integers(inpaint_nearest(sources, ~masks)).reshape(flat)
        where = moved_masks(masks, placement)[:, None]
        under = as_integers(plates).reshape(flat)
        return torch.where(where, _nearest(values, placement), under).reshape(size).view(sources.dtype)
    weight = edge_weights(masks, feather)
    dtype = torch.float32 if sources.dtype in _NARROW else torch.float64
    values = sources.reshape(flat).to(dtype)
    weight = weight.to(dtype)[:, None]
    # Chosen, not multiplied: what the cut-out has no part of may be NaN.
    both = _moved(torch.cat([torch.where(weight > 0, values * weight, 0), weight], 1), placement)
    shares = both[:, -1:]
    colours = both[:, :-1] / shares.clamp_min(_LEAST_SHARE)
    shares = (shares >= 0.5).to(dtype) if feather == 0 else shares.clamp_max(1)
    under = plates.reshape(flat)
    mixed = _blended(under.to(dtype), colours, shares, whole=not sources.dtype.is_floating_point).to(sources.dtype)
    if mixed.requires_grad:
        return torch.where(shares > 0, mixed, under).reshape(size)
    bits = torch.where(shares > 0, as_integers(mixed), as_integers(under))
    return bits.view(sources.dtype).reshape(size)


def _blended(under: Tensor, over: Tensor, shares: Tensor, *, whole: bool) -> Tensor:
    if not whole:
        return torch.lerp(under, over, shares)
    # Step by step, since processors round a product and a sum at once, or not.
    return (over - under).mul_(shares).add_(under).round_()


def _extent(seen: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) float64 first place and length of what is seen in (B, n) bool."""
    whole = seen.to(torch.uint8)
    first = whole.argmax(1)
    length = torch.where(seen.any(1), seen.shape[1] - whole.flip(1).argmax(1) - first, 0)
    return first.double(), length.double()  # float32, to which torch divides whole numbers, would leave the frame


def _moved(values: Tensor, placement: Tensor) -> Tensor:
    """(B, C, H, W) floats, each pixel the mean of the window that comes to it; 0 where that is outside the source."""
    # The axis comes second, so that whole rows are copied; turned twice, all stands as before.
    for shift in (1, 2):
        values = _means(values.movedim(2, 1), placement[:, 0], placement[:, shift]).permute(0, 2, 3, 1)
    return values


def _means(values: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Means of (B, n, C, m) along the second axis, over windows of one pixel or more."""
    length = values.shape[1]
    centre, half = _places(length, scale, shift), scale.reciprocal().clamp_min(1)[:, None] / 2
    first, last = centre - half, centre + half
    rows = F.pad(values, (0, 0, 0, 0, 0, 1)).flatten(0, 1)  # what lies outside is taken from the row of zeros
    begin = torch.arange(len(values), device=values.device)[:, None] * (length + 1)
    total = None
    for tap in range(_taps(first, last, scale)):
        pixel = first.floor() + tap
        share = (torch.minimum(last, pixel + 1) - torch.maximum(first, pixel)).clamp_min(0)
        outside = (pixel < 0) | (pixel >= length)
        taken = rows.index_select(0, (begin + pixel.long().masked_fill(outside, length)).flatten())
        taken = taken.view(*centre.shape, *values.shape[2:]).mul_(share.to(values.dtype)[..., None, None])
        total = taken if total is None else total.add_(taken)
    assert total is not None
    return total.div_((last - first).to(values.dtype)[..., None, None])


def _taps(first: Tensor, last: Tensor, scale: Tensor) -> int:
    """Of how many pixels a window has a part, at most; on a GPU, where to ask is to wait, of the smallest object."""
    if first.device.type == "cpu":
        return int((last - first.floor()).max().ceil())
    smallest = math.sqrt(_LEAST)
    words = f"expected scales of {smallest:g} or more on a GPU, got"
    refuse_if(scale < smallest * (1 - 1e-9), lambda: InvalidInputError(f"{words} {float(scale.min()):g}"))
    return math.ceil(1 / smallest) + 1


def _places(length: int, scale: Tensor, shift: Tensor) -> Tensor:
    """(B, length): where the centres of the mix's pixels lie in the source."""
    at = torch.arange(length, dtype=torch.float64, device=scale.device) + 0.5
    return (at - shift[:, None] * length) / scale[:, None]


def _nearest(values: Tensor, placement: Tensor) -> Tensor:
    for dim, shift in ((2, 1), (3, 2)):
        length = values.shape[dim]
        places = _places(length, placement[:, 0], placement[:, shift]).floor().clamp(0, length - 1).long()
        values = values.gather(dim, _along(places, dim).expand(values.shape))
    return values


def _along(places: Tensor, dim: int) -> Tensor:
    """(B, n) as what varies along one axis of (B, C, H, W)."""
    return places[:, None, :, None] if dim == 2 else places[:, None, None, :]
