"""What the network learns from: photographs with a teacher's maps, and the views of them that training draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_PASTED = 0.3  # share of the views that get another photograph's object
_SHOWN = 0.3  # the least share of the teacher's map that must lie within a view; else the whole photograph is taken


@dataclass(frozen=True)
class Examples:
    """Photographs and what the teacher sees in each, all squashed to one square.

    Attributes:
        images: (N, 3, S, S) uint8 RGB.
        maps: (N, S, S) uint8, the teacher's saliency in 256 steps.
        weights: (N,) float, how often each is drawn.
    """

    images: Tensor
    maps: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.images)


def draw_views(examples: Examples, count: int, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """``count`` augmented views (count, 3, side, side) in [0, 1] and their maps (count, side, side) in [0, 1].

    Crops of half to all of the photograph, mirrored and turned a little; some with the object of another photograph
    pasted on, so that an object is not known by its usual background; then colours, blur and noise.
    """
    rows = torch.multinomial(examples.weights, count, replacement=True, generator=generator)
    images, maps = _cropped(examples, rows, side, generator)
    chosen = (torch.rand(count, generator=generator) < _PASTED).nonzero()[:, 0]
    if len(chosen):
        others = torch.multinomial(examples.weights, len(chosen), replacement=True, generator=generator)
        pasted, cut = _cropped(examples, others, side, generator)
        # A teacher's soft halo is no part of the object: the cut is steeper than its map.
        alpha = torch.sigmoid((cut - 0.5) * 12)
        images[chosen] = torch.lerp(images[chosen], pasted, alpha[:, None])
        maps[chosen] = torch.maximum(maps[chosen], alpha)
    return _recoloured(images, generator), maps


def _cropped(examples: Examples, rows: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    count = len(rows)
    both = torch.cat([examples.images[rows], examples.maps[rows, None]], 1).float().div_(255)

    def drawn(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    scale, aspect = drawn(0.4, 1.0).sqrt(), (drawn(-1, 1) * math.log(4 / 3)).exp().sqrt()
    width, height = (scale * aspect).clamp_max(1), (scale / aspect).clamp_max(1)
    angle = drawn(-1, 1) * math.radians(12) * (drawn(0, 1) < 0.5)
    mirrored = torch.where(drawn(0, 1) < 0.5, -1.0, 1.0)
    x, y = drawn(-1, 1) * (1 - width), drawn(-1, 1) * (1 - height)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack([width * mirrored * cos, -height * sin, x, width * mirrored * sin, height * cos, y], 1)
    views = _sampled(both, theta.view(-1, 2, 3), side)
    # A view that holds too little of the object would be called empty, though the teacher might see another in it.
    seen = views[:, 3].mean((1, 2)) * width * height
    lost = (seen < _SHOWN * both[:, 3].mean((1, 2))).nonzero()[:, 0]
    if len(lost):
        whole = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).repeat(len(lost), 1, 1)
        whole[:, 0, 0] = mirrored[lost]
        views[lost] = _sampled(both[lost], whole, side)
    return views[:, :3], views[:, 3]


def _sampled(both: Tensor, theta: Tensor, side: int) -> Tensor:
    grid = F.affine_grid(theta, [len(theta), 4, side, side], align_corners=False)
    return F.grid_sample(both, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _recoloured(images: Tensor, generator: torch.Generator) -> Tensor:
    count = len(images)

    def drawn(low: float, high: float, *, share: float = 1.0, still: float = 0.0) -> Tensor:
        values = torch.rand(count, generator=generator) * (high - low) + low
        kept = torch.rand(count, generator=generator) >= share
        return values.masked_fill(kept, still)[:, None, None, None]

    grey = images.mean(1, keepdim=True)
    images = torch.lerp(grey, images, drawn(0.3, 1.7, share=0.8, still=1.0))  # saturation
    images = torch.lerp(images, grey.expand_as(images), drawn(1.0, 1.0, share=0.08))
    casts = 1 + 0.15 * (torch.rand(count, 3, 1, 1, generator=generator) * 2 - 1)
    images = images * casts
    middle = images.mean((1, 2, 3), keepdim=True)
    images = torch.lerp(middle, images, drawn(0.5, 1.5, share=0.8, still=1.0))  # contrast
    images = (images * drawn(0.6, 1.4, share=0.8, still=1.0)).clamp(0, 1)  # brightness
    images = images.clamp_min(1e-4) ** drawn(0.7, 1.4, share=0.3, still=1.0)
    blurred = F.avg_pool2d(images, 5, 1, 2, count_include_pad=False)
    images = torch.lerp(images, blurred, drawn(0.0, 1.0, share=0.2))
    noise = torch.randn(images.shape, generator=generator)
    return (images + noise * drawn(0.0, 0.06, share=0.3)).clamp_(0, 1)
