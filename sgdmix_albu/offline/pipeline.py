"""``sgdmix generate``: a labelled image set in, a larger one out. Plan, execute, resume."""

from __future__ import annotations

import copy
import dataclasses
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.masks import get_mask
from sgdmix_albu.offline.bank import BankBuilder, BankSettings, DescriptorBank, parts_of
from sgdmix_albu.offline.checks import check_choice, check_counts
from sgdmix_albu.offline.descriptors import Descriptors, check_some_usable
from sgdmix_albu.offline.engines import Engine, LocalEngine
from sgdmix_albu.offline.expander import BANK, Expander, Job, RefinerSettings, Report, TeacherSettings
from sgdmix_albu.offline.expansion import Expansion, Forecast, Settings
from sgdmix_albu.offline.files import check_apart
from sgdmix_albu.offline.look import LookSettings, open_look
from sgdmix_albu.offline.parallel import default_jobs
from sgdmix_albu.offline.plan import plan_rows, uniform
from sgdmix_albu.offline.progress import Progress
from sgdmix_albu.offline.run import Run
from sgdmix_albu.offline.source import Skipped, Source, open_source
from sgdmix_albu.offline.storage import Storage, is_url
from sgdmix_albu.offline.tasks import Task

__all__ = ["generate", "plan_tasks"]

_TRIAL = 16  # images that a dry run takes, to see how long they need
_STREAM = 2**32  # of the counter-based generator; the plan's targets have those below


