"""Which refiner works on the mixed images, and which teacher judges them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor, tensor

from sgdmix_albu.errors import DataError, SGDMixError
from sgdmix_albu.models import Classifier, open_classifier, standardized

if TYPE_CHECKING:
    from sgdmix_albu.refine.preserve import Preserve
    from sgdmix_albu.refine.refiner import Refiner

__all__ = ["RefinerSettings", "Teacher", "TeacherSettings"]


@dataclass(frozen=True)
class TeacherSettings:
    """A classifier that says what it sees, as :func:`sgdmix_albu.models.open_classifier` takes it."""

    model: str
    arch: str | None = None
    class_names: str | None = None
    normalize: Literal["imagenet", "none"] = "imagenet"

    def open(self, classes: Sequence[str]) -> Teacher:
        """The classifier, for these classes.

        Raises:
            DataError: It does not know them, or cannot be read.
        """
        found = open_classifier(self.model, self.arch, class_names=self.class_names)
        outputs = found.outputs_for(classes)
        if outputs is None:
            raise DataError(
                f"the teacher {self.model} has {found.num_classes} outputs and does not know the classes "
                f"{', '.join(classes[:3])}, ...; name its outputs with --class-names"
            )
        return Teacher(found, tensor(outputs), self.normalize)


@dataclass(frozen=True)
class Teacher:
    """A classifier's opinion on the classes of a data set."""

    classifier: Classifier
    outputs: Tensor
    normalize: str

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1] to logits (B, K).

        Raises:
            SGDMixError: The model does not take such images.
        """
        model, arch = self.classifier.model, self.classifier.arch
        try:
            said: Tensor = model(standardized(pixels) if self.normalize == "imagenet" else pixels)
        # The model's own complaint, of any kind: a transformer that takes one size only, memory that runs out.
        except Exception as error:
            raise SGDMixError(f"the teacher {arch} failed on images of {tuple(pixels.shape)}: {error}") from error
        return said[:, self.outputs]


@dataclass(frozen=True)
class RefinerSettings:
    """Which refiner, and how it works."""

    name: str
    base: str | None = None
    preserve: Preserve = "strict"
    adaptive: bool = False
    device: str | None = None
    compile: bool = False

    def open(self, teacher: TeacherSettings | None = None) -> Refiner:
        """The refiner; nothing heavy is loaded before the first image.

        Raises:
            DataError: No weights; or the strength is adaptive, and the teacher does not know the refiner's classes.
        """
        from sgdmix_albu.refine import get_refiner

        refiner = get_refiner(self.name, base=self.base, device=self.device, compile=self.compile)
        if self.adaptive and teacher is not None:
            refiner.teacher = teacher.open(refiner.classes)
        return refiner
