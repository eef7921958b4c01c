"""Aviary: procedural birds for fine-grained classification, with exact masks and controllable habitats.

A scene (`Scene`) is drawn at random from a species (`Species`) and painted at any size by `draw`; `Aviary` is the
dataset made of such scenes.
"""

from __future__ import annotations

from sgdmix_albu.datasets.aviary.captions import describe, describe_species
from sgdmix_albu.datasets.aviary.dataset import Aviary, AviarySample
from sgdmix_albu.datasets.aviary.drawing import draw
from sgdmix_albu.datasets.aviary.export import export
from sgdmix_albu.datasets.aviary.scene import HABITATS, Distractor, Light, Scene, compose, home_of
from sgdmix_albu.datasets.aviary.species import MAX_SPECIES, Species, species_table

__all__ = [
    "Aviary",
    "AviarySample",
    "export",
    "Scene",
    "Light",
    "Distractor",
    "compose",
    "draw",
    "HABITATS",
    "home_of",
    "Species",
    "species_table",
    "MAX_SPECIES",
    "describe",
    "describe_species",
]
