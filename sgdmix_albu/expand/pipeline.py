"""``sgdmix generate``: a labelled image set in, a larger one out. Describe, plan, expand; and resume."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from functools import partial
from operator import attrgetter
from typing import Any, Literal, TypeAlias, TypeVar, Unpack, overload

from sgdmix_albu.arguments import check_counts, said
from sgdmix_albu.bank.builder import BankBuilder, Described, Describer, Gathering
from sgdmix_albu.bank.descriptors import DescriptorBank, check_some_usable
from sgdmix_albu.bank.parts import located, parts_of
from sgdmix_albu.datasets.source import Source, open_source
from sgdmix_albu.devices import release_memory, working_device
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.expand.asked import Asked, Wishes
from sgdmix_albu.expand.execute.choice import check_engine, check_script, describing_engine, expanding_engine
from sgdmix_albu.expand.execute.local import Engine, LocalEngine
from sgdmix_albu.expand.execute.worker import Expander, Report
from sgdmix_albu.expand.forecast import TRIAL, forecast
from sgdmix_albu.expand.names import ATTEMPTS, BANK, METADATA, RUN
from sgdmix_albu.expand.plan.rows import Chunk
from sgdmix_albu.expand.plan.targets import plan_rows
from sgdmix_albu.expand.store.listing import taken_up
from sgdmix_albu.expand.store.run import Run
from sgdmix_albu.expand.store.run_file import stored_listing
from sgdmix_albu.expand.summary import Expansion, Forecast
from sgdmix_albu.io.clock import Clock
from sgdmix_albu.io.outputs import check_output
from sgdmix_albu.io.places import check_apart
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.settings import ClassifierSettings, RefinerSettings, Settings

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")
Folder: TypeAlias = str | os.PathLike[str]

_TRIED = 32  # images, spread over the set, of which one at least must have a mask before an earlier run is removed


@overload
def generate(
    data: Folder | None, out: Folder, *, dry_run: Literal[False] = False, **wishes: Unpack[Wishes]
) -> Expansion: ...
@overload
def generate(data: Folder | None, out: Folder, *, dry_run: Literal[True], **wishes: Unpack[Wishes]) -> Forecast: ...
@overload
def generate(data: Folder | None, out: Folder, *, dry_run: bool, **wishes: Unpack[Wishes]) -> Expansion | Forecast: ...
def generate(
    data: Folder | None,
    out: Folder,
    *,
    dataset: str | None = None,
    settings: Settings | None = None,
    refiner: RefinerSettings | None = None,
    teacher: ClassifierSettings | None = None,
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

    A plan decides everything random; then any engine and any number of workers execute it. The bytes are the same
    on the same kind of device: a network's maps and refined images differ in their last bits between a CPU and a GPU,
    and a GPU's refined images also with its free memory. Locally, networks run on a GPU if there is one; with Ray on
    CPUs, unless there is a refiner or ``gpus_per_worker``. If interrupted, make the same call to resume.
    ``metadata.jsonl`` is written last and lists the images.

    Args:
        data: A class-per-folder image tree or its URL; None with ``dataset``.
        out: The folder to write, or its URL.
        dataset: Name of an embedded data set, instead of ``data``.
        settings: Saliency, masks, number, seed, format; None for the defaults.
        refiner: None, or the name "none", only mixes.
        teacher: A classifier that judges every output; it decides adaptive strengths.
        engine: "local" for this machine, "ray" for a Ray cluster.
        workers: Number of workers; None for one per core, or one per GPU share.
        gpus_per_worker: With Ray: share of a GPU for each worker; None for 1 if there is a refiner and a GPU.
        address: Address of a running Ray cluster; None starts one on this machine.
        limit: Use at most so many images, spread evenly over the set.
        overwrite: Start over in a folder that holds another run.
        dry_run: Write nothing; make a few outputs elsewhere and estimate time and size.
        progress: Where to report progress; None for a bar on a terminal, and the log elsewhere.

    Returns:
        What was done; with ``dry_run``, what to expect.

    Raises:
        InvalidInputError: Invalid settings; or worker processes would be started by a script that does not guard
            its work by ``if __name__ == "__main__":``.
        DataError: The input, the weights or the output folder cannot be used; another process works on it; no room.
        UnknownNameError: No such backend, preset, refiner or class.
    """
    _check_kinds(settings, refiner, teacher)
    settings, progress = settings or Settings(), progress or Progress()
    check_counts(workers=workers, limit=limit)
    check_engine(engine, address, gpus_per_worker, refiner)
    check_apart(out, data)
    check_output(out)
    source = open_source(data, dataset, size=settings.size)
    begun = None if overwrite or dry_run else stored_listing(Storage(out))
    gone: list[str] = []  # images of the run that is taken up which are not there any more
    came: list[str] = []  # and those that are there since
    if begun is None:
        source = source.thinned(limit)
    else:
        source, gone, came = taken_up(source, begun, os.fspath(out))
    if METADATA in source.class_names:
        raise DataError(f"a class is called {METADATA}, which is the manifest's name; rename its folder")
    asked = Asked.of(source, data, dataset, limit, settings, refiner, teacher)
    chosen = expanding_engine(engine, asked, progress, workers=workers, share=gpus_per_worker, address=address)
    check_script(chosen, asked, workers)
    try:
        if dry_run:
            few = source.thinned(TRIAL)
            shared = None if address is None else Storage(out)
            return forecast(
                source,
                few,
                settings.multiplier,
                chosen,
                lambda place: _Expansion(asked, few, place, chosen, Progress(quiet=True), workers).run(),
                shared,
            )
        work = _Expansion(asked, source, Storage(out), chosen, progress, workers, gone, [] if limit else came)
        return work.run(overwrite=overwrite)
    finally:
        chosen.close()


