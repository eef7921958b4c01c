"""From a scene to pixels: habitat, perch, bird and whatever lies before it, in one light."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sgdmix_albu.datasets.aviary.anatomy import pose
from sgdmix_albu.datasets.aviary.bird import paint_bird
from sgdmix_albu.datasets.aviary.distractors import paint_distractor
from sgdmix_albu.datasets.aviary.habitats import paint_habitat
from sgdmix_albu.datasets.aviary.paint import Layer, lay_over, resize, trimmed
from sgdmix_albu.datasets.aviary.perches import paint_perch
from sgdmix_albu.datasets.aviary.scene import Distractor, Light, Scene
from sgdmix_albu.io.opencv import cv2

SIZES = (32, 512)
"""Smallest and largest side of a picture, in pixels."""


def draw(scene: Scene, size: int) -> tuple[Layer, npt.NDArray[np.bool_]]:
    """Draw a scene.

    Args:
        scene: What to draw.
        size: Side of the picture in pixels, 32 to 512. The same scene looks the same at any size.

    Returns:
        Image (size, size, 3) uint8 RGB; mask (size, size) bool, True where at least half of a pixel is the
        bird (bill, tail and legs included) and not hidden by something before it.
    """
    factor = _oversampling(size)
    side = size * factor
    bird = pose(scene)
    picture = paint_habitat(side, scene.habitat, scene.background_seed)
    for thing in scene.distractors:
        if not thing.front:
            paint_distractor(picture, thing)
    paint_perch(picture, scene.habitat, scene.stance, bird.feet, bird.scale, scene.background_seed)
    layer = paint_bird(side, bird, scene)
    coverage = trimmed(layer[..., 3])
    lay_over(picture, layer[..., :3], coverage)

    front = [thing for thing in scene.distractors if thing.front]
    if front:
        _cover(picture, coverage, front)
    picture, coverage = resize(picture, size), resize(coverage, size)
    return _lit(picture, scene.light), coverage >= 128


def _cover(picture: Layer, coverage: Layer, front: list[Distractor]) -> None:
    """Paint things before the bird, in place, and take them out of its coverage."""
    over = np.zeros((*coverage.shape, 4), np.uint8)
    for thing in front:
        paint_distractor(over, thing)
    # Painted on nothing, the colours of `over` are weighted by its own coverage already.
    free = 255 - over[..., 3]
    cv2.multiply(picture, cv2.merge([free] * 3), scale=1 / 255, dst=picture)
    cv2.add(picture, over[..., :3], dst=picture)
    cv2.multiply(coverage, free, scale=1 / 255, dst=coverage)


def _oversampling(size: int) -> int:
    """Canvas pixels per pixel and side: small pictures need finer brushes, large ones are fine as they are."""
    return 4 if size < 48 else 2 if size < 256 else 1


def _lit(picture: Layer, light: Light) -> Layer:
    """Exposure and colour of the light, as one curve for each channel."""
    values = np.arange(256.0)
    tints = np.array([1 + 0.07 * light.warmth, 1 + 0.015 * light.warmth, 1 - 0.08 * light.warmth]) * light.exposure
    curves = np.clip(values[:, None] * tints, 0, 255)
    table = np.rint(curves).astype(np.uint8)[None]
    return np.asarray(cv2.LUT(picture, table), dtype=np.uint8)
