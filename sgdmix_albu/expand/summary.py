"""What an expansion is asked for, what is expected of it, and what it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Literal

from sgdmix_albu.arguments import check_switch, check_text
from sgdmix_albu.bank.reference import check_agreement
from sgdmix_albu.datasets.source import Skipped, ignored_lines
from sgdmix_albu.expand.execute.pair import FORMATS
from sgdmix_albu.expand.plan.checks import check_choice, check_counts, check_seed
from sgdmix_albu.expand.store.manifest import METADATA
from sgdmix_albu.expand.store.run import QUARANTINE
from sgdmix_albu.io.progress import time_line
from sgdmix_albu.printable import printable
from sgdmix_albu.settings import MixSettings
from sgdmix_albu.types import BEST_FILL, BEST_MASK, BEST_SALIENCY, Fill, TargetClass

__all__ = ["Expansion", "Forecast", "Settings"]

_CHUNK, _SHARD = 32, 512  # rows that are worked on together: of files, and of a tar shard
_SHOWN = 20  # skipped images that are printed; the quarantine list has all
_WHY_LEFT_OUT = {
    "flat_saliency": "the source's saliency map is flat",
    "empty_mask": "the source's mask is empty",
    "doubtful": "the source's mask holds less of what --agreement sees than --min-agreement",
    "no_target": "no further candidate",
    "over_coverage": "with each candidate more than --max-coverage would be kept, or painted over",
    "long_name": "the output's file name would be too long",
}


@dataclass(frozen=True)
class Settings:
    """What the outputs follow from, besides the images. Checked when made.

    Attributes:
        saliency: A backend's name.
        mask: A preset's name.
        candidates: Candidates drawn from the whole set for each output.
        target_class: "any", or only targets of the "same" or a "different" class.
        fill: What stands where the target's object was: "source" keeps the source's pixels there (the paper's union
            mask), "inpaint" paints the object out of the target and keeps the source by its own mask.
        max_coverage: The largest share of an image that a union mask may cover; with "inpaint", that the source's
            mask may, and the hole that is painted.
        multiplier: Outputs of each image.
        seed: The same seed gives the same outputs.
        size: Bring all images to size x size; None keeps each as it is.
        image_format: "png" or "jpg".
        feather: Width in pixels of the fade outside the mask; None for a hard edge with "source" and a soft border
            with "inpaint".
        shards: Write tar shards instead of files.
        min_agreement: The least share of a better backend's object that a mask must hold; images with less are
            neither sources nor targets. 0 for any: nobody else is asked.
        agreement_with: The better backend's name.
    """

    saliency: str = BEST_SALIENCY
    mask: str = BEST_MASK
    candidates: int = 50
    target_class: TargetClass = "any"
    fill: Fill = BEST_FILL
    max_coverage: float = 0.95
    multiplier: int = 5
    seed: int = 0
    size: int | None = None
    image_format: Literal["png", "jpg"] = "png"
    feather: float | None = None
    shards: bool = False
    min_agreement: float = 0
    agreement_with: str = BEST_SALIENCY

    def __post_init__(self) -> None:
        MixSettings(
            candidates=self.candidates,
            max_coverage=self.max_coverage,
            target_class=self.target_class,
            fill=self.fill,
            feather=self.feather,
        )
        check_text(saliency=self.saliency, mask=self.mask)
        check_agreement(self.min_agreement, self.agreement_with, self.saliency)
        check_switch(shards=self.shards)
        check_choice("image_format", self.image_format, FORMATS)
        check_counts(multiplier=self.multiplier, size=self.size)
        check_seed(self.seed)
        # They are written as JSON, which knows Python's own numbers only.
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, bool) and isinstance(value, Real):
                object.__setattr__(self, field.name, int(value) if isinstance(value, Integral) else float(value))

    @property
    def better(self) -> str | None:
        """The better backend, if anybody is asked."""
        return self.agreement_with if self.min_agreement > 0 else None

    @property
    def chunk(self) -> int:
        """Rows that are worked on together."""
        return _SHARD if self.shards else _CHUNK


@dataclass(frozen=True)
class Expansion:
    """What a run did; ``str()`` of it is what the command prints.

    Attributes:
        out: The folder written.
        sources: Number of images in the set.
        planned: Outputs in the plan.
        written: Outputs made by this run.
        lost: Outputs that could not be made: an image became unreadable meanwhile, is too long to refine, or the
            refiner's numbers broke; the same call tries again.
        left_out: Reason to number of outputs that were not planned.
        skipped: Images that could not be used, and why.
        came: Images that are there since the run began, and so not in its plan.
        ignored: Other files found in the input: what they are, and how many.
        seconds: Duration of each step.
        described: Sources whose saliency and masks were made by this run.
        describing: The workers' seconds for that.
        stages: The workers' seconds for each stage of the outputs.
        size: Bytes of the images that were written.
    """

    out: str
    sources: int
    planned: int
    written: int
    lost: int
    left_out: Counter[str]
    skipped: list[Skipped]
    came: list[str]
    ignored: Counter[str]
    seconds: dict[str, float]
    described: int
    describing: float
    stages: dict[str, float]
    size: int

    @property
    def there(self) -> int:
        """Number of images in the folder, of this run or an earlier one."""
        return self.planned - self.lost

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        earlier = self.planned - self.written - self.lost
        there = f"; {earlier} were there" if earlier else ""
        yield f"written  {self.written} of {self.planned} images from {self.sources} sources{there}"
        if self.lost:
            yield f"lost     {self.lost}: they could not be made, for the reasons below; the same command tries again"
        for reason, count in sorted(self.left_out.items()):
            yield f"left out {count}: {_WHY_LEFT_OUT[reason]}"
        for one in self.skipped[:_SHOWN]:
            yield f"skipped  {one}"
        if len(self.skipped) > _SHOWN:
            yield f"skipped  {len(self.skipped) - _SHOWN} more, see {QUARANTINE}"
        if self.came:
            count, first = len(self.came), printable(self.came[0])
            came = f"{count} image{'s' if count > 1 else ''} came after the run began"
            yield f"outside  {came}, such as {first}; --overwrite takes all"
        yield from ignored_lines(self.ignored)
        if self.seconds:
            yield time_line(self.seconds, self.written)
        if self.described:
            yield f"sources  {1000 * self.describing / self.described:.1f} ms of a worker for the masks of one"
        if self.written and self.stages:
            parts = ", ".join(f"{name} {1000 * taken / self.written:.1f}" for name, taken in self.stages.items())
            yield f"images   {parts} ms of a worker for one"
        yield printable(f"out      {self.out}, with {METADATA}")


@dataclass(frozen=True)
class Forecast:
    """What a dry run expects, from a few outputs that it made and threw away.

    Attributes:
        sources: Number of images in the set.
        classes: Number of classes.
        outputs: Outputs, if none is left out.
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

    def __str__(self) -> str:
        steps = ", ".join(f"{name} {_duration(seconds)}" for name, seconds in self.seconds.items())
        return "\n".join(
            (
                f"sources  {self.sources} images of {self.classes} classes",
                f"outputs  {self.outputs}, if none must be left out",
                f"time     about {_duration(sum(self.seconds.values()))} ({steps})",
                f"disk     about {_bytes(self.size)}",
                f"basis    {self.tried} outputs, made and thrown away; nothing was written",
            )
        )


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
