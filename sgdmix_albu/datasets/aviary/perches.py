"""Painting what the bird sits or stands on, in the habitat's own material."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sgdmix_albu.datasets.aviary.paint import (
    Colour,
    Layer,
    Points,
    blossom,
    curve,
    dim,
    disc,
    fill,
    gradient,
    lay_over,
    leaf,
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

_GRID = 128
Generator = np.random.Generator


@dataclass(frozen=True, slots=True)
class _Branch:
    """A perch: bark colour, thickness, what grows on it, and the steepest slope it takes, in degrees."""

    bark: Colour
    width: float
    garnish: str
    slope: float


@dataclass(frozen=True, slots=True)
class _Ground:
    """A ground: dark, middle and light colour, roughness of its edge, and what grows along the edge."""

    dark: Colour
    middle: Colour
    light: Colour
    rough: float
    garnish: str


_BRANCHES = {
    "forest": _Branch((92, 72, 50), 0.050, "moss", 16),
    "reeds": _Branch((176, 158, 88), 0.026, "bare", 38),
    "meadow": _Branch((122, 128, 70), 0.028, "leaves", 34),
    "shore": _Branch((170, 158, 142), 0.054, "bare", 14),
    "rocks": _Branch((116, 104, 96), 0.042, "bare", 20),
    "snow": _Branch((84, 70, 66), 0.046, "snow", 16),
    "sky": _Branch((106, 86, 74), 0.040, "leaves", 20),
    "garden": _Branch((112, 82, 66), 0.044, "blossoms", 18),
}
_GROUNDS = {
    "forest": _Ground((44, 52, 28), (84, 96, 44), (136, 148, 72), 0.030, "litter"),
    "reeds": _Ground((58, 52, 42), (98, 88, 66), (146, 134, 100), 0.020, "grass"),
    "meadow": _Ground((48, 84, 36), (92, 134, 54), (150, 180, 84), 0.030, "grass"),
    "shore": _Ground((160, 134, 94), (208, 184, 138), (238, 222, 184), 0.012, "pebbles"),
    "rocks": _Ground((78, 76, 78), (134, 128, 124), (190, 182, 170), 0.050, "pebbles"),
    "snow": _Ground((178, 194, 222), (226, 232, 244), (252, 253, 255), 0.030, "bare"),
    "sky": _Ground((110, 104, 84), (164, 152, 112), (206, 194, 148), 0.020, "grass"),
    "garden": _Ground((58, 100, 48), (104, 150, 70), (158, 190, 98), 0.012, "petals"),
}


def paint_perch(picture: Layer, habitat: str, stance: str, feet: Points, scale: float, seed: int) -> None:
    """Paint a branch (``stance`` "perched") or ground ("standing") under ``feet`` (2,) into the picture, in place."""
    rng = np.random.default_rng([seed, HABITATS.index(habitat), 1])
    if stance == "perched":
        _branch(picture, _BRANCHES[habitat], feet, rng)
    else:
        _ground(picture, _GROUNDS[habitat], feet, scale, rng)


def _branch(picture: Layer, kind: _Branch, feet: Points, rng: Generator) -> None:
    slope = np.tan(np.radians(kind.slope * rng.uniform(-1, 1)))
    sag = rng.uniform(-0.10, 0.10)
    x = np.linspace(-0.1, 1.1, 13)
    away = x - feet[0]
    # Knots bend a branch, but never under the feet.
    knots = 0.02 * rng.standard_normal(13) * np.clip(np.abs(away) * 4, 0, 1)
    y = feet[1] + 0.45 * kind.width + slope * away + sag * away**2 + knots
    centre = curve(np.stack([x, y], axis=1), closed=False, steps=3)
    flip = 1 if rng.random() < 0.5 else -1
    widths = kind.width * np.linspace(1 + 0.3 * flip, 1 - 0.3 * flip, len(centre))
    _twigs(picture, kind, centre, widths, rng)
    stroke(picture, centre, widths, dim(kind.bark, 0.62))
    stroke(picture, centre - widths[:, None] * (0.0, 0.12), 0.72 * widths, kind.bark)
    stroke(picture, centre - widths[:, None] * (0.0, 0.28), 0.26 * widths, mix(kind.bark, (250, 240, 216), 0.28))
    if kind.garnish in ("moss", "snow"):
        cover: Colour = (112, 136, 58) if kind.garnish == "moss" else (246, 249, 254)
        bumps = np.clip(0.30 + 0.28 * np.sin(np.arange(len(centre)) * 0.9 + 6 * rng.random()), 0.0, 1.0)
        stroke(picture, centre - widths[:, None] * (0.0, 0.42), widths * bumps, cover)


def _twigs(picture: Layer, kind: _Branch, centre: Points, widths: Points, rng: Generator) -> None:
    """Side shoots with what grows on them, away from the feet."""
    for place, bend, long, pick in rng.random((3, 4)):
        k = int((0.05 + 0.3 * place if bend < 0.5 else 0.65 + 0.3 * place) * len(centre))
        up = -1 if pick < 0.6 else 1
        tip = centre[k] + (0.20 * (bend - 0.5), up * (0.07 + 0.09 * long))
        shoot = curve(np.stack([centre[k], 0.5 * (centre[k] + tip) + (0.02, 0), tip]), closed=False, steps=4)
        stroke(picture, shoot, np.linspace(0.3, 0.1, len(shoot)) * widths[k], dim(kind.bark, 0.75))
        if kind.garnish in ("leaves", "moss"):
            green = mix((84, 124, 54), (150, 168, 76), pick)
            leaf(picture, tip, 0.09, 200 * bend - 180 * (up < 0), green)
            leaf(picture, shoot[5], 0.07, 200 * long, dim(green, 0.86))
        if kind.garnish == "blossoms":
            blossom(picture, (tip[0], tip[1]), 0.034, 360 * long, (246, 206, 216))


def _ground(picture: Layer, kind: _Ground, feet: Points, scale: float, rng: Generator) -> None:
    side = picture.shape[0]
    x = np.linspace(-0.1, 1.1, 13)
    away = x - feet[0]
    lift = kind.rough * rng.standard_normal(13) * np.clip(np.abs(away) * 3, 0, 1)
    slope = kind.rough * rng.uniform(-2, 2)
    top = curve(np.stack([x, feet[1] + 0.008 + slope * away + lift], axis=1), closed=False, steps=3)
    cover = np.zeros((side, side), np.uint8)
    fill(cover, np.concatenate([top, [(1.1, 1.2), (-0.1, 1.2)]]), 255)

    table = gradient((0.0, kind.dark), (0.5, kind.middle), (1.0, kind.light))
    values = noise(rng, _GRID, 0.5, 2.5).astype(np.float32)
    depth = np.clip((np.arange(_GRID) / _GRID - feet[1]) * 1.6, 0, 1) * 90
    lit = np.clip(values * 0.9 + 60 - depth[:, None], 0, 255).astype(np.uint8)
    shadow = np.zeros((_GRID, _GRID), np.uint8)
    lie = np.array([(-0.34, 0.012), (0.0, -0.005), (0.30, 0.012), (0.0, 0.075)]) * (scale * 1.1, scale)
    fill(shadow, feet + curve(lie), 92)
    lit = np.asarray(cv2.subtract(lit, soften(shadow, 0.035)), dtype=np.uint8)
    lay_over(picture, resize(tint(lit, table), side), cover)
    _edge(picture, kind, top, feet, rng)


def _edge(picture: Layer, kind: _Ground, top: Points, feet: Points, rng: Generator) -> None:
    """What grows or lies along the top of the ground, behind the feet."""
    if kind.garnish in ("grass", "litter", "petals"):
        k, tall, lean, down = rng.random((4, 18, 1))
        near = np.where(np.arange(18)[:, None] < 8, 0.0, down)  # some along the edge, some nearer, those taller
        foot = top[(k[:, 0] * len(top)).astype(int)] + np.concatenate([0.03 * lean, 0.012 + 0.3 * near], axis=1)
        rise = (0.025 + 0.06 * tall) * (1 + 0.6 * near)
        tip = foot + np.concatenate([1.2 * rise * (lean - 0.5), -rise], axis=1)
        middle = 0.5 * (foot + tip) - np.concatenate([0.01 * (lean - 0.5), 0.1 * rise], axis=1)
        outlines = ribbon(np.stack([foot, middle, tip], axis=1), np.array([0.013, 0.010, 0.001]))
        for place, tone in zip(np.argsort(foot[:, 1]), tall[:, 0], strict=True):
            fill(picture, outlines[place], mix(kind.middle, kind.light, tone))
    if kind.garnish == "litter":
        for k, down, turn, tone in rng.random((6, 4)):
            at = top[int(k * len(top))] + (0.0, 0.03 + 0.25 * down)
            leaf(picture, at, 0.07, 360 * turn, mix((150, 92, 44), (196, 150, 72), tone))
    if kind.garnish == "petals":
        for k, down, size, tone in rng.random((9, 4)):
            x, y = top[int(k * len(top))] + (0.0, 0.03 + 0.25 * down)
            disc(picture, (x, y), 0.008 + 0.01 * size, mix((250, 220, 228), (222, 130, 160), tone))
    if kind.garnish == "pebbles":
        for k, down, size, tone in rng.random((9, 4)):
            x, y = top[int(k * len(top))] + (0.0, 0.02 + 0.16 * down)
            radius = 0.006 + 0.012 * size
            disc(picture, (x, y + 0.4 * radius), radius, dim(kind.dark, 0.85))
            disc(picture, (x, y), radius, mix(kind.middle, kind.light, tone))
