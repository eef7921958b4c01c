"""Brushes: resolution-independent drawing primitives on top of OpenCV.

Everything is described in unit coordinates: x to the right, y down, both 0..1 across the picture. A layer is a square
array of any side length, and the same calls on a larger layer give the same picture with finer edges.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from sgdmix_albu.io.opencv import cv2

Colour: TypeAlias = tuple[float, float, float]
"""Red, green, blue, each 0..255."""
Points: TypeAlias = npt.NDArray[np.float64]
"""Vertices, (n, 2) in unit coordinates."""
Layer: TypeAlias = npt.NDArray[np.uint8]
"""Pixels, uint8: (S, S) grey, (S, S, 3) colours, or (S, S, 4) colours and coverage, which painting sets to 255."""
Field: TypeAlias = npt.NDArray[np.float32]
"""One number per pixel, (S, S) float32."""

_Number = TypeVar("_Number", np.uint8, np.float32)

_LEAF = np.array(
    [(0.0, 0.0), (0.2, -0.15), (0.48, -0.2), (0.78, -0.11), (1.0, 0.0), (0.78, 0.11), (0.48, 0.2), (0.2, 0.15)]
)
_LEAVES = np.stack([_LEAF, _LEAF * (0.96, 0.5)])
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
_SHIFT = 4  # OpenCV's fixed point: vertices are placed to 1/16 of a pixel
_TILE = 512  # side of the cloud texture
_PLUMAGE, _PLUMAGE_REACH = 192, 1  # pixels of the plumage texture for one body length; body lengths from the middle


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Colour between two colours; ``share`` 0 is the first, 1 the second."""
    r, g, b = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return r, g, b


def dim(colour: Colour, factor: float) -> Colour:
    """Colour made darker (below 1) or lighter (above 1)."""
    r, g, b = (min(255.0, channel * factor) for channel in colour)
    return r, g, b


def fill(layer: Layer, points: Points, colour: Colour | float) -> None:
    """Fill a polygon, antialiased."""
    cv2.fillPoly(layer, [_fixed(points, layer)], _ink(colour, layer), cv2.LINE_AA, _SHIFT)


