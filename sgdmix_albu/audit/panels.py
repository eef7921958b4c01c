"""Pictures of one step of the method each, and panels made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from PIL.ImageFont import FreeTypeFont, ImageFont, load_default
from torch import Tensor

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.io.opencv import cv2

Pixels: TypeAlias = npt.NDArray[np.uint8]
_Values: TypeAlias = "Tensor | npt.NDArray[np.generic]"
_Picture: TypeAlias = "_Values | Image.Image"

# Readable on white and on black, and apart from each other for colour-blind eyes (Okabe and Ito).
_MISSED = (213, 94, 0)
_SPILLED = (86, 180, 233)
_VOID = (230, 159, 0)
_OUTLINE = (255, 255, 255)
_INK = (70, 70, 70)
_GREY = (128, 128, 128)
_GAP = 6
_DRAWN_SIDE = 160


def photograph(image: _Picture) -> Pixels:
    """An image in any usual form as (H, W, 3) uint8.

    Args:
        image: PIL; an (H, W, 3) or (H, W) uint8 array; or a (3, H, W) or (1, H, W) tensor, uint8 or float
            in [0, 1].

    Raises:
        InvalidInputError: None of these.

    Example:
        >>> import torch
        >>> photograph(torch.ones(3, 2, 4)).shape
        (2, 4, 3)
    """
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if isinstance(image, Tensor):
        pixels = image.detach().cpu()
        if pixels.dtype.is_floating_point:
            pixels = (pixels.float().clamp(0, 1) * 255).round()
        image = pixels.numpy().astype(np.uint8)
        image = np.moveaxis(image, 0, -1) if image.ndim == 3 else image
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.dtype == np.uint8 and image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InvalidInputError(
            f"expected a PIL image, an (H, W, 3) uint8 array or a (3, H, W) tensor, got {image.dtype} {image.shape}"
        )
    return np.ascontiguousarray(image, dtype=np.uint8)


def heat(saliency: _Values, size: tuple[int, int]) -> Pixels:
    """A saliency map in [0, 1] of any size as colours, dark for 0: (H, W, 3) uint8 with ``size`` = (H, W)."""
    values = np.clip(_array(saliency).astype(np.float32), 0, 1)
    enlarged = cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap(np.round(enlarged * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(colours[:, :, ::-1])


def masked(image: _Picture, mask: _Values, truth: _Values | None = None) -> Pixels:
    """What a mask keeps: the image inside it, faded outside, outlined in white.

    Args:
        image: See :func:`photograph`.
        mask: (H, W) bool.
        truth: (H, W) bool true mask: the object's missed part is tinted vermilion, kept background blue.
    """
    pixels = _enlarged(image)
    inside = _on(pixels, mask)
    shown = np.where(inside[:, :, None], pixels, _faded(pixels))
    if truth is not None:
        known = _on(pixels, truth)
        shown = _tinted(shown, known & ~inside, _MISSED, 0.6)
        shown = _tinted(shown, inside & ~known, _SPILLED, 0.5)
    return _outlined(shown, inside)


def union(image: _Picture, own: _Values, theirs: _Values) -> Pixels:
    """The union mask on the source: own mask as it is, what only the target's mask adds in orange, the rest faded.

    Args:
        image: The source; see :func:`photograph`.
        own: (H, W) bool, the source's foreground mask.
        theirs: (H, W) bool, the target's.
    """
    pixels = _enlarged(image)
    inside, added = _on(pixels, own), _on(pixels, theirs)
    kept = inside | added
    shown = np.where(kept[:, :, None], pixels, _faded(pixels))
    return _outlined(_tinted(shown, added & ~inside, _VOID, 0.5), kept)


def plate(image: _Picture, hole: _Values) -> Pixels:
    """A background of which a part was painted, that part outlined.

    Args:
        image: See :func:`photograph`.
        hole: (H, W) bool, where it was painted.
    """
    pixels = _enlarged(image)
    return _outlined(pixels, _on(pixels, hole))


def panel(
    rows: Sequence[Sequence[Pixels]], columns: Sequence[str], captions: Sequence[str] | None = None, *, side: int = 160
) -> Image.Image:
    """A table of pictures with a heading over each column and a line of text over each row.

    Args:
        rows: Pictures (H, W, 3) uint8, one per column in each row.
        columns: The headings.
        captions: One line per row; None for none.
        side: Width and height of every picture.
    """
    heading, line = load_default(15), load_default(12)
    top, step = 34, side + _GAP + (20 if captions else 0)
    width = len(columns) * (side + _GAP) + _GAP
    sheet = Image.new("RGB", (width, top + len(rows) * step + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(columns):
        draw.text((_left(column, side) + side / 2, top / 2), title, _INK, heading, anchor="mm")
    for row, cells in enumerate(rows):
        y = top + row * step
        if captions:
            draw.text((_GAP, y + 9), _clipped(captions[row], line, width - 2 * _GAP), _GREY, line, anchor="lm")
            y += 20
        for column, cell in enumerate(cells):
            sheet.paste(Image.fromarray(scaled(cell, side)), (_left(column, side), y))
    return sheet


def strip(
    source: _Picture,
    saliency: _Values,
    target: _Picture,
    mask: _Values,
    mixed: _Picture,
    *,
    refined: _Picture | None = None,
    side: int = 256,
    titles: bool = True,
) -> Image.Image:
    """One mix from left to right: source, saliency, target, union mask, mixed image, and refined if given.

    Args:
        source: See :func:`photograph` for the forms an image may have.
        saliency: (h, w) in [0, 1], the source's.
        target: The chosen target.
        mask: (H, W) bool union mask.
        mixed: The result.
        refined: The result after refinement.
        side: Width and height of each picture.
        titles: Write each step's name under its picture.

    Returns:
        RGBA, transparent between the pictures, so that it suits light and dark pages.

    Example:
        >>> import torch
        >>> image = torch.rand(3, 32, 32)
        >>> strip(image, image[0], image, image[0] > 0.5, image, side=64).size
        (344, 90)
    """
    pixels = photograph(source)
    white = np.repeat(_array(mask).astype(np.uint8)[:, :, None] * 255, 3, axis=2)
    steps = {
        "source": pixels,
        "saliency": heat(saliency, pixels.shape[:2]),
        "target": photograph(target),
        "mask": white,
        "mixed": photograph(mixed),
    }
    if refined is not None:
        steps["refined"] = photograph(refined)
    below = 26 if titles else 0
    sheet = Image.new("RGBA", (len(steps) * (side + _GAP) - _GAP, side + below), (0, 0, 0, 0))
    draw = ImageDraw.Draw(sheet)
    for column, (title, picture) in enumerate(steps.items()):
        left = column * (side + _GAP)
        sheet.paste(Image.fromarray(scaled(picture, side)), (left, 0))
        if titles:
            draw.text((left + side / 2, side + below / 2), title, (*_GREY, 255), load_default(15), anchor="mm")
    return sheet


def scaled(picture: Pixels, side: int) -> Pixels:
    """A picture brought to (side, side, 3)."""
    shrinks = picture.shape[0] > side or picture.shape[1] > side
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (side, side), interpolation=method), dtype=np.uint8)


def _array(values: _Values) -> npt.NDArray[np.generic]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def _enlarged(image: _Picture) -> Pixels:
    """Small images are brought to about the size at which they are shown, so that outlines stay thin."""
    pixels = photograph(image)
    factor = -(-_DRAWN_SIDE // min(pixels.shape[:2]))
    if factor == 1:
        return pixels
    return np.asarray(cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def _on(pixels: Pixels, mask: _Values) -> npt.NDArray[np.bool_]:
    """A mask at the size of the picture it is drawn on."""
    size = (pixels.shape[1], pixels.shape[0])
    return cv2.resize(_array(mask).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)


def _faded(pixels: Pixels) -> Pixels:
    """Grey and dark, but recognisable."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return np.repeat((grey * 0.35 + 20).astype(np.uint8)[:, :, None], 3, axis=2)


def _tinted(pixels: Pixels, where: npt.NDArray[np.bool_], colour: tuple[int, int, int], weight: float) -> Pixels:
    blend = pixels * (1 - weight) + np.array(colour) * weight
    return np.where(where[:, :, None], blend, pixels).astype(np.uint8)


def _outlined(pixels: Pixels, mask: npt.NDArray[np.bool_]) -> Pixels:
    width = 1 + pixels.shape[0] // 160
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    edge = cv2.dilate(mask.astype(np.uint8), kernel).astype(bool) & ~mask
    shown = pixels.copy()
    shown[edge] = _OUTLINE
    return shown


def _left(column: int, side: int) -> int:
    return _GAP + column * (side + _GAP)


def _clipped(text: str, font: FreeTypeFont | ImageFont, width: int) -> str:
    """The text, cut with dots where it is wider than the panel."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
