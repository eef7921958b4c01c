"""Painting the backgrounds: a blurred distance, a softer middle ground, and the perch or ground under the bird.

Far things are painted on a coarse grid, which blurs them and costs the same whatever the picture's size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sgdmix_albu.datasets.aviary.paint import (
    Colour,
    Layer,
    blossom,
    curve,
    dim,
    disc,
    fill,
    glaze,
    gradient,
    mix,
    noise,
    resize,
    ribbon,
    soften,
    stroke,
    tint,
)
from sgdmix_albu.datasets.aviary.scene import HABITATS
from sgdmix_albu.io.opencv import cv2

_FAR, _NEAR = 64, 128  # sides of the grids for the distance and for the middle ground
_RAMP = np.repeat(np.linspace(0, 255, _FAR).astype(np.uint8)[:, None], _FAR, axis=1)

Generator = np.random.Generator


def paint_habitat(side: int, habitat: str, seed: int) -> Layer:
    """Paint a habitat without bird or perch, (side, side, 3) uint8."""
    rng = np.random.default_rng([seed, HABITATS.index(habitat)])
    far, near = _PAINTERS[habitat]
    picture = resize(far(rng), _NEAR)
    near(picture, rng)
    return np.asarray(resize(soften(picture, 0.016), side), dtype=np.uint8)


def _wash(rng: Generator, table: Layer, share: float, scale: float = 0.3, stretch: float = 1.0) -> Layer:
    """Clouds over a vertical ramp, through a colour table: ``share`` of the value is clouds."""
    values = cv2.addWeighted(noise(rng, _FAR, scale, stretch), share, _RAMP, 1 - share, 0)
    return tint(np.asarray(values, dtype=np.uint8), table)


def _dots(layer: Layer, rng: Generator, count: int, top: float, low: float, high: float, colours: list[Colour]) -> None:
    """Scatter discs of radius ``low`` to ``high`` below the height ``top``."""
    for x, y, r, pick in rng.random((count, 4)):
        disc(layer, (x, top + (1 - top) * y), low + (high - low) * r, colours[int(pick * len(colours))])


def _blades(
    layer: Layer,
    rng: Generator,
    count: int,
    foot: float,
    height: tuple[float, float],
    width: float,
    colours: list[Colour],
) -> None:
    """Upright leaves that taper and lean."""
    t = np.linspace(0, 1, 6)
    x, rise, lean, pick = rng.random((4, count, 1))
    tall = height[0] + (height[1] - height[0]) * rise
    centres = np.stack([x + (lean - 0.5) * 0.5 * tall * t**2, foot - tall * t], axis=2)
    outlines = ribbon(centres, width * np.sqrt(1 - 0.97 * t))
    for outline, k in zip(outlines, (pick[:, 0] * len(colours)).astype(int), strict=True):
        fill(layer, outline, colours[k])


def _ridge(layer: Layer, rng: Generator, height: float, rough: float, colour: Colour) -> None:
    """A hill's outline from border to border, everything below it filled."""
    steps = height + rough * (rng.random(7) - 0.5)
    top = curve(np.stack([np.linspace(-0.1, 1.1, 7), steps], axis=1), closed=False, steps=4)
    fill(layer, np.concatenate([top, [(1.1, 1.1), (-0.1, 1.1)]]), colour)


# --- forest -----------------------------------------------------------------------------------------------------------
_FOREST = gradient(
    (0.0, (206, 214, 138)), (0.28, (142, 168, 86)), (0.5, (74, 112, 58)), (0.75, (36, 66, 42)), (1.0, (22, 42, 30))
)


def _forest_far(rng: Generator) -> Layer:
    far = _wash(rng, _FOREST, 0.62, 0.35)
    for x, lean, thick in rng.random((4, 3)):
        trunk = [(x + 0.12 * (lean - 0.5), -0.1), (x, 1.1)]
        stroke(far, trunk, np.array([0.6, 1.0]) * (0.03 + 0.06 * thick), (44, 50, 34))
    far = soften(far, 0.05)
    glaze(far, 0.4, lambda over: _dots(over, rng, 9, 0.0, 0.02, 0.06, [(214, 222, 140), (172, 196, 100)]))
    return far


def _forest_near(layer: Layer, rng: Generator) -> None:
    x = 0.16 + 0.68 * float(rng.random() < 0.5) + 0.2 * (rng.random() - 0.5)
    centre = np.array([(x, -0.1), (x + 0.04 * rng.standard_normal(), 1.1)])
    stroke(layer, centre, [0.10, 0.14], (52, 46, 34))
    stroke(layer, centre - (0.025, 0.0), [0.04, 0.05], (84, 78, 54))
    greens: list[Colour] = [(70, 118, 52), (46, 88, 44), (104, 146, 62)]
    _blades(layer, rng, 14, 1.03, (0.08, 0.26), 0.026, greens)


