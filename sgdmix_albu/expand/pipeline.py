"""``sgdmix generate``: a labelled image set in, a larger one out. Plan, execute, resume."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import torch

from sgdmix_albu.bank.descriptors import Descriptors, check_some_usable
from sgdmix_albu.bank.map_source import from_anywhere, name_from_anywhere, open_saliency, shown
from sgdmix_albu.bank.parts import BankBuilder, BankSettings, Described, DescriptorBank, parts_of
from sgdmix_albu.bank.reference import open_reference
from sgdmix_albu.datasets.source import Source, open_source
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.expand.execute.local import Engine, LocalEngine
from sgdmix_albu.expand.execute.worker import BANK, TRIES, Expander, Job, Report
from sgdmix_albu.expand.forecast import TRIAL, forecast
from sgdmix_albu.expand.plan.checks import check_choice, check_counts
from sgdmix_albu.expand.plan.outputs import plan_tasks
from sgdmix_albu.expand.plan.rows import Chunk, Task
from sgdmix_albu.expand.plan.settings import RefinerSettings, TeacherSettings
from sgdmix_albu.expand.store.listing import taken_up
from sgdmix_albu.expand.store.manifest import METADATA
from sgdmix_albu.expand.store.run import Run, stored_listing
from sgdmix_albu.expand.summary import Expansion, Forecast, Settings
from sgdmix_albu.io.clock import Clock
from sgdmix_albu.io.places import check_apart, settled
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.io.threads import default_jobs
from sgdmix_albu.mixing.blending import edge_width
from sgdmix_albu.mixing.masks import get_mask
from sgdmix_albu.refine.catalogue import metaclass_of
from sgdmix_albu.saliency.options import prompted
from sgdmix_albu.settings import SaliencySettings

__all__ = ["generate"]


def generate(
    data: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    settings: Settings | None = None,
    look: SaliencySettings | None = None,
    refiner: RefinerSettings | None = None,
    strengths: Sequence[float] | None = None,
    teacher: TeacherSettings | None = None,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    address: str | None = None,
    limit: int | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Expansion | Forecast:
    """Write ``settings.multiplier`` synthetic images for each image of a labelled set (SGD-Mix, stages 1 to 5).

    First a plan, in which everything random is decided; then its execution by any engine and any number of workers,
    with the same bytes (refined images on a CPU too; a GPU's batches follow its free memory). Interrupted at any
    moment, the same call does what is left. ``metadata.jsonl`` is written last and names what is there.

    Args:
        data: A class-per-folder image tree or its URL; None with ``dataset``.
        out: The folder to write, or its URL.
        dataset: Name of an embedded data set in the place of ``data``.
        settings: Saliency, masks, number, seed, format; None for the defaults.
        look: The classifier that saliency looks through, where the backend needs one.
        refiner: None leaves the mixed images as they are.
        strengths: To draw each image's translation strength from; None for the refiner's own.
        teacher: Says what it sees in every output; decides the strength where that is adaptive.
        engine: "local" for this machine, "ray" for a Ray cluster.
        workers: At once; None for one a core, or one for each GPU share.
        gpus_per_worker: With Ray: share of a GPU that each worker gets; None for 1 where there is a refiner and a GPU.
        address: Of a running Ray cluster; None starts one on this machine.
        limit: Take at most so many images, spread evenly over the set.
        overwrite: Begin anew in a folder that holds another run of ours.
        dry_run: Write nothing; make a few outputs elsewhere and say what to expect.
        progress: Where to report; None for stderr.

    Returns:
        What was done; or what is to be expected.

    Raises:
        InvalidInputError: A setting means nothing.
        DataError: The input, the weights or the output folder cannot be used; another process works on it; no room.
        UnknownNameError: No such backend, preset, refiner or class.
    """
    settings, progress = settings or Settings(), progress or Progress()
    check_counts(workers=workers, limit=limit)
    _check_engine(engine, address, gpus_per_worker)
    if refiner is not None and refiner.adaptive and teacher is None:
        raise InvalidInputError("an adaptive strength needs a teacher")
    if refiner is None and strengths is not None:
        raise InvalidInputError(f"strengths are a refiner's, and none is named, got {list(strengths)}")
    check_apart(out, data)
    source = open_source(data, dataset, size=settings.size)
    begun = None if overwrite or dry_run else stored_listing(Storage(out))
    gone: list[str] = []
    came: list[str] = []
    if begun is None:
        source = source.thinned(limit)
    else:
        source, gone, came = taken_up(source, begun, os.fspath(out))
    if METADATA in source.class_names:
        raise DataError(f"a class is called {METADATA}, which is the manifest's name; rename its folder")
    look = look or SaliencySettings(settings.saliency)
    work = _Work(data, dataset, source, settings, look, refiner, strengths, teacher)
    work.limit, work.gone, work.came = limit, gone, [] if limit else came
    hands = _engine(engine, work, progress, workers=workers, gpus=gpus_per_worker, address=address)
    try:
        if dry_run:
            few = work.only(source.thinned(TRIAL))
            trial = partial(few.run, engine=hands, overwrite=False, progress=Progress(quiet=True))
            shared = None if address is None else Storage(out)
            return forecast(source, few.source, settings.multiplier, hands, trial, shared)
        return work.run(Storage(out), hands, overwrite=overwrite, progress=progress)
    finally:
        hands.close()


@dataclass
class _Course:
    """Who works, who is told, and what was told: kept while a run goes on."""

    engine: Engine
    progress: Progress
    clock: Clock = field(default_factory=Clock)
    described: list[Described] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)


_FILES = ("model", "class_names")  # of a teacher


def _of_anywhere(teacher: TeacherSettings) -> TeacherSettings:
    """The same classifier from any folder: workers may start elsewhere."""
    files: dict[str, Any] = {name: getattr(teacher, name) for name in _FILES}
    settled_files: dict[str, Any] = {name: settled(file) for name, file in files.items() if file is not None}
    return dataclasses.replace(teacher, **settled_files)


def _prompted(
    look: SaliencySettings, dataset: str | None, refiner: RefinerSettings | None, teacher: TeacherSettings | None
) -> SaliencySettings:
    """With what all classes are as the prompt of a backend that takes one: as the refiner says, or the data set."""
    if look.options == prompted(look.saliency, look.options, "any"):
        return look
    metaclass = metaclass_of(dataset) if refiner is None else refiner.open(teacher).spec.metaclass
    return dataclasses.replace(look, options=prompted(look.saliency, look.options, metaclass))


def _without_folder(base: str) -> str:
    """A base's name: a hub's, or that of its folder."""
    return Path(base).name if Path(base).expanduser().is_dir() else base


def _named(teacher: TeacherSettings) -> dict[str, Any]:
    """A teacher's settings without the folders of its files, which are nobody's business."""
    files = {name: value and Path(value).name for name, value in vars(teacher).items() if name in _FILES}
    return {**dataclasses.asdict(teacher), **files}


class _Work:
    """A run's settings, all of them looked into before anything is done."""

    def __init__(
        self,
        data: str | os.PathLike[str] | None,
        dataset: str | None,
        source: Source,
        settings: Settings,
        look: SaliencySettings,
        refiner: RefinerSettings | None,
        strengths: Sequence[float] | None,
        teacher: TeacherSettings | None,
    ) -> None:
        # Absolute: the same folder however it was called, and for workers that start elsewhere.
        self.data = None if data is None else settled(data)
        self.dataset = dataset
        look = from_anywhere(_prompted(look, dataset, refiner, teacher))
        teacher = None if teacher is None else _of_anywhere(teacher)
        self.source, self.settings, self.look, self.refiner, self.teacher = source, settings, look, refiner, teacher
        get_mask(settings.mask)
        noted = open_saliency(look, source.class_names).noted
        _, judging = (None, {}) if settings.better is None else open_reference(settings.better, source.class_names)
        self.noted: dict[str, Any] = {
            "saliency": settings.saliency,
            "mask": settings.mask,
            "fill": settings.fill,
            "min_agreement": settings.min_agreement or None,  # None as in runs of versions that did not ask
            "agreement_with": settings.better and shown(settings.better),
            **noted,
            **judging,
        }
        self.limit: int | None = None
        self.gone: list[str] = []  # images of the run that is taken up which are not there any more
        self.came: list[str] = []  # and those that are there since
        self.prompts: dict[str, str] = {}
        self.strengths: tuple[float, ...] = ()
        self.judged: dict[str, Any] = {}
        if teacher is not None:
            sha256 = teacher.open(source.class_names).sha256
            self.judged = {**_named(teacher), "sha256": sha256}
        if refiner is not None:
            from sgdmix_albu.refine import list_refiners
            from sgdmix_albu.refine.components import base_fingerprint, base_folder, settled_base
            from sgdmix_albu.refine.preserve import check_mode
            from sgdmix_albu.refine.strength import check_strength

            check_mode(refiner.preserve)
            # Workers may start elsewhere, and the same command may be given again from another folder.
            refiner = self.refiner = dataclasses.replace(
                refiner,
                name=refiner.name if refiner.name in list_refiners() else settled_base(refiner.name),
                base=refiner.base and settled_base(refiner.base),
            )
            opened = refiner.open(teacher)
            base = base_folder(opened.base, opened.revision)
            self.noted |= {"base": _without_folder(opened.base), "base_sha256": base_fingerprint(base)}
            if not refiner.adaptive:
                self.strengths = tuple(sorted(strengths or opened.spec.strengths))
                check_strength(self.strengths)
            self.prompts = {name: opened.prompt_for(name) for name in {item.class_name for item in source.items}}
            self.noted |= {"refiner": opened.spec.key, "refiner_sha256": opened.sha256, "preserve": refiner.preserve}
            self.noted |= {"hole_strength": opened.hole_strength}

    def only(self, source: Source) -> _Work:
        """The same work on fewer images."""
        other = copy.copy(self)
        other.source = source
        return other

    def everything(self) -> dict[str, Any]:
        """What the outputs follow from, as it is noted in the run's file."""
        asked = dataclasses.asdict(self.settings)
        return {
            # Not where the images are: a folder may be moved, and its path is nobody's business.
            "dataset": self.dataset,
            "limit": self.limit,
            **asked,
            "feather": edge_width(self.settings.fill, self.settings.feather),
            **self.noted,
            "strengths": "adaptive" if self.refiner and self.refiner.adaptive else list(self.strengths),
            **{f"teacher_{name}": value for name, value in self.judged.items()},
            "chunk": self.settings.chunk,
        }

    def run(self, out: Storage, engine: Engine, *, overwrite: bool, progress: Progress) -> Expansion:
        """Do what is left of it."""
        course = _Course(engine, progress)
        run = Run(out, self.everything(), self.source.class_names, self.source.items, self.gone)
        with run.locked():
            run.begin(overwrite=overwrite)
            if run.finished():
                return self._told(run, course)
            if run.planned is None:
                self._describe(out, course)
                with course.clock("plan"):
                    self._plan(run)
            chunks = run.chunks(self.settings.chunk)
            left = run.left(chunks)
            self._describe(out, course, (place for task in run.tasks(left) for place in task.places))
            self._expand(out, left, course)
            with course.clock("manifest"):
                run.finish(chunks)
            return self._told(run, course)

    def _describe(self, out: Storage, course: _Course, holding: Iterable[int] | None = None) -> None:
        """Those of the bank's parts that are not there: of all images, or of those in some places of the listing.

        A run that is taken up after it was finished, since an image is gone, has no bank any more.
        """
        bank, local = DescriptorBank(out.below(BANK)), isinstance(course.engine, LocalEngine)
        missing = bank.missing(parts_of(self.source.items))
        if missing and holding is not None:
            missing = bank.missing(parts_of(self.source.items, holding))
        if not missing:
            return
        settings = BankSettings(
            bank.storage,
            self.data,
            self.dataset,
            self.settings.size,
            self.look,
            self.settings.mask,
            tuple(self.source.class_names),
            self.settings.better and name_from_anywhere(self.settings.better),
            jobs=default_jobs() if local else 1,
            tries=_tries(out, course.engine),
        )
        # Threads would share the model that saliency looks through; each reads with several threads instead.
        hands = LocalEngine(1, progress=course.progress) if local else course.engine
        total = sum(len(part.images) for part in missing)
        # Closed before the lock is: nobody works on when this process stops reading.
        with (
            course.clock("saliency and masks"),
            closing(hands.run(partial(BankBuilder, settings), missing)) as results,
        ):
            for described in course.progress.over(results, "saliency and masks", total, images=attrgetter("images")):
                course.described.append(described)

    def _expand(self, out: Storage, left: list[Chunk], course: _Course) -> None:
        total = sum(chunk.rows for chunk in left)
        with (
            course.clock("mixing and refining" if self.refiner else "mixing"),
            closing(course.engine.run(partial(Expander, self._job(out, course.engine)), left)) as results,
        ):
            for report in course.progress.over(results, "expanding", total, images=_images_of):
                course.reports.append(report)

    def _plan(self, run: Run) -> None:
        parts, bank = parts_of(self.source.items), DescriptorBank(run.out.below(BANK))
        unusable = bank.skipped(parts)
        check_some_usable(len(self.source.items) - len(unusable), len(self.source.items), unusable)
        known, places = bank.load(self.source.items, parts)
        left_out: Counter[str] = Counter()

        def digest_of(place: int) -> str | None:
            return bank.sha256(place).hex() if bank.describes(place) else None

        run.plan(self.tasks(known, places, left_out), left_out, [*self.source.skipped, *unusable], digest_of)

    def tasks(self, known: Descriptors, places: Sequence[int], left_out: Counter[str]) -> Iterator[Task]:
        """The plan of a described set."""
        return plan_tasks(known, places, self.settings, left_out, strengths=self.strengths, prompts=self.prompts)

    def _job(self, out: Storage, engine: Engine) -> Job:
        return Job(
            out=out,
            data=self.data,
            dataset=self.dataset,
            size=self.settings.size,
            class_names=tuple(self.source.class_names),
            image_format=self.settings.image_format,
            shards=self.settings.shards,
            fill=self.settings.fill,
            feather=edge_width(self.settings.fill, self.settings.feather),
            refiner=self.refiner,
            teacher=self.teacher,
            noted=self.noted,
            tries=_tries(out, engine),
        )

    def _told(self, run: Run, course: _Course) -> Expansion:
        stages: Counter[str] = Counter()
        for report in course.reports:
            stages.update(report.seconds)
        planned, made = run.planned or {"rows": 0, "left_out": {}}, run.made or {"rows": 0}
        return Expansion(
            out=run.out.root,
            sources=len(self.source.items),
            planned=planned["rows"],
            written=sum(report.written for report in course.reports),
            lost=planned["rows"] - made["rows"],
            left_out=Counter(planned["left_out"]),
            skipped=run.quarantined(),
            came=self.came,
            ignored=self.source.ignored,
            seconds=course.clock.seconds,
            described=sum(part.images for part in course.described),
            describing=sum(part.seconds for part in course.described),
            stages=dict(stages),
            size=sum(report.size for report in course.reports),
        )


def _tries(out: Storage, engine: Engine) -> Storage | None:
    return None if isinstance(engine, LocalEngine) else out.below(TRIES)


def _images_of(report: Report) -> int:
    return report.written + report.lost


def _engine(
    kind: str, work: _Work, progress: Progress, *, workers: int | None, gpus: float | None, address: str | None
) -> Engine:
    refines = work.refiner is not None and work.refiner.device != "cpu"
    if kind == "ray":
        from sgdmix_albu.expand.execute.ray import RayEngine

        # None: a GPU each, where the cluster has any; this machine need not have one.
        return RayEngine(workers, gpus=gpus if refines or gpus is not None else 0, address=address, progress=progress)
    if refines and torch.cuda.is_available():
        return LocalEngine(workers or 3, progress=progress)  # they share the model: one refines, others mix and write
    return LocalEngine(workers or default_jobs(), "threads" if work.refiner is None else "processes", progress)


def _check_engine(kind: str, address: str | None, gpus: float | None) -> None:
    check_choice("engine", kind, ("local", "ray"))
    if kind == "local" and (address is not None or gpus is not None):
        raise InvalidInputError("address and gpus_per_worker go with engine='ray'")
    if gpus is not None and not gpus >= 0:
        raise InvalidInputError(f"gpus_per_worker must be 0 or more, got {gpus!r}")
