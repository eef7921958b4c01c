"""The aviary as a map-style dataset in torchvision's manner."""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch.utils.data import Dataset

from sgdmix_albu.arguments import (
    check_choice,
    check_count,
    check_counts,
    check_functions,
    check_number,
    check_seed,
    check_switch,
    said,
)
from sgdmix_albu.datasets.aviary.captions import describe
from sgdmix_albu.datasets.aviary.drawing import SIZES, draw
from sgdmix_albu.datasets.aviary.scene import HABITATS, Scene, compose, home_of
from sgdmix_albu.datasets.aviary.species import MAX_SPECIES, Species, species_table
from sgdmix_albu.datasets.aviary.splits import LAYOUTS, SPLITS, class_counts
from sgdmix_albu.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class AviarySample:
    """One picture with everything known about it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, True on the bird: bill, tail and legs included, parts hidden by something before it excluded.
        label: Class index, as in `Aviary.targets`.
        habitat: Name of the background, one of eight.
        caption: The picture in attribute words.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]
    label: int
    habitat: str
    caption: str


class Aviary(Dataset[tuple[Any, Any]]):
    """Procedural birds for fine-grained classification, with exact foreground masks.

    Species come in families of four: a family shares its colours, and siblings differ from the eldest in one or two
    of crown, wing bars, bill, tail, breast and eye. Every image follows from ``seed``, ``split``, its species and its
    number within the species alone, so a larger dataset begins with the same images, and no global random state is
    used. Nothing is stored: images are drawn on demand.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``: different images of the same species.
        species: How many species (the first ones, up to 216), or the indices of the species wanted, for held-out sets.
        per_species: Images of each class; of the commonest one where ``layout`` is ``"long_tailed"``.
        size: Height and width in pixels, 32 to 512; the same scenes at any size.
        correlation: Probability that a bird is in its species' own habitat rather than in any of the eight: with 0,
            habitat and species are independent; with 1, the habitat tells the species (up to species that share one).
        habitat_shift: In the test split, give every species another habitat, so that the habitats learned in training
            mislead; train and val are not affected.
        layout: ``"balanced"``, ``"long_tailed"`` or ``"few_shot"``; val and test are always balanced.
        imbalance: Rarest class against commonest, in (0, 1], for ``"long_tailed"`` (see `splits.tail_counts`).
        shots: Training images of each class for ``"few_shot"``.
        signs: Share of images with a watermark-like word over the lower border, 0 to 1.
        seed: From 0 to 2**63 - 1: another seed, other images of the same species.
        transform: Applied to the PIL image.
        target_transform: Applied to the label.

    Attributes:
        classes: Class names, ``"000.common_olive_warbler"``; in order of the species' index they sort as they stand.
        class_to_idx: Class name to label.
        targets: Label of every image.
        source_keys: Name of every image, as files would have: ``"000.common_olive_warbler/00000.png"``.
        species: The `Species` of every class.
        counts: Images of every class.

    Raises:
        InvalidInputError: An argument is of the wrong type or outside its range.

    Example:
        >>> birds = Aviary("train", species=3, per_species=2, size=64)
        >>> len(birds), birds.targets
        (6, [0, 0, 1, 1, 2, 2])
        >>> image, label = birds[5]
        >>> image.size, birds.classes[label]
        ((64, 64), '002.common_chestnut_bunting')
        >>> birds.render(5).mask.shape
        (64, 64)
    """

    def __init__(
        self,
        split: str = "train",
        *,
        species: int | Sequence[int] = 12,
        per_species: int = 40,
        size: int = 64,
        correlation: float = 0.0,
        habitat_shift: bool = False,
        layout: str = "balanced",
        imbalance: float = 0.1,
        shots: int = 5,
        signs: float = 0.0,
        seed: int = 0,
        transform: Callable[[Image.Image], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
    ) -> None:
        check_choice("split", split, SPLITS)
        check_choice("layout", layout, LAYOUTS)
        least, most = SIZES
        check_count("size", size, f"must be a whole number from {least} to {most}", least=least, most=most)
        check_counts(per_species=per_species, shots=shots)
        check_number("correlation", correlation, "must lie in [0, 1]", low=0, high=1)
        check_number("signs", signs, "must lie in [0, 1]", low=0, high=1)
        check_number("imbalance", imbalance, "must lie in (0, 1]", low=0, high=1, open_low=True)
        check_switch(habitat_shift=habitat_shift)
        check_seed(seed)
        check_functions(transform=transform, target_transform=target_transform)
        self.split, self.layout, self.habitat_shift = split, layout, habitat_shift
        self.size, self.seed = int(size), int(seed)
        self.correlation, self.signs = float(correlation), float(signs)
        self.transform, self.target_transform = transform, target_transform
        self.species = _chosen(species)
        self.counts = class_counts(self.layout, self.split, len(self.species), per_species, imbalance, shots)
        if min(self.counts) == 0:
            raise InvalidInputError(
                f"per_species={per_species} with imbalance={imbalance} leaves the rarest class without an image; "
                f"expected per_species * imbalance to be at least 1"
            )
        self._ends = list(accumulate(self.counts))
        self.classes = [each.folder for each in self.species]
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        self.targets = [label for label, count in enumerate(self.counts) for _ in range(count)]
        self.source_keys = [
            f"{name}/{number:05d}.png"
            for name, count in zip(self.classes, self.counts, strict=True)
            for number in range(count)
        ]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Image (PIL, RGB) and label, each through its transform."""
        pixels, _ = draw(self.scene(index), self.size)
        image, label = Image.fromarray(pixels), self.targets[index]
        return (
            image if self.transform is None else self.transform(image),
            label if self.target_transform is None else self.target_transform(label),
        )

    def scene(self, index: int) -> Scene:
        """Everything that is drawn in an image, independent of its size."""
        label, number = self._place(index)
        species = self.species[label]
        shift = len(HABITATS) // 2 if self.habitat_shift and self.split == "test" else 0
        return compose(
            np.random.default_rng([self.seed, SPLITS.index(self.split), species.index, number]),
            species,
            home=home_of(species, shift),
            correlation=self.correlation,
            signs=self.signs,
        )

    def render(self, index: int) -> AviarySample:
        """An image with its mask, habitat and caption; no transform is applied."""
        scene = self.scene(index)
        image, mask = draw(scene, self.size)
        return AviarySample(image, mask, self.targets[index], scene.habitat, describe(scene))

    def caption(self, index: int) -> str:
        """An image in attribute words, without drawing it."""
        return describe(self.scene(index))

    def __repr__(self) -> str:
        return (
            f"Aviary({self.split!r}, species={len(self.species)}, images={len(self)}, size={self.size}, "
            f"layout={self.layout!r}, correlation={self.correlation}, seed={self.seed})"
        )

    def _place(self, index: int) -> tuple[int, int]:
        """Label of an image and its number within the class."""
        place = operator.index(index)
        place += len(self) if place < 0 else 0
        if not 0 <= place < len(self):
            # Not one of ours: iterating over a dataset without an iterator ends at Python's own IndexError.
            raise IndexError(f"image {index} of a dataset of {len(self)}")
        label = bisect_right(self._ends, place)
        return label, place - (self._ends[label] - self.counts[label])


def _chosen(species: int | Sequence[int]) -> tuple[Species, ...]:
    table = species_table()
    if isinstance(species, Sequence) and not isinstance(species, str | bytes):
        last = MAX_SPECIES - 1
        for each in species:
            check_count("species", each, f"must be indices from 0 to {last}", least=0, most=last)
        if not species or len(set(species)) < len(species):
            raise InvalidInputError(f"species must be one index or more, each once, got {said(species)}")
        return tuple(table[each] for each in species)
    check_count("species", species, f"must be a whole number from 1 to {MAX_SPECIES}", most=MAX_SPECIES)
    return table[: int(species)]
