"""What an expansion will do (a dry run), and what it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sgdmix_albu.datasets.source import Skipped, ignored_lines
from sgdmix_albu.expand.names import METADATA, QUARANTINE
from sgdmix_albu.io.progress import time_line
from sgdmix_albu.printable import duration, printable, skipped_lines, skipped_rows

WHY = {  # an output is left out, or its image stays unmixed
    "not_drawn": "not selected by --p",
    "flat_saliency": "the saliency map is flat",
    "empty_mask": "the mask is empty",
    "doubtful": "the mask's agreement is below --min-agreement",
    "no_target": "no further candidate",
    "over_coverage": "every candidate would exceed --max-coverage",
    "long_name": "the output's file name would be too long",
}


@dataclass(frozen=True)
class Expansion:
    """What a run did; the command prints ``str()`` of it.

    Attributes:
        out: The folder written.
        sources: Number of images in the set.
        planned: Outputs in the plan.
        written: Outputs made by this run.
        lost: Outputs that could not be made: an image became unreadable during the run, is too long to refine, or the
            refiner's numbers broke; the same call tries again.
        left_out: Reason to number of outputs that were not planned.
        unmixed: Reason to number of images that were copied unmixed, if those are kept.
        skipped: Images that could not be used, and why.
        came: Images added after the run started, and so not in its plan.
        ignored: Other files found in the input: what they are, and how many.
        seconds: Duration of each step.
        described: Sources whose saliency and masks were made by this run.
        describing: The workers' seconds for that.
        describers: How many workers did that.
        stages: The workers' seconds for each stage of the outputs.
        size: Bytes of the images that were written.
        classes: Names of the classes that have images.
        keeps_unmixed: Whether images that could not be mixed are copied.
    """

    out: str
    sources: int
    planned: int
    written: int
    lost: int
    left_out: Counter[str]
    unmixed: Counter[str]
    skipped: list[Skipped]
    came: list[str]
    ignored: Counter[str]
    seconds: dict[str, float]
    described: int
    describing: float
    stages: dict[str, float]
    size: int
    classes: tuple[str, ...] = ()
    keeps_unmixed: bool = False
    describers: int = 1

    @property
    def there(self) -> int:
        """Number of images in the folder, of this run or an earlier one."""
        return self.planned - self.lost

    @property
    def mixed(self) -> int:
        """Number of those that were mixed."""
        return self.there - self.unmixed.total()

    @property
    def failure(self) -> str | None:
        """Why the run did not do what it is for; None where it did."""
        if not self.there:
            return f"no image was written to {self.out} {self._reasons(self.left_out)}"
        asked = self.planned - self.unmixed["not_drawn"]
        if self.keeps_unmixed and asked and not self.mixed:
            return f"no image was mixed {self._reasons(self.unmixed)}"
        return None

    @property
    def code(self) -> int:
        """The exit code: 1 where something is said that should be read."""
        return int(bool(self.skipped or self.came or len(self.classes) == 1))

    def to_json(self) -> dict[str, Any]:
        """The same as JSON has it."""
        names = ("out", "sources", "planned", "written", "lost", "mixed", "left_out", "unmixed", "came", "ignored")
        found = {name: getattr(self, name) for name in (*names, "seconds", "classes")}
        return {**found, "bytes": self.size, "skipped": skipped_rows(self.skipped)}

    def _reasons(self, counts: Counter[str]) -> str:
        each = (f"{count} image{'s' if count > 1 else ''}: {WHY[reason]}" for reason, count in counts.most_common())
        said = "; ".join(each) or "none could be read"
        tried = "sgdmix audit shows the maps and masks"
        return f"({said}); {'mixing takes at least two images' if self.sources == 1 else tried}"

    def __repr__(self) -> str:  # a notebook shows it as the command does
        return str(self)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        earlier = self.planned - self.written - self.lost
        there = f"; {earlier} were there" if earlier else ""
        yield f"written  {self.written} of {self.planned} images from {self.sources} sources{there}"
        if self.lost:
            yield f"lost     {self.lost}: could not be made, for the reasons below; run the same command to retry"
        for reason, count in sorted(self.left_out.items()):
            yield f"left out {count}: {WHY[reason]}"
        if self.keeps_unmixed:
            yield f"mixed    {self.mixed} of {self.there} images"
        for reason, count in sorted(self.unmixed.items()):
            yield f"unmixed  {count}: {WHY[reason]}; written as they are"
        if len(self.classes) == 1:
            only = printable(self.classes[0])
            yield f"classes  1, {only}: each folder in DATA is a class; is DATA one folder too high?"
        yield from skipped_lines(self.skipped, QUARANTINE)
        if self.came:
            count, first = len(self.came), printable(self.came[0])
            came = f"{count} image{'s' if count > 1 else ''} added after the run started"
            yield f"outside  {came}, such as {first}; --overwrite includes them"
        yield from ignored_lines(self.ignored)
        if self.seconds:
            yield time_line(self.seconds, self.written)
        if self.described:
            yield f"sources  {1000 * self.describing / self.described:.1f} ms each, for saliency and mask (one worker)"
        if self.written and self.stages:
            parts = ", ".join(f"{name} {1000 * taken / self.written:.1f}" for name, taken in self.stages.items())
            yield f"images   {parts} ms each (one worker)"
        yield printable(f"out      {self.out}, with {METADATA}")


@dataclass(frozen=True)
class Forecast:
    """What a dry run expects, measured on a few trial outputs.

    Attributes:
        sources: Number of images in the set.
        classes: Number of classes.
        outputs: Outputs, at most.
        seconds: Expected duration of each step.
        size: Expected bytes.
        tried: Outputs that were made.
    """

    sources: int
    classes: int
    outputs: int
    seconds: dict[str, float]
    size: float
    tried: int

    failure = None  # nothing is to be done yet
    code = 0

    def to_json(self) -> dict[str, Any]:
        """The same as JSON has it."""
        names = ("sources", "classes", "outputs", "seconds", "tried")
        return {name: getattr(self, name) for name in names} | {"bytes": round(self.size)}

    def __repr__(self) -> str:  # a notebook shows it as the command does
        return str(self)

    def __str__(self) -> str:
        steps = ", ".join(f"{name} {duration(seconds)}" for name, seconds in self.seconds.items())
        return "\n".join(
            (
                f"sources  {self.sources} images of {self.classes} classes",
                f"outputs  {self.outputs} at most; some sources may be skipped",
                f"time     about {duration(sum(self.seconds.values()))} ({steps})",
                f"disk     about {_bytes(self.size)}",
                f"basis    {self.tried} trial outputs; nothing was written",
            )
        )


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
