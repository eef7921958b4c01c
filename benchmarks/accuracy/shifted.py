"""Test sets that ask what a classifier looks at: the object on other backgrounds, elsewhere, and in other sizes.

Objects are cut out by given masks and put on given plates, photographs whose object is painted out. The masks are meant
to be U2-Net's, and the plates are OpenCV's: neither is ours. The test is not neutral for all that: ``SGDMix``'s default
saliency was distilled from U2-Net, and whoever trained on cut-outs knows what cut-outs look like.

* Xiao et al., "Noise or Signal" (ICLR 2021), section 2: mixed-same, mixed-rand, and their difference, the BG-gap.
* Nauen et al., ForAug (arXiv 2503.09399), section "Experiments": background robustness, foreground focus, centre bias,
  size bias. Places and sizes are those of ``fg_in_nonant`` and ``size_fact`` in the data set released with it
  (github.com/tobna/ForAug, fornet.py).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Classify = Callable[[Tensor], Tensor]

WHICH = ("mixed", "foraug")

_LEAST, _MOST = 0.01, 0.9  # of the image: less is a speck or no object found, more leaves no background to paint
_GROWN = 3  # pixels around the object that are painted too: its edge and its glow
_REACH = 3  # pixels that Telea's method looks around
_CELLS = [(row, column) for row in range(3) for column in range(3)]
_CORNERS = [(0, 0), (0, 2), (2, 0), (2, 2)]
_SIDES = [(0, 1), (1, 0), (1, 2), (2, 1)]
_CENTRE = (1, 1)
# Of the object's area. ForAug has a ninth, as a cell has of the image; at 128 pixels a pretrained network then told
# 8% of 45 species, and ratios of such figures are noise.
_IN_A_CELL = 1 / 4
_SIZES = (0.25, 0.5, 1.0, 2.0)  # of the object's area


@dataclass(frozen=True)
class Shifted:
    """Objects and plates that test sets are made of, and which object goes on which plate.

    Attributes:
        images: (K, 3, H, W) uint8.
        masks: (K, H, W) bool, true on the object.
        plates: (K, 3, H, W) uint8, the images with their objects painted out.
        labels: (K,) int64.
        boxes: (K, 2, 2) float, middle and half extent of the object's box, each x and y, from -1 to 1 across the image.
        rows: (K,) int64, which of the given images these are.
        same: (K,) int64, the plate of another image of its class, for each object.
        other: (K,) int64, the plate of an image of another class.
        left_out: How many of the given images have too small or too large an object.
    """

    images: Tensor
    masks: Tensor
    plates: Tensor
    labels: Tensor
    boxes: Tensor
    rows: Tensor
    same: Tensor
    other: Tensor
    left_out: int

    def to(self, device: torch.device | str) -> Shifted:
        """The same on another device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)  # type: ignore[arg-type]  # left_out is none of them


def make_plates(images: Tensor, masks: Tensor) -> Tensor:
    """Paint the objects out with Telea's method, as OpenCV has it, on the CPU.

    Args:
        images: (N, 3, H, W) uint8.
        masks: (N, H, W) bool, true on the object.

    Returns:
        (N, 3, H, W) uint8.

    Example:
        >>> image, mask = torch.full((1, 3, 32, 32), 90, dtype=torch.uint8), torch.zeros(1, 32, 32, dtype=torch.bool)
        >>> mask[:, 12:20, 12:20] = True
        >>> int(make_plates(image.masked_fill(mask[:, None], 255), mask).max()) < 95
        True
    """
    _check(images, masks)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _GROWN + 1, 2 * _GROWN + 1))
    plates = torch.empty_like(images)
    for row, (image, mask) in enumerate(zip(images, masks, strict=True)):
        hole = cv2.dilate(mask.numpy().astype(np.uint8), disc)
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        plates[row] = torch.from_numpy(cv2.inpaint(pixels, hole, _REACH, cv2.INPAINT_TELEA)).permute(2, 0, 1)
    return plates


def make_shifted(images: Tensor, masks: Tensor, labels: Tensor, plates: Tensor, *, seed: int = 0) -> Shifted:
    """Choose the images that a test set can be made of, and a plate of its own and of another class for each.

    Images whose object covers less than 1% or more than 90% are left out, object and plate.

    Args:
        images: (N, 3, H, W) uint8.
        masks: (N, H, W) bool, true on the object.
        labels: (N,) int64.
        plates: (N, 3, H, W) uint8, of :func:`make_plates`.
        seed: Of the choice of plates, the same on every device.

    Raises:
        ValueError: Shapes or types do not fit, or what is left is of one class, or has a class with one image only.
    """
    _check(images, masks)
    if plates.shape != images.shape or plates.dtype != torch.uint8:
        raise ValueError(f"expected plates {tuple(images.shape)} uint8, got {tuple(plates.shape)} {plates.dtype}")
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(f"expected {len(images)} labels, int64, got {tuple(labels.shape)} {labels.dtype}")
    share = masks.float().mean((1, 2))
    rows = ((share >= _LEAST) & (share <= _MOST)).nonzero()[:, 0]
    kept = labels[rows].cpu()
    alike = kept[:, None] == kept
    counts = alike.sum(1)
    if len(rows) == 0 or bool((counts == len(rows)).any()) or bool((counts < 2).any()):
        found = dict(sorted(Counter(kept.tolist()).items()))
        raise ValueError(f"expected two classes or more with two objects or more each, found (class: objects) {found}")
    generator = torch.Generator().manual_seed(seed)
    same = torch.multinomial((alike & ~torch.eye(len(rows), dtype=torch.bool)).float(), 1, generator=generator)[:, 0]
    other = torch.multinomial((~alike).float(), 1, generator=generator)[:, 0]
    return Shifted(
        images=images[rows],
        masks=masks[rows],
        plates=plates[rows],
        labels=labels[rows],
        boxes=_boxes(masks[rows]),
        rows=rows,
        same=same.to(images.device),
        other=other.to(images.device),
        left_out=len(images) - len(rows),
    )


