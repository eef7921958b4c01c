"""The work on rows of a plan: mix, refine, ask the teacher, write. Nothing random happens here.

What is done together is fixed by the plan, since rounding may depend on the batch: a chunk is the smallest thing
that is repeated, and its images have the same bits whoever works on it, whenever.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from sgdmix_albu import __version__
from sgdmix_albu.bank.parts import DescriptorBank
from sgdmix_albu.classifiers import Judge
from sgdmix_albu.datasets.pixels import load_again
from sgdmix_albu.datasets.source import Item, open_reader
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.expand.execute.pair import encoded, mix_pair
from sgdmix_albu.expand.plan.rows import Chunk, Task, batched, read_tasks
from sgdmix_albu.expand.plan.settings import RefinerSettings, TeacherSettings
from sgdmix_albu.expand.store.notes import note_bytes, read_note
from sgdmix_albu.expand.store.shards import shard_bytes, shard_name
from sgdmix_albu.io.attempts import begin_try
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.types import Fill

if TYPE_CHECKING:
    from sgdmix_albu.refine.refiner import Refiner

__all__ = ["BANK", "DONE", "PLAN", "TRIES", "Expander", "Job", "Report", "done_name"]

# Where a run keeps what it needs, below the output folder; all hidden, so that other readers pass over it.
PLAN, BANK, DONE, TRIES = ".sgdmix-plan.jsonl", ".sgdmix/bank", ".sgdmix/done", ".sgdmix/tries"
_TOGETHER = 32  # outputs that are mixed, refined and encoded together, and held as pixels


@dataclass(frozen=True)
class Job:
    """Everything that a worker needs to know besides the rows.

    Attributes:
        out: The output folder.
        data: The image tree, or None.
        dataset: The embedded data set, or None.
        size: Bring every image to size x size; None keeps each as it is.
        class_names: Label index to name.
        image_format: "png" or "jpg".
        shards: Write tar shards, one a chunk, instead of files.
        fill: What stands where the target's object was.
        feather: Width in pixels of the fade outside the mask; None for a soft border.
        refiner: None to leave the mixed images as they are.
        teacher: Judges every output; None for nobody.
        noted: Settings to repeat in every row of the manifest.
        tries: Where to note what is begun, if the engine repeats what a lost worker had.
    """

    out: Storage
    data: str | None
    dataset: str | None
    size: int | None
    class_names: tuple[str, ...]
    image_format: str
    shards: bool
    fill: Fill
    feather: float | None
    refiner: RefinerSettings | None
    teacher: TeacherSettings | None
    noted: dict[str, Any]
    tries: Storage | None


@dataclass(frozen=True)
class Report:
    """What became of a chunk: outputs made and lost, seconds of each stage, bytes of the images."""

    written: int
    lost: int
    seconds: dict[str, float]
    size: int


@dataclass
class _Output:
    """An output on its way."""

    task: Task
    pixels: Tensor
    kept: Tensor
    hole: Tensor
    shares: tuple[float, float]
    agreements: tuple[float | None, float | None]
    files: tuple[bytes, bytes]
    facts: dict[str, Any] = field(default_factory=dict)


class _Made(NamedTuple):
    """An output, encoded, and its row of the manifest."""

    row: dict[str, Any]
    content: bytes


class _Lost(NamedTuple):
    """An output that cannot be made, and which image is to blame."""

    task: Task
    key: str
    reason: str


class Expander:
    """Does chunks; made once for each process, shared by its threads."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._reader = open_reader(job.data, job.dataset, size=job.size)
        self._bank = DescriptorBank(job.out.below(BANK))
        self._teacher = None if job.teacher is None else job.teacher.open(job.class_names)
        self._refiner = None if job.refiner is None else job.refiner.open(job.teacher)
        self._lock = threading.Lock()  # one model, one image at a time; mixing and writing go on beside it
        self._versions = _versions(self._refiner is not None)

    def __call__(self, chunk: Chunk) -> Report:
        """Make a chunk's files, then the note that they are there."""
        done = self._done(chunk)
        if done is not None:
            return done
        if self.job.tries is not None:
            begin_try(self.job.tries, f"chunk {chunk.number}")
        clock: Counter[str] = Counter()
        made: list[_Made] = []
        lost: list[_Lost] = []
        for tasks in batched(read_tasks(self.job.out.read(PLAN, chunk.start, chunk.end)), _TOGETHER):
            with _timed(clock, "mix"):
                outputs = list(self._mixed(tasks, lost))
            with self._lock:
                if self._refiner is not None and self.job.refiner is not None:
                    with _timed(clock, "refine"):
                        for part in _alike(outputs):
                            lost += self._refine(self._refiner, self.job.refiner, part)
                    outputs = _without(outputs, lost)
                if self._teacher is not None:
                    with _timed(clock, "judge"):
                        for part in _alike(outputs):
                            self._judge(self._teacher, part)
            with _timed(clock, "encode"):
                made += self._encoded(outputs, lost)
        with _timed(clock, "write"):
            self._write(chunk, made, lost)
        return Report(len(made), len(lost), dict(clock), sum(len(one.content) for one in made))

    def _done(self, chunk: Chunk) -> Report | None:
        """What another worker did, who was lost before he could tell: an engine repeats more than is missing."""
        name = done_name(chunk.number)
        rows = read_note(self.job.out.read(name)) if self.job.out.has(name) else None
        if rows is None:
            return None
        made = [row for row in rows if "skipped" not in row]
        return Report(len(made), len(rows) - len(made), {}, sum(row["bytes"] for row in made))

    def _mixed(self, tasks: Sequence[Task], lost: list[_Lost]) -> Iterator[_Output]:
        for task in tasks:
            # Outside: an image may go bad, which costs its outputs; a bank that does is an error.
            keys = dict(zip(task.places, (task.source, task.target), strict=True))
            unknown = [key for place, key in keys.items() if not self._bank.describes(place)]
            if unknown:
                place = task.places[(task.source, task.target).index(unknown[0])]
                lost.append(_Lost(task, unknown[0], self._bank.why(unknown[0], place) or "nothing is known of it"))
                continue
            own, other = map(self._bank.mask, task.places)
            files = [self._bank.sha256(place) for place in task.places]
            pixels = []
            for key, sha256 in zip(keys.values(), files, strict=True):
                try:
                    pixels.append(load_again(Item(key, "", 0, self._reader), sha256, self.job.size))
                except DataError as error:
                    lost.append(_Lost(task, key, str(error)))
                    break
            else:
                source, target = pixels
                try:
                    pair = mix_pair(source, target, own, other, fill=self.job.fill, feather=self.job.feather)
                except DataError as error:
                    lost.append(_Lost(task, task.source, str(error)))
                    continue
                shares = float(own.float().mean()), float(other.float().mean())
                agreements = self._bank.agreement(task.source_place), self._bank.agreement(task.target_place)
                yield _Output(task, *pair, shares, agreements, (files[0], files[1]))

    def _refine(self, refiner: Refiner, settings: RefinerSettings, outputs: Sequence[_Output]) -> list[_Lost]:
        """Refine images of one size; those that cannot be, or that came out broken, and why."""
        try:
            refiner.check_size(*outputs[0].pixels.shape[1:])
        except InvalidInputError as error:
            return [_Lost(output.task, output.task.source, f"it cannot be refined: {error}") for output in outputs]
        labels = [output.task.label for output in outputs]
        strengths = torch.tensor([output.task.strength or 1.0 for output in outputs], dtype=torch.float64)
        refined = refiner.refine(
            torch.stack([output.pixels for output in outputs]),
            classes=labels,
            strength="adaptive" if settings.adaptive else strengths,
            seeds=[output.task.seed for output in outputs],
            masks=torch.stack([output.kept for output in outputs]),
            holes=torch.stack([output.hole for output in outputs]),
            preserve=settings.preserve,
        )
        for place, output in enumerate(outputs):
            output.pixels = refined.images[place]
            output.facts = {
                "strength": refined.strengths[place],
                "timestep": refined.timesteps[place],
                "accepted": refined.accepted[place],
            }
        return [
            _Lost(output.task, output.task.source, "the refiner gave NaN or infinite numbers, in single precision too")
            for output, broken in zip(outputs, refined.broken, strict=True)
            if broken
        ]

    def _judge(self, teacher: Judge, outputs: Sequence[_Output]) -> None:
        confidence, named = teacher(torch.stack([output.pixels for output in outputs])).softmax(1).max(1)
        for output, sure, number in zip(outputs, confidence.tolist(), named.tolist(), strict=True):
            output.facts |= {"teacher": self.job.class_names[number], "teacher_confidence": round(sure, 6)}

    def _encoded(self, outputs: Sequence[_Output], lost: list[_Lost]) -> Iterator[_Made]:
        for output in outputs:
            try:
                content = encoded(output.pixels, self.job.image_format)
            except DataError as error:
                lost.append(_Lost(output.task, output.task.source, str(error)))
                continue
            yield _Made(self._row(output, content), content)

    def _write(self, chunk: Chunk, made: Sequence[_Made], lost: Sequence[_Lost]) -> None:
        rows = [one.row for one in made]
        if self.job.shards:
            rows = [{**row, "shard": shard_name(chunk.number)} for row in rows]
            content = shard_bytes(zip(rows, (one.content for one in made), strict=True))
            if rows:
                self.job.out.write(shard_name(chunk.number), content)
            rows = [{**row, "shard_bytes": len(content)} for row in rows]
        else:
            for row, content in made:
                self.job.out.write(row["file_name"], content)
        for one in lost:
            self.job.out.remove(one.task.name)  # of an earlier run that had it; the manifest will not name it
        gaps = [{"file_name": one.task.name, "skipped": one.key, "reason": one.reason} for one in lost]
        self.job.out.write(done_name(chunk.number), note_bytes([*rows, *gaps]))

    def _row(self, output: _Output, content: bytes) -> dict[str, Any]:
        """A row of the manifest; every row has the same fields, so that it reads as a table."""
        task = output.task
        return {
            "file_name": task.name,
            "label": task.label,
            "label_index": task.label_index,
            "source": task.source,
            "target": task.target,
            "target_label": task.target_label,
            "source_sha256": output.files[0].hex(),
            "target_sha256": output.files[1].hex(),
            "distance": task.distance,
            "source_coverage": output.shares[0],
            "target_coverage": output.shares[1],
            "source_agreement": output.agreements[0],
            "target_agreement": output.agreements[1],
            "kept": float(output.kept.float().mean()),
            "seed": task.seed,
            "prompt": task.prompt,
            "strength": None,
            "timestep": None,
            "accepted": None,
            "teacher": None,
            "teacher_confidence": None,
            **output.facts,
            **self.job.noted,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "versions": self._versions,
        }


def done_name(number: int) -> str:
    """The note that a chunk is done."""
    return f"{DONE}/{number:06d}.jsonl"


def _alike(outputs: Sequence[_Output]) -> Iterable[list[_Output]]:
    """Images of one size, in the plan's order."""
    sizes: dict[tuple[int, ...], list[_Output]] = {}
    for output in outputs:
        sizes.setdefault(tuple(output.pixels.shape), []).append(output)
    return sizes.values()


def _without(outputs: Sequence[_Output], lost: Sequence[_Lost]) -> list[_Output]:
    """The outputs that are not lost, in their order."""
    gone = {one.task.name for one in lost}
    return [output for output in outputs if output.task.name not in gone]


@contextmanager
def _timed(clock: Counter[str], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    clock[stage] += time.perf_counter() - began  # type: ignore[assignment]


def _versions(refined: bool) -> dict[str, str]:
    from importlib.metadata import version

    packages = ["diffusers", "transformers"] if refined else []
    return {"sgdmix_albu": __version__, "torch": torch.__version__, **{name: version(name) for name in packages}}
