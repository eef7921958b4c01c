"""Painting one bird: colours and coverage, from a pose and a species."""

from __future__ import annotations

import numpy as np

from sgdmix_albu.datasets.aviary import shapes
from sgdmix_albu.datasets.aviary.anatomy import Anatomy
from sgdmix_albu.datasets.aviary.paint import (
    Colour,
    Field,
    Layer,
    dim,
    disc,
    feathers,
    fill,
    lines,
    mix,
    resize,
    ribbon,
    soften,
)
from sgdmix_albu.datasets.aviary.scene import Light, Scene
from sgdmix_albu.datasets.aviary.species import Species
from sgdmix_albu.io.opencv import cv2

_PIGMENTS: dict[str, Colour] = {
    "olive": (126, 130, 60),
    "blue": (50, 104, 182),
    "chestnut": (156, 82, 46),
    "slate": (92, 110, 132),
    "black": (46, 45, 52),
    "green": (74, 142, 76),
    "grey": (138, 138, 142),
    "teal": (32, 132, 136),
    "brown": (128, 96, 66),
    "violet": (108, 80, 156),
    "yellow": (240, 206, 66),
    "orange": (236, 142, 54),
    "buff": (226, 196, 148),
    "white": (240, 238, 230),
    "rose": (226, 122, 122),
    "silver": (198, 203, 209),
    "red": (204, 44, 42),
}
_BLACK: Colour = (30, 27, 30)
_IVORY: Colour = (244, 240, 226)
_SHADE_SIDE = 128  # light and shade are soft, so they are computed at this side whatever the picture's

_BILL_COLOURS: dict[str, Colour] = {
    "black": (58, 55, 58),
    "yellow": (238, 190, 52),
    "grey": (150, 146, 150),
    "orange": (232, 122, 36),
}
_SHANK, _TOE = np.array([1.5, 1.0, 0.9]), np.array([0.9, 0.6])  # widths along leg and toe


def paint_bird(side: int, bird: Anatomy, scene: Scene) -> Layer:
    """Paint a bird.

    Args:
        side: Side of the layers, in pixels.
        bird: The bird's anatomy in the picture.
        scene: The scene it is from; only the species, the light and the head's turn matter here.

    Returns:
        (side, side, 4) uint8: colours, and coverage last, 255 where a pixel is all bird (body, bill, tail, legs).
    """
    species = scene.species
    coverage = np.zeros((side, side), np.uint8)
    for outline in (bird.torso, bird.neck, bird.skull):
        fill(coverage, outline, 255)
    layer = _torso(side, bird, species)
    layer[..., 3] = coverage
    _tail(layer, bird, species)
    _legs(layer, bird, species)
    _crest(layer, bird, species)
    _streaks(layer, bird, species)
    _wing(layer, bird, species)
    layer = _shaded(layer, coverage, bird, scene.light)
    _bill(layer, bird, species)
    _eye(layer, bird, species, scene.head_turn)
    return layer


def _torso(side: int, bird: Anatomy, species: Species) -> Layer:
    """Ground colours of head and body, which run softly into each other, (side, side, 4)."""
    back, under = _PIGMENTS[species.back], _PIGMENTS[species.under]
    layer = np.empty((side, side, 4), np.uint8)
    layer[:] = (*back, 0)
    body, head = bird.body.place, bird.head.place
    fill(layer, head(shapes.CHEEK), mix(back, under, 0.25))
    fill(layer, body(shapes.UNDERSIDE), under)
    fill(layer, head(shapes.THROAT), under)
    fill(layer, body(shapes.WING_SHADOW), mix(under, back, 0.5))
    if species.breast == "bib":
        fill(layer, head(shapes.BIB), _PIGMENTS[species.breast_colour])
    if species.breast == "band":
        fill(layer, body(shapes.BAND), _PIGMENTS[species.breast_colour])
    if species.crown == "cap":
        fill(layer, head(shapes.CAP), _PIGMENTS[species.crown_colour])
    if species.crown == "stripe":
        fill(layer, head(shapes.CROWN_STRIPE), _PIGMENTS[species.crown_colour])
    return soften(layer, 0.022 * bird.scale)


def _tail(layer: Layer, bird: Anatomy, species: Species) -> None:
    back, place = _PIGMENTS[species.back], bird.tail.place
    length = shapes.TAIL_LENGTH[species.tail_length]
    end = shapes.tail_end(species.tail, length)
    tone = mix(back, _BLACK, 0.42)
    fill(layer, place(np.concatenate([[(-0.05, 0.055), (-0.05, -0.065)], end])), tone)
    reach = length - (0.15 if species.tail == "forked" else 0.04)
    vanes = place([[(0.0, 0.5 * v), (reach, v)] for v in (-0.045, 0.0, 0.045)])
    lines(layer, vanes, 0.008 * bird.scale, mix(tone, _IVORY, 0.22))
    if species.tail_tip != "plain":
        band = np.concatenate([end, (end - (0.1, 0.0))[::-1]])
        fill(layer, place(band), _PIGMENTS[species.tail_tip])
    fill(layer, bird.body.place(shapes.TAIL_COVERTS), mix(back, _PIGMENTS[species.under], 0.3))