def measure(
    classify: Classify,
    shifted: Shifted,
    originals: Tensor | None = None,
    *,
    which: Sequence[str] = WHICH,
    batch: int = 256,
) -> dict[str, float]:
    """What a classifier makes of the test sets.

    Args:
        classify: From (B, 3, H, W), values from 0 to 255, uint8, to scores (B, classes). With "foraug" it is also given
            float32 that asks for gradients, which must reach the scores. The model is in evaluation mode, on
            ``shifted``'s device.
        shifted: Of :func:`make_shifted`.
        originals: (N, classes) scores of all images that were given there; None to ask ``classify`` again.
        which: "mixed", "foraug" or both. "foraug" has "mixed" in it, for it needs those two sets.
        batch: Images at a time.

    Returns:
        Accuracies from 0 to 1, and what follows from them; nan where an accuracy of 0 would divide.

        * original: of the images that were not left out, as they are.
        * mixed_same, mixed_rand: on the plate of their own, of another class. gap: mixed_same - mixed_rand, the
          BG-gap. drop: original - mixed_rand.

        With "foraug":

        * background_robustness: mixed_rand / mixed_same; 1 is best. (ForAug draws its plates of all classes, and the
          place and size at random as well.)
        * foreground_focus: the object's share of the attribution over its share of the area, mean of the images;
          1 is no preference. Attribution is |d score of the label / d pixel| of the original, summed over the channels:
          plain gradients, for ForAug's Grad-CAM and integrated gradients cost more or need a layer named.
        * cell_0_0 to cell_2_2 (row, column): the object in that cell of a 3 x 3 grid or, where it is larger, as near as
          leaves it whole; a quarter of its area (ForAug: a ninth), on the plate of another class. centre_bias:
          1 - (lowest of the corners + lowest of the sides) / (2 x centre); 0 is best.
        * size_0.25 to size_2: the object in the middle, its area times that factor, on the plate of another class.
          size_bias: 1 - mean of the others over size_1; 0 is best. (ForAug draws the curve; the mean is ours.)
        * left_out: how many images the sets lack.

    Raises:
        ValueError: An unknown name in ``which``, or ``classify`` passes no gradients on.
    """
    unknown = set(which) - set(WHICH)
    if unknown or not which:
        raise ValueError(f"expected which from {WHICH}, got {tuple(which)}")
    found = {"left_out": float(shifted.left_out)}
    if originals is None:
        found["original"] = _accuracy(classify, shifted, shifted.images.__getitem__, batch)
    else:
        found["original"] = float((originals[shifted.rows].argmax(1) == shifted.labels).float().mean())
    for name, plates in (("mixed_same", shifted.same), ("mixed_rand", shifted.other)):
        found[name] = _accuracy(classify, shifted, partial(in_place, shifted, plates), batch)
    found["gap"] = found["mixed_same"] - found["mixed_rand"]
    found["drop"] = found["original"] - found["mixed_rand"]
    if "foraug" in which:
        found["background_robustness"] = _ratio(found["mixed_rand"], found["mixed_same"])
        found["foreground_focus"] = _foreground_focus(classify, shifted, batch)
        found |= _centre_bias(classify, shifted, batch)
        found |= _size_bias(classify, shifted, batch)
    return found


def in_place(shifted: Shifted, plates: Tensor, rows: Tensor) -> Tensor:
    """(B, 3, H, W) uint8: the objects of ``rows`` where they were, each on its plate of ``plates``, (K,)."""
    pixels, soft = _cut_out(shifted, rows)
    return _pasted(pixels, soft, shifted.plates[plates[rows]])


