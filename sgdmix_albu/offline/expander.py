"""The work on rows of a plan: mix, refine, ask the teacher, write. Nothing random happens here.

What is done together is fixed by the plan, since rounding may depend on the batch: a chunk is the smallest thing
that is repeated, and its images have the same bits whoever works on it, whenever.
"""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from sgdmix_albu import __version__
from sgdmix_albu.errors import DataError
from sgdmix_albu.models import open_classifier, standardized
from sgdmix_albu.offline.bank import DescriptorBank
from sgdmix_albu.offline.execute import encoder, load_again, mix_pair
from sgdmix_albu.offline.notes import note_bytes
from sgdmix_albu.offline.shards import shard_bytes, shard_name
from sgdmix_albu.offline.source import Item, Skipped, open_reader
from sgdmix_albu.offline.storage import Storage
from sgdmix_albu.offline.tasks import Chunk, Task, read_tasks

if TYPE_CHECKING:
    from sgdmix_albu.refine.preserve import Preserve
    from sgdmix_albu.refine.refiner import Refiner

__all__ = ["BANK", "DONE", "PLAN", "Expander", "Job", "RefinerSettings", "Report", "TeacherSettings", "done_name"]

# Where a run keeps what it needs, below the output folder; all hidden, so that other readers pass over it.
PLAN, BANK, DONE = ".sgdmix-plan.jsonl", ".sgdmix/bank", ".sgdmix/done"
_TOGETHER = 32  # images that a refiner is given at once


@dataclass(frozen=True)
class TeacherSettings:
    """A classifier that says what it sees, as :func:`sgdmix_albu.models.open_classifier` takes it."""

    model: str
    arch: str | None = None
    class_names: str | None = None
    normalize: Literal["imagenet", "none"] = "imagenet"

    def open(self, classes: Sequence[str]) -> Callable[[Tensor], Tensor]:
        """(B, 3, H, W) float in [0, 1] to logits (B, K) of these classes.

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
        chosen = torch.tensor(outputs)

        def logits(pixels: Tensor) -> Tensor:
            said: Tensor = found.model(standardized(pixels) if self.normalize == "imagenet" else pixels)
            return said[:, chosen]

        return logits


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
        feather: Width in pixels of the fade outside the mask.
        refiner: None to leave the mixed images as they are.
        teacher: Judges every output; None for nobody.
        noted: Settings to repeat in every row of the manifest.
    """

    out: Storage
    data: str | None
    dataset: str | None
    size: int | None
    class_names: tuple[str, ...]
    image_format: str
    shards: bool
    feather: float
    refiner: RefinerSettings | None
    teacher: TeacherSettings | None
    noted: dict[str, Any]


@dataclass(frozen=True)
class Report:
    """What became of a chunk: the number of files, the images that could not be used, seconds of each stage."""

    written: int
    skipped: tuple[Skipped, ...]
    seconds: dict[str, float]
    size: int