def generate(
    data: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    settings: Settings | None = None,
    look: LookSettings | None = None,
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
    if data is not None and not is_url(data) and not is_url(out):
        check_apart(Path(out), Path(data))
    source = open_source(data, dataset, size=settings.size).thinned(limit)
    work = _Work(data, dataset, source, settings, look or LookSettings(settings.saliency), refiner, strengths, teacher)
    hands = _engine(engine, work, workers=workers, gpus=gpus_per_worker, address=address)
    try:
        if dry_run:
            return _forecast(work, hands, limit)
        return work.run(Storage(out), hands, overwrite=overwrite, progress=progress)
    finally:
        hands.close()


class _Work:
    """A run's settings, all of them looked into before anything is done."""

    def __init__(
        self,
        data: str | os.PathLike[str] | None,
        dataset: str | None,
        source: Source,
        settings: Settings,
        look: LookSettings,
        refiner: RefinerSettings | None,
        strengths: Sequence[float] | None,
        teacher: TeacherSettings | None,
    ) -> None:
        self.data, self.dataset = None if data is None else os.fspath(data), dataset
        self.source, self.settings, self.look, self.refiner, self.teacher = source, settings, look, refiner, teacher
        get_mask(settings.mask)
        _, noted = open_look(look, source.class_names)
        self.noted: dict[str, Any] = {"saliency": settings.saliency, "mask": settings.mask, **noted}
        self.prompts: dict[str, str] = {}
        self.strengths: tuple[float, ...] = ()
        if teacher is not None:
            teacher.open(source.class_names)
        if refiner is not None:
            from sgdmix_albu.refine.preserve import check_mode
            from sgdmix_albu.refine.strength import check_strength

            check_mode(refiner.preserve)
            opened = refiner.open(teacher)
            self.strengths = tuple(sorted(strengths or opened.spec.strengths))
            check_strength(self.strengths)
            self.prompts = {name: opened.prompt_for(name) for name in {item.class_name for item in source.items}}
            self.noted |= {"refiner": opened.spec.key, "refiner_sha256": opened.sha256, "preserve": refiner.preserve}

    def only(self, source: Source) -> _Work:
        """The same work on fewer images."""
        other = copy.copy(self)
        other.source = source
        return other

    def everything(self) -> dict[str, Any]:
        """What the outputs follow from, as it is noted in the run's file."""
        asked = dataclasses.asdict(self.settings)
        return {
            "data": self.data or f"{self.dataset} (embedded)",
            **asked,
            **self.noted,
            "base": self.refiner and self.refiner.base,
            "strengths": "adaptive" if self.refiner and self.refiner.adaptive else list(self.strengths),
            "teacher": self.teacher and self.teacher.model,
            "chunk": self.settings.chunk,
        }

    def run(self, out: Storage, engine: Engine, *, overwrite: bool, progress: Progress) -> Expansion:
        """Do what is left of it."""
        run = Run(out, self.everything(), self.source.items)
        clock = _Clock()
        reports: list[Report] = []
        with run.locked():
            run.begin(overwrite=overwrite)
            if run.finished():
                return self._told(run, clock, reports, [], 0)
            unusable = self._describe(run, engine, clock, progress)
            chunks = run.chunks(self.settings.chunk)
            left = run.left(chunks)
            job = self._job(out)
            results = engine.run(partial(Expander, job), left)
            total = sum(chunk.rows for chunk in left)
            with clock("mixing and refining" if self.refiner else "mixing"):
                for report in progress.over(results, "expanding", total, images=_images_of):
                    reports.append(report)
            with clock("manifest"):
                skipped = run.finish(chunks, unusable)
            return self._told(run, clock, reports, skipped, len(skipped) - len(unusable))

    def _describe(self, run: Run, engine: Engine, clock: _Clock, progress: Progress) -> list[Skipped]:
        """Bank and plan, as far as they are not there."""
        parts, bank = parts_of(self.source.items), DescriptorBank(run.out.below(BANK))
        bank_settings = BankSettings(
            bank.storage,
            self.data,
            self.dataset,
            self.settings.size,
            self.look,
            self.settings.mask,
            tuple(self.source.class_names),
            jobs=default_jobs() if isinstance(engine, LocalEngine) else 1,
        )
        # Threads would share the model that saliency looks through; each reads with several threads instead.
        hands = LocalEngine(1) if isinstance(engine, LocalEngine) else engine
        missing = bank.missing(parts)
        with clock("saliency and masks"):
            done = hands.run(partial(BankBuilder, bank_settings), missing)
            total = sum(len(part.images) for part in missing)
            for _ in progress.over(done, "saliency and masks", total, images=int):
                pass
        unusable = bank.skipped(parts)
        check_some_usable(len(self.source.items) - len(unusable), len(self.source.items), unusable)
        if run.planned is None:
            with clock("plan"):
                known, places = bank.load(self.source.items, parts)
                left_out: Counter[str] = Counter()
                run.plan(self.tasks(known, places, left_out), left_out)
        return [*self.source.skipped, *unusable]

    def tasks(self, known: Descriptors, places: Sequence[int], left_out: Counter[str]) -> Iterator[Task]:
        """The plan of a described set."""
        return plan_tasks(known, places, self.settings, left_out, strengths=self.strengths, prompts=self.prompts)

    def _job(self, out: Storage) -> Job:
        return Job(
            out=out,
            data=self.data,
            dataset=self.dataset,
            size=self.settings.size,
            class_names=tuple(self.source.class_names),
            image_format=self.settings.image_format,
            shards=self.settings.shards,
            feather=self.settings.feather,
            refiner=self.refiner,
            teacher=self.teacher,
            noted=self.noted,
        )

    def _told(self, run: Run, clock: _Clock, reports: Sequence[Report], skipped: list[Skipped], lost: int) -> Expansion:
        stages: Counter[str] = Counter()
        for report in reports:
            stages.update(report.seconds)
        planned = run.planned or {"rows": 0, "left_out": {}}
        return Expansion(
            out=run.out.root,
            sources=len(self.source.items),
            planned=planned["rows"],
            written=sum(report.written for report in reports),
            lost=lost,
            left_out=Counter(planned["left_out"]),
            skipped=skipped,
            ignored=self.source.ignored,
            seconds=clock.seconds,
            stages=dict(stages),
            size=sum(report.size for report in reports),
        )


def plan_tasks(
    known: Descriptors,
    places: Sequence[int],
    settings: Settings,
    left_out: Counter[str],
    *,
    strengths: Sequence[float] = (),
    prompts: dict[str, str] | None = None,
) -> Iterator[Task]:
    """Every output of a set, in the set's order; all that is random in them is drawn here.

    Args:
        known: The images that can be used.
        places: Their places in the listing.
        settings: Number, seed and so on.
        left_out: Counts, by reason, the outputs that would be nothing but copies of their source.
        strengths: To draw from; none where nothing is refined.
        prompts: Class name to prompt; None where nothing is refined.
    """
    rows = plan_rows(
        known,
        suffix=f".{settings.image_format}",
        candidates=settings.candidates,
        target_class=settings.target_class,
        max_coverage=settings.max_coverage,
        repeats=settings.multiplier,
        seed=settings.seed,
    )
    everyone = np.arange(len(known))
    draws = [uniform(settings.seed, _STREAM + repeat, everyone, 2) for repeat in range(settings.multiplier)]
    for row in rows:
        if row.target is None or row.distance is None:
            left_out[str(row.unmixed)] += 1
            continue
        chance, which = draws[row.repeat][row.source].tolist()
        source, target = known.items[row.source], known.items[row.target]
        yield Task(
            name=row.name,
            label=source.class_name,
            label_index=source.label,
            source=source.key,
            target=target.key,
            target_label=target.class_name,
            source_place=places[row.source],
            target_place=places[row.target],
            distance=row.distance,
            seed=int(chance * 2**53),
            strength=strengths[int(which * len(strengths))] if strengths else None,
            prompt=prompts[source.class_name] if prompts else None,
        )


def _forecast(work: _Work, engine: Engine, limit: int | None) -> Forecast:
    """Run a few images of the set somewhere else, and multiply."""
    source = work.source
    few = source.thinned(min(_TRIAL, limit or _TRIAL))
    outputs = len(source.items) * work.settings.multiplier
    trial = work.only(few)
    with tempfile.TemporaryDirectory(prefix="sgdmix-") as folder:
        done = trial.run(Storage(Path(folder) / "out"), engine, overwrite=False, progress=Progress(quiet=True))
    scale = {"saliency and masks": len(source.items) / len(few.items), "plan": len(source.items) / len(few.items)}
    each = outputs / max(done.written, 1)
    return Forecast(
        sources=len(source.items),
        classes=len({item.class_name for item in source.items}),
        outputs=outputs,
        seconds={name: seconds * scale.get(name, each) for name, seconds in done.seconds.items()},
        size=done.size * each,
        tried=done.written,
    )


class _Clock:
    """Seconds of named steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name = ""

    def __call__(self, name: str) -> _Clock:
        self._name = name
        return self

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self._name] = time.perf_counter() - self._began


def _images_of(report: Report) -> int:
    return report.written + len(report.skipped)


def _engine(kind: str, work: _Work, *, workers: int | None, gpus: float | None, address: str | None) -> Engine:
    on_gpu = work.refiner is not None and torch.cuda.is_available() and work.refiner.device != "cpu"
    if kind == "ray":
        from sgdmix_albu.offline.ray import RayEngine

        return RayEngine(workers, gpus=(1.0 if on_gpu else 0.0) if gpus is None else gpus, address=address)
    if on_gpu:
        return LocalEngine(workers or 3)  # they share the model: one refines while others mix and write
    return LocalEngine(workers or default_jobs(), "threads" if work.refiner is None else "processes")


def _check_engine(kind: str, address: str | None, gpus: float | None) -> None:
    check_choice("engine", kind, ("local", "ray"))
    if kind == "local" and (address is not None or gpus is not None):
        raise InvalidInputError("address and gpus_per_worker go with engine='ray'")
    if gpus is not None and not gpus >= 0:
        raise InvalidInputError(f"gpus_per_worker must be 0 or more, got {gpus!r}")