def _check_kinds(settings: Any, refiner: Any, teacher: Any) -> None:
    kinds = {"settings": Settings, "refiner": RefinerSettings, "teacher": ClassifierSettings}
    for (name, kind), value in zip(kinds.items(), (settings, refiner, teacher), strict=True):
        if not isinstance(value, kind | None):
            raise InvalidInputError(f"expected {name}={kind.__name__}(...) or None, got {said(value)}")


class _Expansion:
    """One run in one folder: what it works with, and what was told of it."""

    def __init__(
        self,
        asked: Asked,
        source: Source,
        out: Storage,
        engine: Engine,
        progress: Progress,
        workers: int | None,
        gone: Iterable[str] = (),
        came: Iterable[str] = (),
    ) -> None:
        self.asked, self.source, self.out, self.engine, self.progress = asked, source, out, engine, progress
        self.workers = workers
        self.came = list(came)
        self.store = Run(out, asked.everything(), source.class_names, source.items, tuple(gone))
        self.bank, self.parts = DescriptorBank(out.below(BANK)), parts_of(source.items)
        # Where workers write down what they begin, if the engine repeats what a lost one had.
        self.attempts = None if isinstance(engine, LocalEngine) else out.below(ATTEMPTS)
        self.clock = Clock()
        self.described: list[Described] = []
        self.describers = 1
        self.reports: list[Report] = []

    def run(self, *, overwrite: bool = False) -> Expansion:
        """Do what is left of it."""
        with self.store.locked():
            if overwrite and self.out.has(RUN):
                self._try_some()
            self.store.begin(overwrite=overwrite)
            if self.store.finished():
                return self._told()
            if self.store.planned is None:
                self._describe()
                with self.clock("plan"):
                    self._plan()
            chunks = self.store.chunks(self.asked.settings.chunk)
            left = self.store.left(chunks)
            self._describe(place for row in self.store.rows(left) for place, _ in row.images)
            self._expand(left)
            with self.clock("manifest"):
                self.store.finish(chunks)
            return self._told()

    def _try_some(self) -> None:
        """An earlier run is not removed for one that can make nothing: some of its images are described first."""
        some = self.source.thinned(_TRIED)
        with tempfile.TemporaryDirectory(prefix="sgdmix-") as folder:
            bank, parts = DescriptorBank(Storage(folder)), parts_of(some.items)
            asked = self.asked
            builder = BankBuilder(bank.storage, asked.reader, some.class_names, asked.settings, asked.device, None)
            for part in parts:
                builder(part)
            unusable = bank.skipped(parts)
        check_some_usable(len(some.items) - len(unusable), len(some.items), unusable)

    def _describe(self, holding: Iterable[int] | None = None) -> None:
        """Those of the bank's parts that are not there: of all images, or of those in some places of the listing.

        A run that is taken up after it was finished, since an image is gone, has no bank any more.
        """
        missing = self.bank.missing(self.parts)
        if missing and holding is not None:
            needed = {located(place)[0] for place in holding}
            missing = [part for part in missing if part.number in needed]
        if not missing:
            return
        asked, bank, step = self.asked, self.bank.storage, "saliency and masks"
        how = asked.reader, asked.class_names, asked.settings, asked.device
        engine = describing_engine(self.engine, asked.settings, self.progress, self.workers, asked.device)
        if not isinstance(engine, LocalEngine):  # nothing of the images goes through this process
            total = sum(len(part.images) for part in missing)
            make = partial(BankBuilder, bank, *how, self.attempts)
            self.described += self._work(engine, make, missing, total, step, step, _as_it_is)
            self.describers = engine.concurrency()  # a cluster's is known when it has worked
            return
        gathering = Gathering(bank, missing)
        describe, stretches = partial(Describer, *how, engine.sharing), gathering.stretches()
        total = sum(len(one.images) for one in stretches)
        self.describers = engine.concurrency()
        try:
            self.described += self._work(engine, describe, stretches, total, step, step, gathering.add)
        except BaseException:  # Ctrl-C too: parts that were begun may have taken long
            with suppress(DataError):  # it is on its way already
                gathering.keep()
            raise
        # Of networks that are not needed any more: refiner and teacher have a use for it.
        release_memory(working_device(asked.device))

    def _plan(self) -> None:
        source, left_out = self.source, Counter[str]()
        unusable = self.bank.skipped(self.parts)
        check_some_usable(len(source.items) - len(unusable), len(source.items), unusable)
        known, places = self.bank.load(source.items, self.parts)
        rows = plan_rows(
            known, places, self.asked.settings, left_out, strengths=self.asked.strengths, prompts=self.asked.prompts
        )

        def digest_of(place: int) -> str | None:
            known = self.bank.known(place)
            return known and known.sha256.hex()

        self.store.plan(rows, left_out, [*source.skipped, *unusable], digest_of)

    def _expand(self, left: list[Chunk]) -> None:
        sharing = self.engine.sharing if isinstance(self.engine, LocalEngine) else 1
        make, total = partial(Expander, self.asked, self.out, self.attempts, sharing), sum(one.rows for one in left)
        step = "mixing and refining" if self.asked.refiner else "mixing"
        self.reports += self._work(self.engine, make, left, total, step, "expanding", _as_it_is)

    def _work(
        self,
        engine: Engine,
        make: Callable[[], Callable[[T], R]],
        items: list[T],
        total: int,
        step: str,
        label: str,
        take: Callable[[R], S],
    ) -> list[S]:
        """What is taken of what workers say of the items, of so many images in all."""
        # Closed before the lock is: nobody works on when this process stops reading.
        with self.clock(step), closing(engine.run(make, items)) as results:
            return [take(one) for one in self.progress.over(results, label, total, count=attrgetter("images"))]

    def _told(self) -> Expansion:
        stages: Counter[str] = Counter()
        for report in self.reports:
            stages.update(report.seconds)
        planned, made = self.store.planned or {"rows": 0, "left_out": {}}, self.store.made or {"rows": 0}
        return Expansion(
            out=self.out.root,
            sources=len(self.source.items),
            classes=tuple(dict.fromkeys(item.class_name for item in self.source.items)),
            planned=planned["rows"],
            written=sum(report.written for report in self.reports),
            lost=planned["rows"] - made["rows"],
            left_out=Counter(planned["left_out"]),
            unmixed=Counter(made.get("unmixed")),
            keeps_unmixed=self.asked.settings.keep_unmixed,
            skipped=self.store.quarantined(),
            came=self.came,
            ignored=self.source.ignored,
            seconds=self.clock.seconds,
            described=sum(part.images for part in self.described),
            describing=sum(part.seconds for part in self.described),
            describers=self.describers,
            stages=dict(stages),
            size=sum(report.size for report in self.reports),
        )


def _as_it_is(report: T) -> T:
    return report
