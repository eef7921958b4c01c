"""Which refiner works on the mixed images, and which teacher judges them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sgdmix_albu.classifiers import Judge, Normalize, open_judge

if TYPE_CHECKING:
    from sgdmix_albu.refine.preserve import Preserve
    from sgdmix_albu.refine.refiner import Refiner

__all__ = ["RefinerSettings", "TeacherSettings"]


@dataclass(frozen=True)
class TeacherSettings:
    """A classifier that says what it sees, as :func:`sgdmix_albu.classifiers.open_classifier` takes it."""

    model: str
    arch: str | None = None
    class_names: str | None = None
    normalize: Normalize = "imagenet"

    def open(self, classes: Sequence[str]) -> Judge:
        """The classifier, for these classes.

        Raises:
            DataError: It does not know them, or cannot be read.
        """
        return open_judge(
            self.model,
            classes,
            arch=self.arch,
            class_names=self.class_names,
            normalize=self.normalize,
            must_know=True,
        )


@dataclass(frozen=True)
class RefinerSettings:
    """Which refiner, and how it works."""

    name: str
    base: str | None = None
    preserve: Preserve = "strict"
    adaptive: bool = False
    device: str | None = None
    compile: bool = False
    hole_strength: float | None = None

    def open(self, teacher: TeacherSettings | None = None) -> Refiner:
        """The refiner; nothing heavy is loaded before the first image.

        Raises:
            DataError: No weights; or the strength is adaptive, and the teacher does not know the refiner's classes.
        """
        from sgdmix_albu.refine import get_refiner

        refiner = get_refiner(
            self.name, base=self.base, device=self.device, compile=self.compile, hole_strength=self.hole_strength
        )
        if self.adaptive and teacher is not None:
            refiner.teacher = teacher.open(refiner.classes)
        return refiner