def placed(shifted: Shifted, centre: tuple[float, float], area: float, rows: Tensor) -> Tensor:
    """(B, 3, H, W) uint8: the objects of ``rows``, each on its plate of another class.

    Their middles are at ``centre``, x and y from -1 to 1 across the image, or as near as leaves them whole, and their
    area is times ``area``. What is larger than the image is cut off.
    """
    pixels, soft = _cut_out(shifted, rows)
    cut, scale = torch.cat([pixels, soft], 1), math.sqrt(area)
    height, width = cut.shape[-2:]
    if scale < 1:  # fewer pixels first, each the mean of those it stands for: sampling alone would skip some
        size = (round(height * scale), round(width * scale))
        cut = F.interpolate(cut, size, mode="bilinear", antialias=True, align_corners=False)
    middles, halves = shifted.boxes[rows].unbind(1)
    room = (1 - halves * scale).clamp(min=0)
    centres = torch.tensor(centre, device=cut.device).expand_as(room).clamp(-room, room)
    # A place of the output is looked up where it was in the input.
    moves = torch.zeros(len(rows), 2, 3, device=cut.device)
    moves[:, 0, 0] = moves[:, 1, 1] = 1 / scale
    moves[:, :, 2] = middles - centres / scale
    grid = F.affine_grid(moves, [len(rows), 4, height, width], align_corners=False)
    cut = F.grid_sample(cut, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return _pasted(cut[:, :3], cut[:, 3:], shifted.plates[shifted.other[rows]])


def _cut_out(shifted: Shifted, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels times their part of the object, and that part, (B, 1, H, W), which falls off over one pixel."""
    soft = F.avg_pool2d(shifted.masks[rows, None].float(), 3, stride=1, padding=1, count_include_pad=False)
    return shifted.images[rows] * soft, soft


def _pasted(pixels: Tensor, soft: Tensor, plates: Tensor) -> Tensor:
    return (pixels + (1 - soft) * plates).round().clamp(0, 255).to(torch.uint8)


def _centre_bias(classify: Classify, shifted: Shifted, batch: int) -> dict[str, float]:
    cells = {}
    for row, column in _CELLS:
        centre = ((column - 1) * 2 / 3, (row - 1) * 2 / 3)
        cells[row, column] = _accuracy(classify, shifted, partial(placed, shifted, centre, _IN_A_CELL), batch)
    outside = min(cells[cell] for cell in _CORNERS) + min(cells[cell] for cell in _SIDES)
    found = {f"cell_{row}_{column}": value for (row, column), value in cells.items()}
    return {"centre_bias": 1 - _ratio(outside, 2 * cells[_CENTRE]), **found}


def _size_bias(classify: Classify, shifted: Shifted, batch: int) -> dict[str, float]:
    sizes = {area: _accuracy(classify, shifted, partial(placed, shifted, (0.0, 0.0), area), batch) for area in _SIZES}
    others = [_ratio(value, sizes[1.0]) for area, value in sizes.items() if area != 1.0]
    return {"size_bias": 1 - sum(others) / len(others)} | {f"size_{area:g}": value for area, value in sizes.items()}


def _foreground_focus(classify: Classify, shifted: Shifted, batch: int) -> float:
    total = torch.zeros((), dtype=torch.float64)
    for rows in _batches(shifted, batch):
        images = shifted.images[rows].float().requires_grad_()
        with torch.enable_grad():
            scores = classify(images)
            if not scores.requires_grad:
                raise ValueError('classify passes no gradients on, which "foraug" needs: give it no torch.no_grad()')
            chosen = scores.gather(1, shifted.labels[rows, None]).sum()
            (gradient,) = torch.autograd.grad(chosen, images)
        seen = gradient.abs().sum(1).double()
        masks = shifted.masks[rows].double()
        importance = (seen * masks).sum((1, 2)) / seen.sum((1, 2))
        focus = importance / masks.mean((1, 2))
        total += torch.where(focus.isfinite(), focus, 1.0).sum().cpu()  # no gradient at all prefers nothing
    return float(total) / len(shifted.labels)


@torch.no_grad()
def _accuracy(classify: Classify, shifted: Shifted, make: Callable[[Tensor], Tensor], batch: int) -> float:
    right = [(classify(make(rows)).argmax(1) == shifted.labels[rows]).sum() for rows in _batches(shifted, batch)]
    return int(torch.stack(right).sum()) / len(shifted.labels)


def _batches(shifted: Shifted, batch: int) -> Iterator[Tensor]:
    for begin in range(0, len(shifted.labels), batch):
        yield torch.arange(begin, min(begin + batch, len(shifted.labels)), device=shifted.labels.device)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _boxes(masks: Tensor) -> Tensor:
    """(K, 2, 2): middle and half the extent of each mask's box, each x and y, where the image goes from -1 to 1."""
    ends = []
    for along in (masks.any(1), masks.any(2)):  # columns, rows
        size = along.shape[1]
        first = along.int().argmax(1)
        last = size - along.flip(1).int().argmax(1)
        ends.append(torch.stack([(first + last) / size - 1, (last - first) / size], 1))
    return torch.stack(ends, 2)


def _check(images: Tensor, masks: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
        raise ValueError(f"expected images (N, 3, H, W) uint8, got {tuple(images.shape)} {images.dtype}")
    if masks.shape != (len(images), *images.shape[2:]) or masks.dtype != torch.bool:
        expected = (len(images), *images.shape[2:])
        raise ValueError(f"expected masks {expected} bool, got {tuple(masks.shape)} {masks.dtype}")
