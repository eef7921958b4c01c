"""Stage 3: masks with outlines along the image's edges. The only stage-3 file that uses OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.io.opencv import cv2
from sgdmix_albu.mixing.guided import guided_maps
from sgdmix_albu.mixing.guides import to_guide
from sgdmix_albu.mixing.masks import above, check_maps_of, otsu_threshold
from sgdmix_albu.types import Foreground

__all__ = ["grabcut"]

_SIDE = 144  # pixels on a side while cutting: where one more pixel of outline stops paying for its time
_LIKELY = 0.9  # of Otsu's threshold: above it a pixel is probably foreground
_NEVER = 0.5  # of that: below it a pixel is background
_CERTAIN = 0.7  # of the way from there to 1: above it a pixel is foreground
_KEPT = 1.07  # of Otsu's threshold: above it a pixel stays in the mask whatever the cut says
_SMALL = 0.3  # of the largest piece: smaller pieces are dropped


def grabcut(maps: Tensor, images: Tensor) -> Foreground:
    """The guided saliency map, cut along the image's edges by GrabCut (Rother et al., SIGGRAPH 2004).

    The map is first fitted to the image as by :func:`sgdmix_albu.mixing.guided.guided`. Colour models of what is
    salient and what is not are fitted once, and a graph cut draws the outline between them at 144 x 144. The
    mask is what the cut or a saliency well above Otsu's threshold keeps, with holes filled and small pieces
    dropped. A flat map has an empty mask.

    Args:
        maps: (B, h, w) float in [0, 1], on any device; the cutting is done on the CPU, image by image.
        images: (B, C, H, W), read as :func:`sgdmix_albu.mixing.guides.to_guide` says.

    Returns:
        Masks (B, H, W) and Otsu's thresholds (B,) of the fitted maps, on the maps' device.

    Example:
        >>> import torch
        >>> image = torch.full((1, 3, 48, 48), 0.2)
        >>> image[..., 12:36, 12:36] = 0.8
        >>> hint = torch.zeros(1, 48, 48)
        >>> hint[:, 15:33, 15:33] = 1.0
        >>> mask = grabcut(hint, image).masks[0]
        >>> bool(mask[14:34, 14:34].all()), bool(mask[:, :12].any())
        (True, False)
    """
    check_maps_of(images, maps)
    maps, images = maps.detach(), images.detach()
    size = images.shape[-2:]
    if not len(maps):
        return Foreground(torch.zeros(0, *size, dtype=torch.bool, device=maps.device), maps.new_zeros(0))
    guide = to_guide(images).double()
    colours = F.interpolate(guide, (_SIDE, _SIDE), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
    small = guided_maps(maps, colours)
    thresholds = otsu_threshold(small)
    pixels = (colours * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
    cut = [_cut(*one) for one in zip(pixels, small.cpu().numpy(), thresholds.tolist(), strict=True)]
    masks = torch.from_numpy(np.stack(cut)).to(maps.device)
    half = torch.full_like(thresholds, 0.5)
    return Foreground(above(masks.float(), half, images), thresholds)


def _cut(pixels: npt.NDArray[np.uint8], level: npt.NDArray[np.float32], threshold: float) -> npt.NDArray[np.bool_]:
    """One image's mask at 144 x 144."""
    salient = level > min(_KEPT * threshold, 1.0)
    likely = _LIKELY * threshold
    hints = np.where(level > likely, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    hints[level < _NEVER * likely] = cv2.GC_BGD
    hints[level > likely + _CERTAIN * (1 - likely)] = cv2.GC_FGD
    inside = np.isin(hints, (cv2.GC_FGD, cv2.GC_PR_FGD))
    # GrabCut fits five Gaussians to either side and needs pixels to fit them to.
    if 5 <= inside.sum() <= inside.size - 5:
        with _seeded():
            cv2.grabCut(pixels, hints, None, np.zeros((1, 65)), np.zeros((1, 65)), 1, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
        salient |= np.isin(hints, (cv2.GC_FGD, cv2.GC_PR_FGD))
    return _whole(salient)


@contextmanager
def _seeded() -> Iterator[None]:
    """The same draws for each image, for GrabCut's k-means draws; whoever else draws goes on with numbers of his own.

    OpenCV does not tell the state of its generator, so one number is drawn to begin it anew from.
    """
    following = np.zeros(1, np.int32)
    cv2.randu(following, np.zeros(1), np.full(1, 2**31 - 1))
    cv2.setRNGSeed(0)
    try:
        yield
    finally:
        cv2.setRNGSeed(int(following[0]))


def _whole(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Holes filled, small pieces dropped; pieces touch along edges, not corners."""
    # Background is what can be reached from a frame round the image; all else is filled.
    framed = np.pad(mask, 1).astype(np.uint8)
    cv2.floodFill(framed, None, (0, 0), 2)
    filled = (framed[1:-1, 1:-1] != 2).astype(np.uint8)
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(filled, connectivity=4)
    if count <= 2:
        return np.asarray(filled, dtype=bool)
    areas = stats[:, cv2.CC_STAT_AREA]
    areas[0] = 0  # the background's
    kept: npt.NDArray[np.bool_] = (areas >= _SMALL * areas.max())[pieces]
    return kept
