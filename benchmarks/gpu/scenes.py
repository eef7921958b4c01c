"""Images of one object each, drawn with torch alone: a lent machine may lack what draws the embedded birds."""

from __future__ import annotations

import torch
from torch import Tensor


def scenes(count: int, size: int) -> Tensor:
    """Images (count, 3, size, size) uint8: a bright ellipse somewhere on a dim, grainy slope; no two alike."""
    draw = torch.Generator().manual_seed(0)
    axis = torch.linspace(0, 1, size)
    rows, columns = axis[None, :, None], axis[None, None, :]
    place, radius = torch.rand(2, count, 2, generator=draw).unbind(0)
    place, radius = 0.25 + place / 2, 0.1 + radius / 8
    down = (rows - place[:, 0, None, None]) / radius[:, 0, None, None]
    right = (columns - place[:, 1, None, None]) / radius[:, 1, None, None]
    object_ = (down**2 + right**2 < 1).float()[:, None]
    ends = torch.rand(2, count, 3, 1, 1, generator=draw)
    ground = 0.1 + 0.4 * torch.lerp(ends[0], ends[1], rows) + 0.05 * torch.rand(count, 3, size, size, generator=draw)
    colour = 0.6 + 0.4 * torch.rand(count, 3, 1, 1, generator=draw)
    return (255 * torch.lerp(ground, colour.expand_as(ground), object_)).to(torch.uint8)
