"""What a run is asked for: all of it is looked into before anything is done."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypedDict

from sgdmix_albu.bank.map_source import from_anywhere, name_from_anywhere, open_saliency, shown
from sgdmix_albu.bank.reference import open_reference
from sgdmix_albu.datasets.source import Reader, Source, open_reader
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.expand.models import open_refiner, open_teacher, wanted_refiner
from sgdmix_albu.io.files import sha256_of
from sgdmix_albu.io.places import settled, settled_files
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.mixing.blending import edge_width
from sgdmix_albu.mixing.masks import get_mask
from sgdmix_albu.refine.catalogue import list_refiners, metaclass_of
from sgdmix_albu.saliency.options import prompted
from sgdmix_albu.settings import ClassifierSettings, RefinerSettings, SaliencySettings, Settings

_FILES = ("model", "class_names")  # of a teacher
_HOW = ("steps", "guidance", "scheduler", "dtype")  # of a refiner; noted where asked, as in runs that could not ask


class Wishes(TypedDict, total=False):
    """What :func:`sgdmix_albu.expand.generate` takes by name, for its types: its docstring says what each means."""

    dataset: str | None
    settings: Settings | None
    refiner: RefinerSettings | None
    teacher: ClassifierSettings | None
    engine: Literal["local", "ray"]
    workers: int | None
    gpus_per_worker: float | None
    address: str | None
    limit: int | None
    overwrite: bool
    progress: Progress | None


@dataclass(frozen=True)
class Asked:
    """A run's settings, looked into: files by names that mean the same from any folder, and what follows from them.

    Workers are given it too, so that it has no list of the images.

    Attributes:
        reader: Reads any image.
        class_names: Label index to name.
        dataset: The embedded data set, or None.
        limit: As many images were taken at most.
        settings: What the outputs follow from; its feather as :func:`edge_width` gives it.
        refiner: None to leave the mixed images as they are.
        teacher: Judges every output; None for nobody.
        noted: What every row of the manifest repeats.
        judged: What is noted of the teacher.
        strengths: To draw from; none where nothing is refined, or the teacher decides.
        prompts: Class name to prompt; none where nothing is refined.
    """

    reader: Reader
    class_names: tuple[str, ...]
    dataset: str | None
    limit: int | None
    settings: Settings
    refiner: RefinerSettings | None
    teacher: ClassifierSettings | None
    noted: dict[str, Any]
    judged: dict[str, Any]
    strengths: tuple[float, ...]
    prompts: dict[str, str]

    @classmethod
    def of(
        cls,
        source: Source,
        data: str | os.PathLike[str] | None,
        dataset: str | None,
        limit: int | None,
        settings: Settings,
        refiner: RefinerSettings | None,
        teacher: ClassifierSettings | None,
    ) -> Asked:
        """Look into everything.

        Raises:
            InvalidInputError: Invalid settings.
            DataError: Weights or a bank cannot be used.
            UnknownNameError: No such backend, preset, refiner or class.
        """
        refiner = wanted_refiner(refiner)
        if refiner is not None and refiner.adaptive and teacher is None:
            raise InvalidInputError("an adaptive strength needs a teacher")
        if refiner is not None and refiner.hole_strength is not None and settings.fill != "inpaint":
            raise InvalidInputError(
                f"hole_strength needs fill='inpaint', which paints holes; got fill={settings.fill!r}"
            )
        teacher = teacher and settled_files(teacher, *_FILES)
        if refiner is not None:
            files = ["base", "loras"] if refiner.name in list_refiners() else ["name", "base", "loras"]
            refiner = settled_files(refiner, *files)
        backend = from_anywhere(_prompted(settings.backend, dataset, refiner, teacher))
        get_mask(settings.mask)
        noted = open_saliency(backend, source.class_names).noted
        better = settings.reference
        _, judging = (None, {}) if better is None else open_reference(better, source.class_names)
        refining, strengths, prompts = _looked_into(refiner, teacher, source)
        return cls(
            # Absolute: the same folder however it was called, and for workers that start elsewhere.
            reader=open_reader(None if data is None else settled(data), dataset, size=settings.size),
            class_names=tuple(source.class_names),
            dataset=dataset,
            limit=limit,
            settings=replace(
                settings,
                saliency=backend,
                agreement_with=name_from_anywhere(settings.agreement_with),
                feather=edge_width(settings.fill, settings.feather),
            ),
            refiner=refiner,
            teacher=teacher,
            noted={
                "mask": settings.mask,
                "fill": settings.fill,
                "place": settings.place,
                "min_agreement": settings.min_agreement or None,  # None as in runs of versions that did not ask
                "agreement_with": settings.reference and shown(settings.reference),
                **noted,
                **judging,
                **refining,
            },
            judged={} if teacher is None else _judged(teacher, source.class_names),
            strengths=strengths,
            prompts=prompts,
        )

    @property
    def device(self) -> str | None:
        """Where refiner and teacher work; None for a GPU if there is one."""
        return None if self.refiner is None else self.refiner.device

    def everything(self) -> dict[str, Any]:
        """What the outputs follow from, as it is noted in the run's file."""
        return {
            # Not where the images are: a folder may be moved, and its path is nobody's business.
            "dataset": self.dataset,
            "limit": self.limit,
            **asdict(self.settings),
            **self.noted,
            "strengths": "adaptive" if self.refiner and self.refiner.adaptive else list(self.strengths),
            **{f"teacher_{name}": value for name, value in self.judged.items()},
            "chunk": self.settings.chunk,
        }