def disc(layer: Layer, centre: tuple[float, float], radius: float, colour: Colour | float) -> None:
    """Fill a disc, antialiased; it never vanishes, however small."""
    unit = 1 << _SHIFT
    side = layer.shape[0] * unit
    at = (round(centre[0] * side) - unit // 2, round(centre[1] * side) - unit // 2)
    cv2.circle(layer, at, max(unit // 2, round(radius * side)), _ink(colour, layer), -1, cv2.LINE_AA, _SHIFT)


def stroke(layer: Layer, centre: npt.ArrayLike, widths: npt.ArrayLike, colour: Colour | float) -> None:
    """Draw along ``centre`` (n, 2), as wide at each point as ``widths`` (n,), antialiased; see `ribbon`."""
    fill(layer, ribbon(np.asarray(centre, dtype=np.float64), widths), colour)


def lines(layer: Layer, many: Points, width: float, colour: Colour | float) -> None:
    """Draw open polylines (m, n, 2) of one width (at least one pixel of the layer), antialiased."""
    thickness = max(1, round(width * layer.shape[0]))
    cv2.polylines(layer, list(_fixed(many, layer)), False, _ink(colour, layer), thickness, cv2.LINE_AA, _SHIFT)


def leaf(layer: Layer, at: npt.ArrayLike, length: float, angle: float, colour: Colour) -> None:
    """Paint a pointed leaf that grows from ``at`` in the direction ``angle`` (degrees, 90 is up), lit from above."""
    frame = length * rotation(np.radians(angle))
    whole, lit = np.asarray(at) + _LEAVES @ frame
    fill(layer, whole, dim(colour, 0.78))
    fill(layer, lit - (0.0, 0.06 * length), colour)


def blossom(layer: Layer, at: tuple[float, float], radius: float, angle: float, colour: Colour) -> None:
    """Paint a flower of five petals."""
    for petal in range(5):
        way = np.radians(angle + 72 * petal)
        centre = (at[0] + 0.58 * radius * np.cos(way), at[1] + 0.58 * radius * np.sin(way))
        disc(layer, centre, 0.46 * radius, colour if petal % 2 else dim(colour, 0.93))
    disc(layer, at, 0.24 * radius, (236, 196, 84))


def glaze(layer: Layer, opacity: float, painter: Callable[[Layer], None]) -> None:
    """Let ``painter`` paint on a layer, in place, with everything it paints translucent."""
    over = layer.copy()
    painter(over)
    cv2.addWeighted(over, opacity, layer, 1 - opacity, 0, dst=layer)


def trimmed(coverage: Layer) -> Layer:
    """Coverage (S, S) less the 0.6 pixels by which OpenCV draws every filled shape too wide.

    Without this a bird would be fatter in a small picture than in a large one.
    """
    return np.asarray(cv2.addWeighted(coverage, 0.4, cv2.erode(coverage, _CROSS), 0.6, 0), dtype=np.uint8)


def lay_over(bottom: Layer, top: Layer, coverage: Layer) -> None:
    """Composite ``top`` over ``bottom``, (S, S, 3) each, in place, by the coverage (S, S); exact at 0 and 255."""
    x, y, width, height = cv2.boundingRect(coverage)
    part = np.s_[y : y + height, x : x + width]
    share = coverage[part].astype(np.float32)
    bottom[part] = cv2.blendLinear(top[part], bottom[part], share, 255 - share)


def curve(control: Points, *, closed: bool = True, steps: int = 6) -> Points:
    """Smooth curve through control points (Catmull-Rom spline), (n * steps, 2)."""
    samples: Points = _catmull_rom(len(control), closed, steps) @ control
    return samples


def ribbon(centre: Points, widths: npt.ArrayLike) -> Points:
    """Outline of a stroke along ``centre`` (..., n, 2) whose full width at each point is ``widths`` (n,)."""
    count = centre.shape[-2]
    along = np.empty_like(centre)
    along[..., 1:-1, :] = centre[..., 2:, :] - centre[..., :-2, :]
    along[..., 0, :] = centre[..., 1, :] - centre[..., 0, :]
    along[..., -1, :] = centre[..., -1, :] - centre[..., -2, :]
    x, y = along[..., 0], along[..., 1]
    across = along[..., ::-1] * (0.5 * np.asarray(widths) / np.maximum(np.hypot(x, y), 1e-9))[..., None]
    across[..., 0] *= -1
    outline = np.empty((*centre.shape[:-2], 2 * count, 2))
    outline[..., :count, :] = centre + across
    outline[..., count:, :] = (centre - across)[..., ::-1, :]
    return outline


def resize(layer: npt.NDArray[_Number], side: int) -> npt.NDArray[_Number]:
    """Square layer at another side length: area average downwards, cubic upwards."""
    if layer.shape[0] == side:
        return layer
    method = cv2.INTER_AREA if side < layer.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(layer, (side, side), interpolation=method), dtype=layer.dtype)


def soften(layer: npt.NDArray[_Number], width: float) -> npt.NDArray[_Number]:
    """Blur by two box filters of the given width (unit coordinates): close to a Gaussian, at a constant price."""
    side = 2 * round(0.5 * width * layer.shape[0]) + 1
    once = cv2.blur(layer, (side, side), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.blur(once, (side, side), borderType=cv2.BORDER_REPLICATE), dtype=layer.dtype)


def gradient(*stops: tuple[float, Colour]) -> Layer:
    """Colour table (256, 1, 3) uint8 that runs through ``(place 0..1, colour)`` stops; see `tint`."""
    places = [255.0 * place for place, _ in stops]
    channels = [np.interp(np.arange(256.0), places, [c[k] for _, c in stops]) for k in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8)[:, None]


def tint(values: Layer, table: Layer) -> Layer:
    """Turn a grey layer (S, S) into a coloured one (S, S, 3) through a `gradient` table."""
    return np.asarray(cv2.applyColorMap(values, table), dtype=np.uint8)


def noise(rng: np.random.Generator, side: int, scale: float, stretch: float = 1.0) -> Layer:
    """Cloudy grey texture (side, side) uint8.

    Args:
        rng: Chooses where in the endless texture this picture lies.
        side: Side length in pixels; the same draw at another side shows the same clouds.
        scale: Share of the texture tile seen in one picture; larger is finer.
        stretch: Above 1 the clouds lie flat (water, mist), below 1 they stand upright (bark, reeds).
    """
    height = scale * stretch**0.5 * _TILE / side
    width = scale / stretch**0.5 * _TILE / side
    x, y = rng.random(2) * _TILE
    move = np.array([[width, 0.0, x], [0.0, height, y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(_cloud_tile(), move, (side, side), flags=flags, borderMode=cv2.BORDER_WRAP))


def feathers(side: int, matrix: npt.NDArray[np.float64], origin: Points) -> Layer:
    """Scalloped plumage texture (side, side) uint8, mid-grey 128, laid along a body's axes.

    Args:
        side: Side length in pixels.
        matrix: (2, 2), rows are the body's axes in unit coordinates.
        origin: (2,), the body's centre in unit coordinates.
    """
    to_tile = np.linalg.inv(matrix).T * _PLUMAGE  # tile pixels for one unit of the picture
    move = np.concatenate([to_tile / side, (_PLUMAGE_REACH * _PLUMAGE - to_tile @ origin)[:, None]], axis=1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    plumage = cv2.warpAffine(_plumage(), move, (side, side), flags=flags, borderValue=(128,))
    return np.asarray(plumage, dtype=np.uint8)


def rotation(angle: float) -> npt.NDArray[np.float64]:
    """(2, 2) matrix whose rows are the axes of a frame turned anticlockwise by ``angle`` radians (y points down)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def _fixed(points: Points, layer: Layer) -> npt.NDArray[np.int32]:
    side = layer.shape[0]
    fixed: npt.NDArray[np.int32] = np.rint(points * (side << _SHIFT) - (1 << _SHIFT >> 1)).astype(np.int32)
    return fixed


def _ink(colour: Colour | float, layer: Layer) -> tuple[float, ...]:
    if not isinstance(colour, tuple):
        return (colour,)
    return (*colour, 255.0) if layer.shape[2] == 4 else colour


@lru_cache(maxsize=64)
def _catmull_rom(count: int, closed: bool, steps: int) -> npt.NDArray[np.float64]:
    """Matrix (samples, count) that samples a uniform Catmull-Rom spline through ``count`` control points."""
    segments = count if closed else count - 1
    t = np.arange(steps) / steps
    weights = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], axis=1
    )
    matrix = np.zeros((segments * steps + (not closed), count))
    for segment in range(segments):
        for k in range(4):
            index = segment + k - 1
            index = index % count if closed else min(max(index, 0), count - 1)
            matrix[segment * steps : (segment + 1) * steps, index] += weights[:, k]
    if not closed:
        matrix[-1, -1] = 1.0
    return matrix


@lru_cache(maxsize=1)
def _cloud_tile() -> Layer:
    """Periodic noise with a 1/f spectrum, (512, 512) uint8, the same in every process."""
    spectrum = np.fft.rfft2(np.random.default_rng(20130).standard_normal((_TILE, _TILE)))
    fy = np.fft.fftfreq(_TILE)[:, None] * _TILE
    fx = np.fft.rfftfreq(_TILE)[None] * _TILE
    radius = np.hypot(fx, fy)
    spectrum *= np.where(radius < 3, 0.0, 1.0 / np.maximum(radius, 3) ** 1.7)
    field = np.fft.irfft2(spectrum, s=(_TILE, _TILE))
    return np.asarray(np.clip(128 + 52 * field / field.std(), 0, 255), dtype=np.uint8)


@lru_cache(maxsize=1)
def _plumage() -> Layer:
    """Rows of overlapping feather tips around 128, uint8; pointing to the tail; the bird's middle is its centre."""
    side = 2 * _PLUMAGE_REACH * _PLUMAGE
    v, u = np.mgrid[0:side, 0:side] / _PLUMAGE
    best = np.zeros((side, side))
    for shift in (0, 1):  # every other column of feathers is moved by half a feather
        row = v * 28 + 0.5 * shift
        across = 2 * np.abs(row - np.floor(row) - 0.5)
        column = u * 20 + 0.5 * shift + 0.35 * across**2
        best += ((column - np.floor(column)) ** 0.7 - 0.55) * (1 - 0.7 * across)
    grain = cv2.blur(np.random.default_rng(7).standard_normal((side, side)), (7, 1))
    return np.asarray(np.clip(128 + 80 * best + 50 * grain, 0, 255), dtype=np.uint8)