def _legs(layer: Layer, bird: Anatomy, species: Species) -> None:
    skin = mix(_BILL_COLOURS[species.bill_colour], (110, 84, 70), 0.55)
    thigh_tone = mix(_PIGMENTS[species.under], _PIGMENTS[species.back], 0.2)
    forward = np.sign(bird.body.axes[0, 0])
    width = 0.026 * bird.scale
    for leg, tone in zip(bird.legs, (dim(skin, 0.72), skin), strict=True):
        toes = leg[-1] + bird.scale * shapes.TOES * (forward, 1)
        for outline in (ribbon(leg, width * _SHANK), *ribbon(toes, width * _TOE)):
            fill(layer, outline, tone)
        thigh = leg[0] + 0.3 * (leg[1] - leg[0])
        disc(layer, (thigh[0], thigh[1]), 0.055 * bird.scale, thigh_tone)


def _crest(layer: Layer, bird: Anatomy, species: Species) -> None:
    if species.crown != "crest":
        return
    tone = _PIGMENTS[species.crown_colour]
    fill(layer, bird.head.place(shapes.CREST), tone)
    lines(layer, bird.head.place(shapes.CREST_STRANDS), 0.008 * bird.scale, dim(tone, 0.75))


def _streaks(layer: Layer, bird: Anatomy, species: Species) -> None:
    if species.breast != "streaks":
        return
    tone = mix(_PIGMENTS[species.breast_colour], _PIGMENTS[species.under], 0.15)
    for streak in bird.body.place(shapes.STREAKS):
        fill(layer, streak, tone)


def _wing(layer: Layer, bird: Anatomy, species: Species) -> None:
    back, place = _PIGMENTS[species.back], bird.body.place
    flight = mix(back, _BLACK, 0.48)
    fill(layer, place(shapes.WING), flight)
    lines(layer, place(shapes.FLIGHT_FEATHERS), 0.011 * bird.scale, mix(flight, _IVORY, 0.34))
    fill(layer, place(shapes.WING_COVERTS), mix(back, _BLACK, 0.16))
    lines(layer, place(shapes.FEATHER_TIPS), 0.008 * bird.scale, mix(back, _BLACK, 0.34))
    for bar in shapes.WING_BARS[: species.wing_bars]:
        fill(layer, place(bar), _IVORY)


def _bill(layer: Layer, bird: Anatomy, species: Species) -> None:
    size = (bird.bill_length + 0.1, shapes.BILL_DEPTH[species.bill] / shapes.HEAD)
    profile = bird.head.place(shapes.BILLS[species.bill] * size + shapes.BILL_BASE)
    tone = _BILL_COLOURS[species.bill_colour]
    fill(layer, profile, tone)
    lower = np.concatenate([profile[len(profile) // 2 :], bird.head.place([shapes.BILL_BASE])])
    fill(layer, lower, dim(tone, 0.72))


def _eye(layer: Layer, bird: Anatomy, species: Species, turn: float) -> None:
    radius = shapes.HEAD * bird.scale
    if species.eye == "stripe":
        fill(layer, bird.head.place(shapes.EYE_STRIPE), _BLACK)
    if species.eye == "brow":
        fill(layer, bird.head.place(shapes.BROW), _IVORY)
    x, y = bird.head.place([(shapes.EYE[0] + 0.08 * turn, shapes.EYE[1])])[0]
    if species.eye == "ring":
        disc(layer, (x, y), 0.315 * radius, _IVORY)
    disc(layer, (x, y), 0.21 * radius, (26, 20, 20))
    disc(layer, (x - 0.05 * radius, y - 0.07 * radius), 0.065 * radius, (250, 250, 250))


def _shaded(layer: Layer, coverage: Layer, bird: Anatomy, light: Light) -> Layer:
    """Model the body: the blurred silhouette is its height, lit along the light's direction; plumage texture on top."""
    side = coverage.shape[0]
    height: Field = soften(resize(coverage, _SHADE_SIDE), 0.17 * bird.scale).astype(np.float32) * np.float32(1 / 255)
    angle, step = np.radians(light.angle), 0.09 * bird.scale * _SHADE_SIDE
    relief = _slope(height, round(step * float(np.cos(angle))), round(-step * float(np.sin(angle))))
    relief *= np.float32(0.5 * light.contrast)
    relief += (height - np.float32(0.86)) * np.float32(0.22)
    texture = resize(feathers(_SHADE_SIDE, bird.body.axes, bird.body.origin), side)
    grain = texture.astype(np.float32) * np.float32(0.16 / 128) - np.float32(0.16)
    relief = resize(relief, side) + grain
    # Shadows turn a little blue, lights a little warm.
    shade = cv2.merge([1 + relief, 1 + relief * np.float32(0.96), 1 + relief * np.float32(0.84), np.ones_like(relief)])
    return np.asarray(cv2.multiply(layer, shade, dtype=cv2.CV_8U), dtype=np.uint8)


def _slope(height: Field, dx: int, dy: int) -> Field:
    """Height ``(dx, dy)`` pixels behind each pixel less the height as far ahead; 0 beyond the border."""
    side, pad = height.shape[0], max(abs(dx), abs(dy))
    wide = cv2.copyMakeBorder(height, pad, pad, pad, pad, cv2.BORDER_CONSTANT)
    behind = wide[pad - dy : pad - dy + side, pad - dx : pad - dx + side]
    ahead = wide[pad + dy : pad + dy + side, pad + dx : pad + dx + side]
    return np.asarray(behind - ahead, dtype=np.float32)