@dataclass
class _Output:
    """An output on its way."""

    task: Task
    pixels: Tensor
    union: Tensor
    shares: tuple[float, float]
    facts: dict[str, Any] = field(default_factory=dict)


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
        clock: Counter[str] = Counter()
        tasks = read_tasks(self.job.out.read(PLAN, chunk.start, chunk.end))
        skipped: list[Skipped] = []
        with _timed(clock, "mix"):
            outputs = list(self._mixed(tasks, skipped))
        with self._lock:
            with _timed(clock, "refine"):
                for part in _alike(outputs):
                    self._refine(part)
            with _timed(clock, "judge"):
                for part in _alike(outputs):
                    self._judge(part)
        with _timed(clock, "write"):
            size = self._write(chunk, outputs, skipped)
        return Report(len(outputs), tuple(skipped), dict(clock), size)

    def _mixed(self, tasks: Sequence[Task], skipped: list[Skipped]) -> Iterator[_Output]:
        for task in tasks:
            # Outside: an image may go bad, which costs its outputs; a bank that does is an error.
            own, other = self._bank.mask(task.source_place), self._bank.mask(task.target_place)
            try:
                source, target = self._load(task.source, own), self._load(task.target, other)
            except DataError as error:
                skipped.append(Skipped(task.source, str(error)))
                continue
            mixed, union = mix_pair(source, target, own, other, feather=self.job.feather)
            yield _Output(task, mixed, union, (float(own.float().mean()), float(other.float().mean())))

    def _load(self, key: str, mask: Tensor) -> Tensor:
        height, width = mask.shape
        return load_again(Item(key, "", 0, self._reader), (height, width), self.job.size)

    def _refine(self, outputs: Sequence[_Output]) -> None:
        settings = self.job.refiner
        if self._refiner is None or settings is None:
            return
        labels = [output.task.label for output in outputs]
        strengths = torch.tensor([output.task.strength or 1.0 for output in outputs], dtype=torch.float64)
        refined = self._refiner.refine(
            torch.stack([output.pixels for output in outputs]),
            classes=labels,
            strength="adaptive" if settings.adaptive else strengths,
            seeds=[output.task.seed for output in outputs],
            masks=torch.stack([output.union for output in outputs]),
            preserve=settings.preserve,
        )
        for place, output in enumerate(outputs):
            output.pixels = refined.images[place]
            output.facts = {
                "strength": refined.strengths[place],
                "timestep": refined.timesteps[place],
                "accepted": refined.accepted[place],
            }

    def _judge(self, outputs: Sequence[_Output]) -> None:
        if self._teacher is None:
            return
        with torch.inference_mode():
            pixels = torch.stack([output.pixels for output in outputs]).float() / 255
            confidence, named = self._teacher(pixels).softmax(1).max(1)
        for output, sure, number in zip(outputs, confidence.tolist(), named.tolist(), strict=True):
            output.facts |= {"teacher": self.job.class_names[number], "teacher_confidence": round(sure, 6)}

    def _write(self, chunk: Chunk, outputs: Sequence[_Output], skipped: Sequence[Skipped]) -> int:
        rows, contents = [], []
        for output in outputs:
            content = io.BytesIO()
            encoder(output.pixels, self.job.image_format)(content)
            contents.append(content.getvalue())
            rows.append(self._row(output, contents[-1]))
        if self.job.shards:
            for row in rows:
                row["shard"] = shard_name(chunk.number)
            if rows:
                self.job.out.write(shard_name(chunk.number), shard_bytes(zip(rows, contents, strict=True)))
        else:
            for row, content_ in zip(rows, contents, strict=True):
                self.job.out.write(row["file_name"], content_)
        lines = [*rows, *({"skipped": one.key, "reason": one.reason} for one in skipped)]
        self.job.out.write(done_name(chunk.number), note_bytes(lines))
        return sum(map(len, contents))

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
            "distance": task.distance,
            "source_coverage": output.shares[0],
            "target_coverage": output.shares[1],
            "kept": float(output.union.float().mean()),
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


def _alike(outputs: Sequence[_Output]) -> Iterator[list[_Output]]:
    """Images of one size, in the plan's order, as many as are worked on at once."""
    sizes: dict[tuple[int, ...], list[_Output]] = {}
    for output in outputs:
        sizes.setdefault(tuple(output.pixels.shape), []).append(output)
    for alike in sizes.values():
        for start in range(0, len(alike), _TOGETHER):
            yield alike[start : start + _TOGETHER]


@contextmanager
def _timed(clock: Counter[str], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    clock[stage] += time.perf_counter() - began  # type: ignore[assignment]


def _versions(refined: bool) -> dict[str, str]:
    from importlib.metadata import version

    packages = ["diffusers", "transformers"] if refined else []
    return {"sgdmix_albu": __version__, "torch": torch.__version__, **{name: version(name) for name in packages}}
