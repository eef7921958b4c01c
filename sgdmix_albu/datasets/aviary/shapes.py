"""Outlines of a bird's parts, each in the frame of the part it belongs to (see `anatomy`).

Body and tail shapes are in body lengths, head shapes in head radii. Curves are sampled once, here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sgdmix_albu.datasets.aviary.paint import Points, curve, ribbon

HEAD = 0.195  # radius of the head, in body lengths


def _closed(*control: tuple[float, float], steps: int = 6) -> Points:
    return curve(np.array(control), steps=steps)


def _stroke(*control: tuple[float, float], widths: npt.ArrayLike) -> Points:
    """Stroke through control points, its full width following ``widths`` from end to end."""
    centre = curve(np.array(control), closed=False)
    given = np.asarray(widths, dtype=np.float64)
    places = np.linspace(0, 1, len(given))
    return ribbon(centre, np.interp(np.linspace(0, 1, len(centre)), places, given))


# --- body -------------------------------------------------------------------------------------------------------------
TORSO = _closed(
    (-0.54, 0.00),
    (-0.40, -0.085),
    (-0.16, -0.185),
    (0.08, -0.235),
    (0.27, -0.225),
    (0.41, -0.12),
    (0.45, 0.02),
    (0.385, 0.145),
    (0.23, 0.235),
    (0.02, 0.265),
    (-0.19, 0.215),
    (-0.38, 0.105),
    steps=8,
)
UNDERSIDE = _closed(
    (0.62, -0.12), (0.36, -0.06), (0.20, 0.07), (-0.20, 0.10), (-0.62, 0.02), (-0.5, 0.3), (0.0, 0.5), (0.5, 0.4)
)
BAND = _stroke((0.60, -0.10), (0.42, 0.03), (0.30, 0.13), (0.20, 0.33), widths=[0.1, 0.1])
TAIL_COVERTS = _closed((-0.62, -0.01), (-0.50, -0.05), (-0.30, -0.11), (-0.25, 0.06), (-0.42, 0.075), (-0.52, 0.05))
STREAKS = ribbon(
    np.array(
        [
            [(a + 0.025, b - 0.012), (a, b), (a - 0.03, b + 0.01)]
            for i in range(6)
            for j in range(3)
            for a, b in [(0.40 - 0.10 * i - 0.03 * j, 0.03 + 0.065 * j + 0.02 * (i % 2))]
        ]
    ),
    np.array([0.01, 0.026, 0.014]),
)
TOES = np.array([[(0.0, 0.0), (0.10, 0.02)], [(0.0, 0.0), (0.06, 0.035)], [(0.0, 0.0), (-0.06, 0.02)]])

# --- head -------------------------------------------------------------------------------------------------------------
SKULL = _closed(
    (1.0, 0.10),
    (0.90, -0.38),
    (0.50, -0.84),
    (-0.05, -0.99),
    (-0.62, -0.80),
    (-0.98, -0.25),
    (-0.95, 0.35),
    (-0.55, 0.88),
    (0.10, 1.0),
    (0.72, 0.66),
    steps=8,
)
CHEEK = _closed((1.1, 0.25), (0.0, 0.1), (-0.8, 0.5), (-0.4, 1.2), (0.7, 1.1))
THROAT = _closed((1.3, 0.42), (0.2, 0.62), (-0.3, 1.3), (0.6, 1.8), (1.4, 1.2))
BIB = _closed((1.15, 0.34), (0.45, 0.5), (-0.05, 0.95), (0.0, 1.5), (0.5, 1.75), (1.3, 1.2))
CAP = _closed((1.05, -0.22), (0.5, -0.36), (-0.3, -0.34), (-1.1, 0.1), (-1.3, -0.9), (0.0, -1.4), (1.2, -0.9))
CROWN_STRIPE = _stroke(
    (1.0, -0.45),
    (0.55, -0.80),
    (-0.05, -0.92),
    (-0.65, -0.72),
    (-1.0, -0.1),
    widths=0.34 * np.sin(np.linspace(0.4, 2.7, 9)),
)
CREST = _closed(
    (0.92, -0.42),
    (0.45, -1.0),
    (-0.2, -1.45),
    (-1.05, -1.9),
    (-0.85, -1.25),
    (-1.3, -1.2),
    (-0.85, -0.55),
    (0.2, -0.5),
    steps=3,
)
CREST_STRANDS = [np.array([(0.5, -0.7), (-0.2, -1.15), tip]) for tip in ((-0.85, -1.65), (-0.95, -1.25))]
EYE = (0.40, -0.14)
EYE_STRIPE = _stroke((0.98, 0.0), (0.44, -0.14), (-0.25, -0.08), (-0.85, 0.12), widths=[0.24, 0.20])
BROW = _stroke((0.98, -0.22), (0.42, -0.48), (-0.25, -0.46), (-0.82, -0.16), widths=[0.24, 0.16])

# --- bill: from base (0) to tip (1), heights in bill depths; the upper edge out, the lower edge back ----
BILL_BASE = (0.84, 0.06)
BILL_LENGTH = {"short": 0.15, "medium": 0.22, "long": 0.34}
BILL_DEPTH = {"cone": 0.165, "slender": 0.08, "curved": 0.085, "hooked": 0.12}
BILLS: dict[str, Points] = {
    "slender": np.array([(0.0, -0.5), (0.5, -0.3), (1.0, 0.08), (0.5, 0.28), (0.0, 0.45)]),
    "cone": np.array([(0.0, -0.55), (0.5, -0.38), (1.0, 0.1), (0.55, 0.34), (0.0, 0.5)]),
    "curved": np.array([(0.0, -0.5), (0.45, -0.42), (0.8, 0.15), (1.0, 1.05), (0.76, 0.75), (0.4, 0.25), (0.0, 0.45)]),
    "hooked": np.array(
        [(0.0, -0.55), (0.4, -0.58), (0.7, -0.48), (0.9, -0.2), (0.96, 0.8), (0.8, 0.32), (0.55, 0.38), (0.0, 0.45)]
    ),
}

# --- folded wing ------------------------------------------------------------------------------------------------------
WING = _closed(
    (0.31, -0.08),
    (0.22, 0.06),
    (0.03, 0.135),
    (-0.20, 0.11),
    (-0.42, 0.04),
    (-0.67, -0.012),
    (-0.44, -0.10),
    (-0.17, -0.175),
    (0.10, -0.195),
    (0.26, -0.17),
)
WING_SHADOW = WING + np.array((0.0, 0.035))
WING_COVERTS = _closed(
    (0.31, -0.08),
    (0.22, 0.06),
    (0.06, 0.13),
    (-0.06, 0.095),
    (-0.085, 0.0),
    (-0.05, -0.10),
    (0.06, -0.185),
    (0.22, -0.18),
)
FLIGHT_FEATHERS = np.array(
    [
        [(0.05 - 0.06 * t, 0.12 - 0.27 * t), (-0.25, 0.085 - 0.2 * t), (-0.63 + 0.22 * t, -0.008 - 0.09 * t)]
        for t in np.linspace(0.12, 0.9, 5)
    ]
)
_BEADED = 0.040 * np.sin(np.linspace(0.5, np.pi - 0.5, 25)) + 0.004 * np.cos(np.arange(25) * 1.6)
WING_BARS = (
    _stroke((0.075, 0.128), (0.0, 0.088), (-0.05, 0.02), (-0.06, -0.06), (-0.04, -0.125), widths=_BEADED),
    _stroke((0.19, 0.075), (0.125, 0.045), (0.08, -0.01), (0.07, -0.075), (0.085, -0.14), widths=_BEADED),
)
_BEND = np.linspace(-1.3, 1.3, 5)
_ARC = np.stack([-0.020 * np.cos(_BEND), 0.026 * np.sin(_BEND)], axis=1)
FEATHER_TIPS = np.array(
    [
        _ARC + np.array((0.215 - 0.06 * row - 0.01 * column, 0.015 - 0.05 * column + 0.025 * (row % 2)))
        for row, count in enumerate((3, 3, 4, 4))
        for column in range(count)
    ]
)

# --- tail: along the tail and across it -------------------------------------------------------------------------------
TAIL_LENGTH = {"short": 0.28, "medium": 0.45, "long": 0.68}
_HALF_TURN = np.linspace(-np.pi / 2, np.pi / 2, 11)


def tail_end(shape: str, length: float) -> Points:
    """The end of a tail of this ``length``, from its upper to its lower corner."""
    if shape == "square":
        return np.array([(length - 0.02, -0.09), (length, -0.075), (length, 0.075), (length - 0.02, 0.09)])
    if shape == "forked":
        return np.array([(length, -0.125), (length - 0.13, 0.0), (length, 0.125)])
    return np.stack([length * 0.96 - 0.19 * (1 - np.cos(_HALF_TURN)), 0.135 * np.sin(_HALF_TURN)], axis=1)
