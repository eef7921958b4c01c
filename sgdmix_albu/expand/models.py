"""The networks that settings name: a refiner, and a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from sgdmix_albu.classifiers import Judge, open_judge
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.settings import ClassifierSettings, RefinerSettings

if TYPE_CHECKING:
    from sgdmix_albu.refine.refiner import Refiner


PASSED_ON = ("base", "steps", "guidance", "scheduler", "loras", "device", "compile", "hole_strength")


def open_teacher(settings: ClassifierSettings, classes: Sequence[str], device: str | None = None) -> Judge:
    """The classifier that says what it sees in an output, for these classes; on a GPU if there is one, or there.

    Raises:
        DataError: It does not know them, or cannot be read.
        InvalidInputError: No weights are named.
    """
    if settings.model is None:
        raise InvalidInputError("expected the weights of a teacher as model=, got None")
    return open_judge(classes=classes, must_know=True, device=device, **vars(settings))


def wanted_refiner(settings: RefinerSettings | None) -> RefinerSettings | None:
    """The settings, if they name a refiner.

    Raises:
        InvalidInputError: They name none, and say how it is to work.
    """
    if settings is None or settings.name != "none":
        return settings
    for one in fields(settings)[1:]:
        if (value := getattr(settings, one.name)) != one.default:
            raise InvalidInputError(f"{one.name} needs a refiner, and the refiner is 'none'; got {value!r}")
    return None


def open_refiner(settings: RefinerSettings, teacher: ClassifierSettings | None = None) -> Refiner:
    """The refiner; nothing heavy is loaded before the first image.

    Raises:
        DataError: No weights; or the strength is adaptive, and the teacher does not know the refiner's classes.
        InvalidInputError: Invalid settings.
    """
    import torch

    from sgdmix_albu.refine import get_refiner

    dtype = None if settings.dtype is None else getattr(torch, settings.dtype)
    refiner = get_refiner(settings.name, dtype=dtype, **{name: getattr(settings, name) for name in PASSED_ON})
    if settings.adaptive and teacher is not None:
        refiner.teacher = open_teacher(teacher, refiner.classes, settings.device)
    return refiner
