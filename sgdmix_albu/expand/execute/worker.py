"""The work on rows of a plan: mix, refine, ask the teacher, write. Nothing random happens here.

What is done together is fixed by the plan, since rounding may depend on the batch: a chunk is the smallest thing
that is repeated, and its images have the same bits whoever works on it, whenever.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sgdmix_albu import __version__
from sgdmix_albu.bank.descriptors import DescriptorBank
from sgdmix_albu.classifiers import Judge
from sgdmix_albu.datasets.pixels import load_again
from sgdmix_albu.datasets.source import Item
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.expand.asked import Asked
from sgdmix_albu.expand.execute.pair import encoded, mix_pair
from sgdmix_albu.expand.models import open_refiner, open_teacher
from sgdmix_albu.expand.names import BANK, PLAN, done_name
from sgdmix_albu.expand.plan.rows import Chunk, Row, batched, read_rows
from sgdmix_albu.expand.store.done import done_bytes, read_done
from sgdmix_albu.expand.store.shards import shard_bytes, shard_name
from sgdmix_albu.io.attempts import begin_attempt
from sgdmix_albu.io.clock import Clock
from sgdmix_albu.io.copies import Copies, gpus
from sgdmix_albu.io.remembered import Remembered
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.settings import ClassifierSettings, RefinerSettings

if TYPE_CHECKING:
    from sgdmix_albu.refine.refiner import Refiner

_TOGETHER = 32  # outputs that are mixed, refined and encoded together, and held as pixels
# What a row of the manifest says of an output where it is known: every row has the same fields, and reads as a table.
_FACTS = (
    *(f"{role}_{fact}" for role in ("source", "target") for fact in ("sha256", "coverage", "threshold", "agreement")),
    "placement",
    *("strength", "timestep", "accepted", "teacher", "teacher_confidence"),
)


@dataclass(frozen=True)
class Report:
    """What became of a chunk: outputs made and lost, seconds of each stage, bytes of the images."""

    written: int
    lost: int
    seconds: dict[str, float]
    size: int

    @property
    def images(self) -> int:
        """All outputs of the chunk."""
        return self.written + self.lost


@dataclass
class _Output:
    """An output on its way: its pixels, what is the source's in them and what is paint, and facts for the manifest."""

    row: Row
    pixels: Tensor
    kept: Tensor
    hole: Tensor
    facts: dict[str, Any]


