"""Painting the other things in a picture: sprays of leaves, twigs and blossoms, bokeh, a sign."""

from __future__ import annotations

import numpy as np

from sgdmix_albu.datasets.aviary.paint import Colour, Layer, blossom, curve, dim, disc, fill, glaze, leaf, mix, stroke
from sgdmix_albu.datasets.aviary.scene import Distractor
from sgdmix_albu.io.opencv import cv2

_BARK: Colour = (96, 78, 64)
_GREENS: tuple[Colour, Colour] = ((64, 108, 52), (168, 176, 70))
_PETALS: tuple[Colour, Colour] = ((248, 222, 228), (214, 112, 150))
_LIGHTS: tuple[Colour, Colour] = ((255, 240, 196), (214, 232, 250))
_SIGN = "AVIARY"
_SIGN_OPACITY = 0.6


def paint_distractor(layer: Layer, thing: Distractor) -> None:
    """Paint one thing into a layer (S, S, 3), or (S, S, 4) with the coverage last, in place."""
    if thing.kind == "bokeh":
        for share in (0.5, 0.46, 0.42):  # three thin discs make one with a soft border
            _bokeh(layer, thing, share)
    elif thing.kind == "sign":
        glaze(layer, _SIGN_OPACITY, lambda over: _sign(over, thing))
    else:
        _spray(layer, thing)


def _bokeh(layer: Layer, thing: Distractor, share: float) -> None:
    tone = mix(*_LIGHTS, thing.variant)
    glaze(layer, 0.07, lambda over: disc(over, (thing.x, thing.y), share * thing.size, tone))


def _spray(layer: Layer, thing: Distractor) -> None:
    """A shoot that grows into the picture from its nearest border, with leaves or blossoms along it."""
    tip = np.array((thing.x, thing.y))
    outwards = (tip - 0.5) / max(float(np.hypot(*(tip - 0.5))), 1e-9)
    across = np.array([-outwards[1], outwards[0]])
    bend = 0.6 * np.sin(np.radians(thing.angle))
    root = tip + 2.6 * thing.size * outwards
    middle = tip + 1.3 * thing.size * outwards + bend * thing.size * across
    shoot = curve(np.stack([root, middle, tip]), closed=False, steps=5)
    stroke(layer, shoot, np.linspace(0.10, 0.03, len(shoot)) * thing.size, _BARK)
    inwards = float(np.degrees(np.arctan2(outwards[1], -outwards[0])))
    for k, place in enumerate(shoot[3::2]):
        if not (-0.1 < place[0] < 1.1 and -0.1 < place[1] < 1.1):
            continue  # out of the picture
        side = 1 if k % 2 else -1
        if thing.kind == "leaf":
            green = dim(mix(*_GREENS, thing.variant), 1 - 0.07 * (k % 3))
            leaf(layer, place, 0.62 * thing.size, inwards + 48 * side, green)
        elif thing.kind == "blossom":
            at = place + 0.16 * side * thing.size * across
            blossom(layer, (at[0], at[1]), 0.24 * thing.size, thing.angle + 20 * k, mix(*_PETALS, thing.variant))
        else:
            spur = place + thing.size * (0.3 * side * across - 0.25 * outwards)
            fill(layer, np.stack([place - 0.03 * thing.size * across, spur, place + 0.03 * thing.size * across]), _BARK)


def _sign(layer: Layer, thing: Distractor) -> None:
    """A word along the lower border, like a stock photograph's watermark."""
    side = layer.shape[0]
    font, thickness = cv2.FONT_HERSHEY_DUPLEX, max(1, round(side / 110))
    scale = side / 230
    (width, height), _ = cv2.getTextSize(_SIGN, font, scale, thickness)
    margin = round(0.04 * side)
    x = margin if thing.x < 0.5 else side - margin - width
    white = (255, 255, 255, 255)[: layer.shape[2]]
    cv2.putText(layer, _SIGN, (x, side - margin - height // 4), font, scale, white, thickness, cv2.LINE_AA)