# --- reeds ------------------------------------------------------------------------------------------------------------
_REEDS = gradient(
    (0.0, (226, 226, 196)),
    (0.3, (206, 206, 164)),
    (0.5, (158, 152, 98)),
    (0.62, (112, 122, 86)),
    (0.72, (120, 150, 148)),
    (1.0, (70, 108, 118)),
)


def _reeds_far(rng: Generator) -> Layer:
    far = _wash(rng, _REEDS, 0.28, 0.35, 3.0)
    _blades(far, rng, 16, 0.74, (0.25, 0.55), 0.035, [(176, 164, 104), (148, 146, 84), (198, 186, 130)])
    return soften(far, 0.03)


def _reeds_near(layer: Layer, rng: Generator) -> None:
    for x, y, wide in rng.random((7, 3)):
        sheen = [(x - 0.12 * wide, 0.76 + 0.24 * y), (x, 0.757 + 0.24 * y), (x + 0.12 * wide, 0.76 + 0.24 * y)]
        stroke(layer, sheen, [0.0, 0.008, 0.0], (176, 200, 196))
    straws: list[Colour] = [(190, 168, 96), (148, 150, 78), (112, 132, 70), (214, 196, 132)]
    _blades(layer, rng, 20, 1.04, (0.45, 1.0), 0.02, straws)
    for x, y in rng.random((3, 2)):
        top = (x + 0.02, 0.25 + 0.3 * y)
        stroke(layer, [(x, 1.05), top], [0.008, 0.008], (128, 124, 70))
        spike = np.array([(0.0, 0.0), (0.0, 0.03), (0.0, 0.08), (0.0, 0.11)]) + top
        stroke(layer, spike, [0.01, 0.03, 0.03, 0.01], (98, 64, 40))


# --- meadow -----------------------------------------------------------------------------------------------------------
_MEADOW = gradient(
    (0.0, (176, 210, 230)),
    (0.25, (220, 232, 222)),
    (0.36, (146, 180, 132)),
    (0.5, (142, 178, 84)),
    (0.75, (104, 152, 62)),
    (1.0, (64, 112, 48)),
)
_FLOWERS: list[Colour] = [(240, 220, 90), (244, 240, 236), (206, 110, 168), (226, 90, 84), (134, 120, 206)]


def _meadow_far(rng: Generator) -> Layer:
    far = soften(_wash(rng, _MEADOW, 0.24, 0.3, 2.0), 0.03)
    glaze(far, 0.6, lambda over: _dots(over, rng, 22, 0.42, 0.012, 0.035, _FLOWERS))
    return soften(far, 0.015)


def _meadow_near(layer: Layer, rng: Generator) -> None:
    _blades(layer, rng, 26, 1.04, (0.15, 0.5), 0.018, [(118, 164, 66), (86, 134, 54), (162, 190, 92), (68, 112, 50)])
    for x, y, pick in rng.random((6, 3)):
        head = (x, 0.55 + 0.4 * y)
        stroke(layer, [(x + 0.01, 1.05), head], [0.007, 0.007], (92, 134, 60))
        petal = _FLOWERS[int(pick * len(_FLOWERS))]
        disc(layer, head, 0.024, petal)
        disc(layer, head, 0.009, dim(petal, 0.72))


# --- shore ------------------------------------------------------------------------------------------------------------
_SHORE = gradient(
    (0.0, (190, 214, 228)),
    (0.27, (226, 234, 232)),
    (0.31, (92, 142, 164)),
    (0.5, (104, 172, 178)),
    (0.6, (160, 206, 198)),
    (0.66, (222, 206, 168)),
    (1.0, (196, 170, 122)),
)


def _shore_far(rng: Generator) -> Layer:
    return soften(_wash(rng, _SHORE, 0.07, 0.45, 9.0), 0.015)


def _shore_near(layer: Layer, rng: Generator) -> None:
    for y in (0.40, 0.49, 0.575, 0.63):
        x = np.linspace(-0.1, 1.1, 9)
        crest = np.stack([x, y + 0.012 * rng.standard_normal(9)], axis=1)
        swell = np.abs(rng.standard_normal(33)) * (y - 0.3) * 0.055
        stroke(layer, curve(crest, closed=False, steps=4), swell, (240, 244, 240))
    _dots(layer, rng, 16, 0.72, 0.004, 0.014, [(150, 128, 96), (232, 222, 200), (120, 110, 100)])


# --- rocks ------------------------------------------------------------------------------------------------------------
_ROCKS = gradient((0.0, (190, 206, 222)), (0.4, (232, 222, 206)), (1.0, (176, 160, 140)))


def _rocks_far(rng: Generator) -> Layer:
    far = _wash(rng, _ROCKS, 0.4, 0.3, 2.0)
    for height, tone in ((0.30, (162, 174, 190)), (0.45, (142, 144, 148)), (0.6, (138, 128, 112))):
        _ridge(far, rng, height, 0.3, tone)
    return soften(far, 0.025)


