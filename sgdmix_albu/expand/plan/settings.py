"""What the outputs follow from, besides the images; and the refiner and the teacher that settings name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields
from numbers import Integral, Real
from typing import TYPE_CHECKING

from sgdmix_albu.arguments import check_counts, check_seed, check_switch, check_text
from sgdmix_albu.bank.reference import check_agreement
from sgdmix_albu.classifiers import Judge, open_judge
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.settings import (
    ClassifierSettings,
    FileSettings,
    MixSettings,
    RefinerSettings,
    SaliencySettings,
    option,
)
from sgdmix_albu.types import BEST_MASK, BEST_SALIENCY

if TYPE_CHECKING:
    from sgdmix_albu.refine.refiner import Refiner

__all__ = ["Settings", "TeacherSettings", "open_refiner", "open_teacher"]

TeacherSettings = ClassifierSettings  # the classifier that judges outputs, where both are named
_CHUNK, _SHARD = 32, 512  # rows that are worked on together: of files, and of a tar shard


@dataclass(frozen=True)
class Settings(MixSettings, FileSettings):
    """What the outputs follow from, besides the images. Checked when made.

    Beside these it has what :class:`sgdmix_albu.settings.MixSettings` and :class:`sgdmix_albu.settings.FileSettings`
    have: ``p``, ``candidates``, ``target_class``, ``fill``, ``max_coverage`` and ``feather``; ``size``,
    ``image_format`` and ``shards``.

    Attributes:
        saliency: A backend's name, the path of a distilled network, ``"bank:FOLDER"``; or
            :class:`sgdmix_albu.settings.SaliencySettings`, where the backend has options or looks through a classifier.
        mask: A preset's name; see :func:`sgdmix_albu.masks.list_masks`.
        multiplier: Outputs of each image.
        seed: The same seed gives the same outputs.
        keep_unmixed: Write an image that stays unmixed as it is, rather than leave its output out.
        min_agreement: The least share of a better backend's object that a mask must hold; images with less are
            neither sources nor targets. 0 for any: nobody else is asked.
        agreement_with: The better backend's name.

    Raises:
        InvalidInputError: A value that means nothing.

    Example:
        >>> Settings("manifold_ranking", multiplier=2, fill="source").candidates
        50
    """

    saliency: str | SaliencySettings = BEST_SALIENCY
    mask: str = option(BEST_MASK, "mask preset", "NAME")
    _: KW_ONLY
    multiplier: int = option(5, "outputs of each image", "N")
    seed: int = option(0, "the same seed gives the same images", "N")
    keep_unmixed: bool = False
    min_agreement: float = option(
        0, "leave out images whose mask holds a smaller share of what a better backend sees (default: ask nobody)", "F"
    )
    agreement_with: str = option(BEST_SALIENCY, "that better backend", "NAME", flag="--agreement")

    def __post_init__(self) -> None:
        MixSettings.__post_init__(self)
        FileSettings.__post_init__(self)
        check_text(mask=self.mask)
        check_agreement(self.min_agreement, self.agreement_with, self.backend.saliency)
        check_switch(keep_unmixed=self.keep_unmixed)
        check_counts(multiplier=self.multiplier)
        check_seed(self.seed)
        # They are written as JSON, which knows Python's own numbers only.
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, bool) and isinstance(value, Real):
                object.__setattr__(self, field.name, int(value) if isinstance(value, Integral) else float(value))

    @property
    def backend(self) -> SaliencySettings:
        """The saliency backend, and what it looks through."""
        return self.saliency if isinstance(self.saliency, SaliencySettings) else SaliencySettings(self.saliency)

    @property
    def better(self) -> str | None:
        """The better backend, if anybody is asked."""
        return self.agreement_with if self.min_agreement > 0 else None

    @property
    def chunk(self) -> int:
        """Rows that are worked on together."""
        return _SHARD if self.shards else _CHUNK


def open_teacher(settings: ClassifierSettings, classes: Sequence[str]) -> Judge:
    """The classifier that says what it sees in an output, for these classes.

    Raises:
        DataError: It does not know them, or cannot be read.
        InvalidInputError: No weights are named.
    """
    if settings.model is None:
        raise InvalidInputError("expected the weights of a teacher as model=, got None")
    return open_judge(
        settings.model,
        classes,
        arch=settings.arch,
        class_names=settings.class_names,
        normalize=settings.normalize,
        must_know=True,
    )


def open_refiner(settings: RefinerSettings, teacher: ClassifierSettings | None = None) -> Refiner:
    """The refiner; nothing heavy is loaded before the first image.

    Raises:
        DataError: No weights; or the strength is adaptive, and the teacher does not know the refiner's classes.
        InvalidInputError: A setting means nothing.
    """
    import torch

    from sgdmix_albu.refine import get_refiner

    refiner = get_refiner(
        settings.name,
        base=settings.base,
        steps=settings.steps,
        guidance=settings.guidance,
        scheduler=settings.scheduler,
        dtype=None if settings.dtype is None else getattr(torch, settings.dtype),
        loras=settings.loras,
        device=settings.device,
        compile=settings.compile,
        hole_strength=settings.hole_strength,
    )
    if settings.adaptive and teacher is not None:
        refiner.teacher = open_teacher(teacher, refiner.classes)
    return refiner
