"""What is in one picture: a frozen description, drawn at random, that can be painted at any size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sgdmix_albu.datasets.aviary.species import Species

HABITATS = ("forest", "reeds", "meadow", "shore", "rocks", "snow", "sky", "garden")
"""Names of the backgrounds; see `home_of`."""


def home_of(species: Species, shift: int = 0) -> str:
    """The habitat that a species is at home in: they take turns, from the first one or ``shift`` further on."""
    return HABITATS[(species.index + shift) % len(HABITATS)]


@dataclass(frozen=True, slots=True)
class Light:
    """How the scene is lit.

    Attributes:
        angle: Where the light comes from, in degrees: 90 is above, below 90 right of it, over 90 left of it.
        warmth: -1 (overcast, blue) to 1 (evening sun).
        exposure: Brightness factor around 1.
        contrast: Depth of the shading, around 1.
    """

    angle: float
    warmth: float
    exposure: float
    contrast: float


@dataclass(frozen=True, slots=True)
class Distractor:
    """Something else in the picture.

    Attributes:
        kind: ``"leaf"``, ``"twig"``, ``"blossom"``, ``"bokeh"`` or ``"sign"``.
        x, y: Its place, in picture sides.
        size: Its extent, in picture sides.
        angle: Its direction, in degrees.
        front: Whether it lies before the bird, and so hides part of it.
        variant: 0..1, chooses colour and form.
    """

    kind: str
    x: float
    y: float
    size: float
    angle: float
    front: bool
    variant: float


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is drawn in one picture.

    Nothing about the bird depends on the habitat, so ``dataclasses.replace(scene, habitat=...)`` is the same bird
    elsewhere.

    Attributes:
        species: Whose bird it is.
        habitat: One of `HABITATS`.
        stance: ``"perched"`` or ``"standing"``.
        facing: ``"left"`` or ``"right"``.
        tilt: How far the body is raised from level, in degrees.
        head_pitch: How far the bill points up, in degrees.
        head_turn: 0 (pure profile) to 1 (towards the viewer); shortens the bill.
        looks_back: Whether the bird looks over its shoulder.
        tail_lift: Tail against the body, in degrees, upwards positive.
        scale: Body length without bill and tail, in picture sides.
        x, y: Middle of the bird, in picture sides; it is moved inwards where the bird would leave the picture.
        light: The light.
        background_seed: Chooses the details of the habitat.
        distractors: Other things, back to front.
    """

    species: Species
    habitat: str
    stance: str
    facing: str
    tilt: float
    head_pitch: float
    head_turn: float
    looks_back: bool
    tail_lift: float
    scale: float
    x: float
    y: float
    light: Light
    background_seed: int
    distractors: tuple[Distractor, ...]


def compose(
    rng: np.random.Generator, species: Species, *, home: str, correlation: float = 0.0, signs: float = 0.0
) -> Scene:
    """Draw a scene at random.

    The habitat is ``home`` with probability ``correlation``, otherwise any of the eight with equal chances. The same
    generator state gives the same bird and the same details at every ``correlation`` and every ``signs``: only the
    habitat and the sign may change.

    Args:
        rng: Source of every random number.
        species: Whose bird to draw.
        home: The habitat that goes with the species.
        correlation: 0 (habitat says nothing about the species) to 1 (habitat gives the species away).
        signs: Chance of a sign, a watermark-like word over the lower border.
    """
    stays, elsewhere, signed = rng.random() < correlation, HABITATS[rng.integers(len(HABITATS))], rng.random() < signs
    stance = "perched" if rng.random() < 0.55 else "standing"
    low, high = (18.0, 46.0) if stance == "perched" else (4.0, 24.0)
    return Scene(
        species=species,
        habitat=home if stays else elsewhere,
        stance=stance,
        facing="left" if rng.random() < 0.5 else "right",
        tilt=rng.uniform(low, high),
        head_pitch=rng.uniform(-12.0, 20.0),
        head_turn=rng.random(),
        looks_back=rng.random() < 0.1,
        tail_lift=rng.uniform(-8.0, 20.0),
        scale=rng.uniform(0.42, 0.62),
        x=rng.uniform(0.40, 0.60),
        y=rng.uniform(0.42, 0.56),
        light=Light(
            angle=rng.uniform(45.0, 135.0),
            warmth=rng.uniform(-1.0, 1.0),
            exposure=rng.uniform(0.88, 1.08),
            contrast=rng.uniform(0.75, 1.25),
        ),
        background_seed=int(rng.integers(2**32)),
        distractors=_distractors(rng, signed),
    )


def _distractors(rng: np.random.Generator, signed: bool) -> tuple[Distractor, ...]:
    """Up to three things behind the bird and at most one before it, near the border so that marks stay visible."""
    kinds = [("leaf", "twig", "blossom", "bokeh")[k] for k in rng.integers(4, size=rng.integers(4))]
    things = [_distractor(rng, kind, front=False) for kind in kinds]
    if rng.random() < 0.3:
        things.append(_distractor(rng, ("leaf", "twig", "blossom")[rng.integers(3)], front=True))
    if signed:
        things.append(_distractor(rng, "sign", front=True))
    return tuple(things)


def _distractor(rng: np.random.Generator, kind: str, *, front: bool) -> Distractor:
    around = rng.uniform(0.0, 2 * np.pi)
    far = rng.uniform(0.28, 0.40) if front else rng.uniform(0.36, 0.52)
    return Distractor(
        kind=kind,
        x=0.5 + far * float(np.cos(around)),
        y=0.5 + far * float(np.sin(around)),
        size=rng.uniform(0.10, 0.20),
        angle=rng.uniform(0.0, 360.0),
        front=front,
        variant=rng.random(),
    )