def _rocks_near(layer: Layer, rng: Generator) -> None:
    for x, y, wide, tone in rng.random((6, 4)):
        _boulder(layer, rng, (x, 0.66 + 0.3 * y), 0.10 + 0.12 * wide, mix((112, 104, 96), (180, 164, 142), tone))
    _dots(layer, rng, 10, 0.62, 0.004, 0.014, [(170, 168, 96), (200, 190, 150), (92, 88, 84)])


def _boulder(layer: Layer, rng: Generator, at: tuple[float, float], size: float, tone: Colour) -> None:
    turn = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    shape = np.stack([np.cos(turn), 0.62 * np.sin(turn)], axis=1) * (size * (0.8 + 0.35 * rng.random(8)))[:, None]
    fill(layer, at + shape, dim(tone, 0.72))
    fill(layer, at + shape * (0.86, 0.72) - (0.08 * size, 0.15 * size), tone)
    fill(layer, at + shape * (0.5, 0.35) - (0.16 * size, 0.3 * size), dim(tone, 1.16))


# --- snow -------------------------------------------------------------------------------------------------------------
_SNOW = gradient((0.0, (188, 200, 222)), (0.45, (222, 228, 238)), (0.7, (236, 240, 246)), (1.0, (206, 216, 234)))


def _snow_far(rng: Generator) -> Layer:
    far = _wash(rng, _SNOW, 0.35, 0.25, 2.0)
    for x, y, tall in rng.random((8, 3)):
        foot, height = 0.58 + 0.12 * y, 0.25 + 0.3 * tall
        tone = mix((146, 164, 184), (92, 116, 132), y)
        fill(far, np.array([(x, foot - height), (x - 0.28 * height, foot), (x + 0.28 * height, foot)]), tone)
    _ridge(far, rng, 0.66, 0.08, (228, 234, 244))
    return soften(far, 0.03)


def _snow_near(layer: Layer, rng: Generator) -> None:
    _ridge(layer, rng, 0.86, 0.12, (238, 242, 248))
    glaze(layer, 0.75, lambda over: _dots(over, rng, 34, 0.0, 0.004, 0.014, [(255, 255, 255)]))


# --- sky --------------------------------------------------------------------------------------------------------------
_SKY = gradient(
    (0.0, (70, 128, 200)),
    (0.35, (118, 172, 224)),
    (0.52, (168, 206, 236)),
    (0.62, (226, 234, 242)),
    (1.0, (252, 250, 246)),
)


def _sky_far(rng: Generator) -> Layer:
    return soften(_wash(rng, _SKY, 0.72, 0.22, 1.6), 0.03)


def _sky_near(layer: Layer, rng: Generator) -> None:
    _ridge(layer, rng, 0.95, 0.08, (136, 164, 150))
    for x, y in rng.random((2, 2)):
        bird = np.array([(-0.022, -0.008), (-0.01, -0.014), (0.0, 0.0), (0.01, -0.014), (0.022, -0.008)])
        stroke(layer, bird + np.array((x, 0.08 + 0.3 * y)), [0.0, 0.005, 0.006, 0.005, 0.0], (86, 110, 140))


# --- garden -----------------------------------------------------------------------------------------------------------
_GARDEN = gradient(
    (0.0, (226, 216, 196)), (0.3, (178, 196, 140)), (0.55, (112, 152, 92)), (0.8, (74, 118, 72)), (1.0, (52, 92, 60))
)
_ROSES: list[Colour] = [(232, 150, 176), (246, 206, 214), (206, 96, 136), (250, 240, 236), (176, 146, 206)]


def _garden_far(rng: Generator) -> Layer:
    far = soften(_wash(rng, _GARDEN, 0.5, 0.35), 0.04)
    glaze(far, 0.75, lambda over: _dots(over, rng, 14, 0.05, 0.03, 0.075, _ROSES))
    return soften(far, 0.03)


def _garden_near(layer: Layer, rng: Generator) -> None:
    _dots(layer, rng, 12, 0.66, 0.02, 0.05, [(70, 112, 62), (96, 140, 76), (56, 96, 58)])
    for x, y, size, pick in rng.random((6, 4)):
        blossom(layer, (x, 0.60 + 0.38 * y), 0.03 + 0.025 * size, pick * 90, _ROSES[int(pick * len(_ROSES))])


_Painter = tuple[Callable[[Generator], Layer], Callable[[Layer, Generator], None]]
_PAINTERS: dict[str, _Painter] = {
    "forest": (_forest_far, _forest_near),
    "reeds": (_reeds_far, _reeds_near),
    "meadow": (_meadow_far, _meadow_near),
    "shore": (_shore_far, _shore_near),
    "rocks": (_rocks_far, _rocks_near),
    "snow": (_snow_far, _snow_near),
    "sky": (_sky_far, _sky_near),
    "garden": (_garden_far, _garden_near),
}
