"""Where each part of a posed bird lies: shapes in the bird's own frames, placed into the picture.

Lengths are in body lengths (breast to rump). Every frame's first axis points forward (to the breast, along the bill,
to the tip of the tail), its second axis to the belly side. Nothing here knows about colours or pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sgdmix_albu.datasets.aviary.paint import Points, rotation
from sgdmix_albu.datasets.aviary.scene import Scene
from sgdmix_albu.datasets.aviary.shapes import BILL_LENGTH, CREST, HEAD, SKULL, TAIL_LENGTH, TORSO, tail_end
from sgdmix_albu.io.opencv import cv2

_MARGIN = 0.03  # the bird keeps this far from the picture's border

_TURN = np.linspace(0.0, 2 * np.pi, 48, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)


@dataclass(frozen=True, slots=True)
class Frame:
    """A body part's coordinates: ``origin`` (2,) and ``axes`` (2, 2), one axis a row."""

    origin: Points
    axes: npt.NDArray[np.float64]

    def place(self, points: npt.ArrayLike) -> Points:
        """Points (..., 2) of this frame, in the coordinates that the frame is given in."""
        placed: Points = self.origin + np.asarray(points) @ self.axes
        return placed


@dataclass(frozen=True, slots=True)
class Anatomy:
    """A posed bird, in picture coordinates.

    Attributes:
        scale: Body length, in picture sides.
        body, head, tail: Frames of the parts; their units are body lengths, for the head its radius.
        torso, neck, skull: Outlines (n, 2) that together make the body's silhouette.
        legs: Far leg, near leg: hip, heel, foot (3, 2).
        bill_length: Length of the visible bill, in head radii.
    """

    scale: float
    body: Frame
    head: Frame
    tail: Frame
    torso: Points
    neck: Points
    skull: Points
    legs: tuple[Points, Points]
    bill_length: float

    @property
    def feet(self) -> Points:
        """Middle between the two feet, (2,)."""
        middle: Points = 0.5 * (self.legs[0][-1] + self.legs[1][-1])
        return middle


def pose(scene: Scene) -> Anatomy:
    """Place a scene's bird; the whole bird stays inside the picture, and is made smaller where it must be."""
    body = _frame((0.0, 0.0), scene.tilt)
    lift = np.radians(52 + 0.5 * scene.tilt)
    reach = 0.165 if scene.looks_back else 0.22
    nape = body.place([(0.30, -0.13)])[0] + reach * np.array([np.cos(lift), -np.sin(lift)])
    head = _frame(nape, scene.head_pitch, size=HEAD, mirrored=scene.looks_back)
    tail = _frame(body.place([(-0.42, 0.0)])[0], scene.tilt - scene.tail_lift, mirrored=True, turn=-1)
    bill_length = BILL_LENGTH[scene.species.bill_length] / HEAD * (1 - 0.3 * scene.head_turn)
    bill_tip = head.place([(0.9 + bill_length, 0.1)])
    crown = head.place(CREST) if scene.species.crown == "crest" else bill_tip

    legs = _legs(body, scene.stance)
    torso, skull = body.place(TORSO), head.place(SKULL)
    chest = body.place([(0.22, -0.02)])[0] + 0.225 * _CIRCLE
    throat = np.concatenate([chest, nape + 0.93 * HEAD * _CIRCLE]).astype(np.float32)
    neck = np.asarray(cv2.convexHull(throat), dtype=np.float64)[:, 0]
    tail_tip = tail.place(tail_end(scene.species.tail, TAIL_LENGTH[scene.species.tail_length]))

    extent = np.concatenate([torso, skull, crown, bill_tip, tail_tip, *legs])
    low, high = extent.min(axis=0), extent.max(axis=0)
    scale = min(scene.scale, (1 - 2 * _MARGIN) / float((high - low).max()))
    into = scale * np.diag([1.0 if scene.facing == "right" else -1.0, 1.0])
    half = 0.5 * scale * (high - low) + _MARGIN
    origin = np.clip((scene.x, scene.y), half, 1 - half) - 0.5 * (low + high) @ into
    picture = Frame(origin, into)
    return Anatomy(
        scale=scale,
        body=_within(picture, body),
        head=_within(picture, head),
        tail=_within(picture, tail),
        torso=picture.place(torso),
        neck=picture.place(neck),
        skull=picture.place(skull),
        legs=(picture.place(legs[0]), picture.place(legs[1])),
        bill_length=bill_length,
    )


def _frame(origin: npt.ArrayLike, angle: float, *, size: float = 1.0, mirrored: bool = False, turn: int = 1) -> Frame:
    """Frame whose forward axis is raised by ``angle`` degrees; ``mirrored`` looks the other way.

    A mirrored frame is raised on its own side (a head that looks back lifts its bill too) unless ``turn`` is -1.
    """
    axes = rotation(turn * np.radians(angle)) * (-1.0 if mirrored else 1.0, 1.0)
    return Frame(np.asarray(origin), size * axes)


def _legs(body: Frame, stance: str) -> tuple[Points, Points]:
    length = 0.09 if stance == "perched" else 0.19
    low = float(body.place(TORSO)[:, 1].max()) + length
    far, near = (
        np.stack([hip, (hip[0] - 0.05, hip[1] + 0.45 * (low - hip[1])), (hip[0] + step, low)])
        for hip, step in zip(body.place([(0.02, 0.17), (-0.12, 0.17)]), (0.07, 0.03), strict=True)
    )
    return far, near


def _within(outer: Frame, inner: Frame) -> Frame:
    return Frame(outer.place(inner.origin), inner.axes @ outer.axes)
