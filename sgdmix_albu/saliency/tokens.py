"""Feature maps in whatever layout a layer gives them, as (B, C, h, w) and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

_MOST_PREFIX_TOKENS = 16  # class, distillation and register tokens before the patches


@dataclass(frozen=True)
class Layout:
    """Where height, width and channels of a layer's output are.

    Attributes:
        kind: "nchw" for convolutions; "nhwc", as in Swin; "tokens" for (B, prefix + height * width, C), as in ViT.
        height: Rows of the map.
        width: Columns of the map.
        prefix: Tokens before the patches (class, distillation, registers).
    """

    kind: Literal["nchw", "nhwc", "tokens"]
    height: int
    width: int
    prefix: int = 0


def find_layout(shape: tuple[int, ...], image_size: tuple[int, int]) -> Layout | None:
    """The layout of a layer's output, or None when it is no feature map.

    A map has more than one cell and the image's proportions, to within a cell.

    Args:
        shape: The output's shape.
        image_size: (H, W) of the images that went into the model.

    Example:
        >>> find_layout((2, 197, 768), (224, 224))
        Layout(kind='tokens', height=14, width=14, prefix=1)
        >>> find_layout((2, 7, 10, 96), (224, 320)).kind
        'nhwc'
        >>> find_layout((2, 1000), (224, 224)) is None
        True
    """
    if len(shape) == 4:
        if _fits(shape[2], shape[3], image_size):
            return Layout("nchw", shape[2], shape[3])
        if _fits(shape[1], shape[2], image_size):
            return Layout("nhwc", shape[1], shape[2])
    if len(shape) == 3:
        return _token_layout(shape[1], image_size)
    return None


def to_grid(output: Tensor, layout: Layout) -> Tensor:
    """A layer's output as (B, C, h, w), a view of it.

    Example:
        >>> tokens = torch.rand(2, 1 + 6, 5)
        >>> to_grid(tokens, Layout("tokens", 2, 3, prefix=1)).shape
        torch.Size([2, 5, 2, 3])
    """
    if layout.kind == "nchw":
        return output
    if layout.kind == "nhwc":
        return output.permute(0, 3, 1, 2)
    patches = output[:, layout.prefix :].transpose(1, 2)
    return patches.reshape(*patches.shape[:2], layout.height, layout.width)


def from_grid(grid: Tensor, output: Tensor, layout: Layout) -> Tensor:
    """Undo :func:`to_grid`: ``grid`` in the layout of ``output``, from which the prefix tokens are taken."""
    if layout.kind == "nchw":
        return grid
    if layout.kind == "nhwc":
        return grid.permute(0, 2, 3, 1)
    patches = grid.flatten(2).transpose(1, 2)
    return torch.cat([output[:, : layout.prefix], patches], dim=1) if layout.prefix else patches


def _fits(height: int, width: int, image_size: tuple[int, int]) -> bool:
    rows, columns = image_size
    same_proportions = abs(height * columns - width * rows) <= max(image_size)
    return height * width > 1 and height <= rows and width <= columns and same_proportions


def _token_layout(tokens: int, image_size: tuple[int, int]) -> Layout | None:
    """The fewest prefix tokens that leave a whole grid of square patches."""
    rows, columns = image_size
    grids = {(rows // patch) * (columns // patch): patch for patch in range(1, min(image_size) + 1)}
    for prefix in range(min(tokens, _MOST_PREFIX_TOKENS + 1)):
        patch = grids.get(tokens - prefix)
        if patch is not None and tokens - prefix > 1:
            return Layout("tokens", rows // patch, columns // patch, prefix)
    return None