class Expander:
    """Does chunks; made once for each process, shared by its threads.

    Args:
        asked: What the run is asked for.
        out: The output folder.
        attempts: Where each beginning is written down, if the engine repeats what a lost worker had.
        sharing: Threads that share it.
    """

    def __init__(self, asked: Asked, out: Storage, attempts: Storage | None, sharing: int = 1) -> None:
        self.asked, self.settings, self.out, self.attempts = asked, asked.settings, out, attempts
        reader = asked.reader
        self._reader = Remembered(reader) if isinstance(reader, Storage) and not reader.local else reader
        self._bank = DescriptorBank(out.below(BANK))
        self._teacher = None if asked.teacher is None else _teachers(asked, asked.teacher, sharing)
        self._refiner = None if asked.refiner is None else open_refiner(asked.refiner, asked.teacher)
        self._refining = threading.Lock()  # one model, one batch at a time; all else goes on beside it
        self._versions = _versions(self._refiner is not None)

    def __call__(self, chunk: Chunk) -> Report:
        """Make a chunk's files, then the file that says so."""
        done = self._done(chunk)
        if done is not None:
            return done
        if self.attempts is not None:
            begin_attempt(self.attempts, f"chunk {chunk.number}")
        clock = Clock()
        made: list[tuple[dict[str, Any], bytes]] = []  # rows of the manifest, and files
        lost: list[dict[str, Any]] = []  # what cannot be made, which image is to blame, and why
        for rows in batched(read_rows(self.out.read(PLAN, chunk.start, chunk.end)), _TOGETHER):
            with clock("mix"):
                outputs = list(self._mixed(rows, lost))
            if self._refiner is not None and self.asked.refiner is not None:
                with self._refining, clock("refine"):
                    for part in _alike(output for output in outputs if output.row.target is not None):
                        lost += self._refine(self._refiner, self.asked.refiner, part)
                gone = {gap["file_name"] for gap in lost}
                outputs = [output for output in outputs if output.row.name not in gone]
            if self._teacher is not None:
                with self._teacher.one() as lent, clock("judge"):
                    for part in _alike(outputs):
                        self._judge(lent.thing, part)
            with clock("encode"):
                made += self._encoded(outputs, lost)
        with clock("write"):
            self._write(chunk, made, lost)
        return Report(len(made), len(lost), clock.seconds, sum(len(content) for _, content in made))

    def _done(self, chunk: Chunk) -> Report | None:
        """What another worker did, who was lost before he could tell: an engine repeats more than is missing."""
        name = done_name(chunk.number)
        rows = read_done(self.out.read(name)) if self.out.has(name) else None
        if rows is None:
            return None
        made = [row for row in rows if "skipped" not in row]
        return Report(len(made), len(rows) - len(made), {}, sum(row["bytes"] for row in made))

    def _mixed(self, rows: Sequence[Row], lost: list[dict[str, Any]]) -> Iterator[_Output]:
        last: dict[int, Tensor] = {}  # the source that was decoded last: its outputs follow one another
        for row in rows:
            output = self._mix(row, last)
            if isinstance(output, _Output):
                yield output
            else:
                lost.append(output)

    def _mix(self, row: Row, last: dict[int, Tensor]) -> _Output | dict[str, Any]:
        """One output, or why there is none: an image that goes bad costs its outputs, a bank that does is an error."""
        pixels: list[Tensor] = []
        masks: list[Tensor] = []
        facts: dict[str, Any] = {}
        for role, (place, key) in zip(("source", "target"), row.images, strict=False):
            known = self._bank.known(place)
            if known is None:
                return _gap(row, key, self._bank.why(key, place) or "the bank does not have it")
            mask = self._bank.mask(place)
            try:
                image = last.get(place)
                if image is None:
                    image = load_again(Item(key, "", 0, self._reader), known.sha256, self.settings.size)
            except DataError as error:
                return _gap(row, key, error)
            if role == "source" and place not in last:
                last.clear()
                last[place] = image
            pixels.append(image)
            masks.append(mask)
            facts |= {
                f"{role}_sha256": known.sha256.hex(),
                f"{role}_coverage": float(mask.float().mean()),
                f"{role}_threshold": known.threshold,
                f"{role}_agreement": known.agreement,
            }
        if row.target is None:  # as it is
            everywhere = torch.ones_like(masks[0])
            return _Output(row, pixels[0], everywhere, ~everywhere, facts)
        try:
            pair = mix_pair(*pixels, *masks, settings=self.settings, placed=row.placed)
        except DataError as error:
            return _gap(row, row.source, error)
        return _Output(row, pair.pixels, pair.kept, pair.hole, {**facts, "placement": pair.placement})

    def _refine(self, refiner: Refiner, settings: RefinerSettings, outputs: Sequence[_Output]) -> list[dict[str, Any]]:
        """Refine images of one size; those that cannot be, or that came out broken, and why."""
        try:
            refiner.check_size(*outputs[0].pixels.shape[1:])
        except InvalidInputError as error:
            return [_gap(output.row, output.row.source, f"it cannot be refined: {error}") for output in outputs]
        labels = [output.row.label for output in outputs]
        strengths = torch.tensor([output.row.strength or 1.0 for output in outputs], dtype=torch.float64)
        refined = refiner.refine(
            torch.stack([output.pixels for output in outputs]),
            classes=labels,
            strength="adaptive" if settings.adaptive else strengths,
            seeds=[output.row.seed for output in outputs],
            masks=torch.stack([output.kept for output in outputs]),
            holes=torch.stack([output.hole for output in outputs]),
            preserve=settings.preserve,
        )
        for place, output in enumerate(outputs):
            output.pixels = refined.images[place]
            output.facts |= {
                "strength": refined.strengths[place],
                "timestep": refined.timesteps[place],
                "accepted": refined.accepted[place],
            }
        return [
            _gap(output.row, output.row.source, "the refiner gave NaN or infinite numbers, in single precision too")
            for output, broken in zip(outputs, refined.broken, strict=True)
            if broken
        ]

    def _judge(self, teacher: Judge, outputs: Sequence[_Output]) -> None:
        confidence, named = teacher(torch.stack([output.pixels for output in outputs])).softmax(1).max(1)
        for output, sure, number in zip(outputs, confidence.tolist(), named.tolist(), strict=True):
            output.facts |= {"teacher": self.asked.class_names[number], "teacher_confidence": round(sure, 6)}

    def _encoded(
        self, outputs: Sequence[_Output], lost: list[dict[str, Any]]
    ) -> Iterator[tuple[dict[str, Any], bytes]]:
        for output in outputs:
            try:
                content = encoded(output.pixels, self.settings.image_format)
            except DataError as error:
                lost.append(_gap(output.row, output.row.source, error))
                continue
            yield self._manifest_row(output, content), content

    def _write(self, chunk: Chunk, made: Sequence[tuple[dict[str, Any], bytes]], lost: list[dict[str, Any]]) -> None:
        rows = [row for row, _ in made]
        if self.settings.shards:
            rows = [{**row, "shard": shard_name(chunk.number)} for row in rows]
            shard = shard_bytes(zip(rows, (content for _, content in made), strict=True))
            if rows:
                self.out.write(shard_name(chunk.number), shard)
            rows = [{**row, "shard_bytes": len(shard)} for row in rows]
        else:
            for row, content in made:
                self.out.write(row["file_name"], content)
        for gap in lost:
            self.out.remove(gap["file_name"])  # of an earlier run that had it; the manifest will not name it
        self.out.write(done_name(chunk.number), done_bytes([*rows, *lost]))

    def _manifest_row(self, output: _Output, content: bytes) -> dict[str, Any]:
        row = output.row
        return {
            "file_name": row.name,
            "label": row.label,
            "label_index": row.label_index,
            "mixed": row.target is not None,
            "unmixed_because": row.unmixed,
            "source": row.source,
            "target": row.target,
            "target_label": row.target_label,
            "distance": row.distance,
            "kept": float(output.kept.float().mean()),
            "refused_over_coverage": row.refused,
            "seed": row.seed,
            "prompt": row.prompt,
            **dict.fromkeys(_FACTS),
            **output.facts,
            **self.asked.noted,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "versions": self._versions,
        }


def _teachers(asked: Asked, settings: ClassifierSettings, sharing: int) -> Copies[Judge]:
    """A teacher for each thread of a CPU, or for each GPU: whoever judges keeps nobody from refining."""
    there = gpus(asked.device)
    opened = partial(open_teacher, settings, asked.class_names, asked.device)
    copies = Copies(opened, len(there), there) if there else Copies(opened, sharing)
    with copies.one():  # what cannot be opened is said before the work begins
        return copies


def _gap(row: Row, key: str, reason: object) -> dict[str, Any]:
    """What stands in the place of an output that cannot be made: which image is to blame, and why."""
    return {"file_name": row.name, "skipped": key, "reason": str(reason)}


def _alike(outputs: Iterable[_Output]) -> Iterable[list[_Output]]:
    """Images of one size, in the plan's order."""
    sizes: dict[tuple[int, ...], list[_Output]] = {}
    for output in outputs:
        sizes.setdefault(tuple(output.pixels.shape), []).append(output)
    return sizes.values()


def _versions(refined: bool) -> dict[str, str]:
    from importlib.metadata import version

    packages = ["diffusers", "transformers"] if refined else []
    return {"sgdmix_albu": __version__, "torch": torch.__version__, **{name: version(name) for name in packages}}