def _prompted(
    backend: SaliencySettings, dataset: str | None, refiner: RefinerSettings | None, teacher: ClassifierSettings | None
) -> SaliencySettings:
    """With what all classes are as the prompt of a backend that takes one: as the refiner says, or the data set."""
    if backend.options == prompted(backend.saliency, backend.options, "any"):
        return backend
    metaclass = metaclass_of(dataset) if refiner is None else open_refiner(refiner, teacher).spec.metaclass
    return replace(backend, options=prompted(backend.saliency, backend.options, metaclass))


def _judged(teacher: ClassifierSettings, classes: Sequence[str]) -> dict[str, Any]:
    """What is noted of a teacher: its settings, without the folders of its files, which are nobody's business."""
    named = {name: value and Path(value).name if name in _FILES else value for name, value in asdict(teacher).items()}
    return {**named, "sha256": open_teacher(teacher, classes).sha256}


def _looked_into(
    refiner: RefinerSettings | None, teacher: ClassifierSettings | None, source: Source
) -> tuple[dict[str, Any], tuple[float, ...], dict[str, str]]:
    """What is noted of a refiner, the strengths to draw from, and the prompts of the classes."""
    if refiner is None:
        return {}, (), {}
    from sgdmix_albu.refine.components import base_fingerprint, base_folder

    opened = open_refiner(refiner, teacher)
    opened.check()  # workers load it when the run has begun: a folder that is no base would leave a run of no use
    how = {name: value for name in _HOW if (value := getattr(refiner, name)) is not None}
    if refiner.loras:
        how["loras"] = [f"{Path(file).name} {sha256_of(Path(file))}" for file in refiner.loras]
    noted = {
        # A hub's name, or that of its folder.
        "base": Path(opened.base).name if Path(opened.base).expanduser().is_dir() else opened.base,
        "base_sha256": base_fingerprint(base_folder(opened.base, opened.revision)),
        "refiner": opened.spec.key,
        "refiner_sha256": opened.sha256,
        "preserve": refiner.preserve,
        "hole_strength": opened.hole_strength,
        **how,
    }
    drawn = () if refiner.adaptive else tuple(sorted(map(float, refiner.strengths or opened.spec.strengths)))
    most = max((*drawn, opened.hole_strength or 0), default=1)
    if not refiner.adaptive and int(opened.steps * most) == 0:
        raise InvalidInputError(
            f"steps must leave a step to refine: {opened.steps} of strength 1 are none at strength {most:g}; pass at "
            f"least {math.ceil(1 / most)}"
        )
    return noted, drawn, {name: opened.prompt_for(name) for name in {item.class_name for item in source.items}}
