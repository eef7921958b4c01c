"""What a drift sweep found: figures, intervals, and the answer in a sentence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sgdmix_albu.audit.notebook import in_notebook, show, table
from sgdmix_albu.audit.shares import interval
from sgdmix_albu.printable import skipped_rows

ASKED = 0.7  # the specification asks whether the class changes above this strength
_WEAK = 0.7  # a teacher below this accuracy is doubted


@dataclass(frozen=True)
class Cell:
    """One strength in one mode.

    Attributes:
        preserve: "none", "soft" or "strict".
        strength: Translation strength S; 0 for the mixed images before any refinement.
        timestep: The diffusion timestep that the images were noised to; None where the strength left no step.
        drifted: Outputs that the teacher no longer gives the source's class.
        count: Outputs.
        added: Of those that drifted, outputs whose mixed image had not: refinement's own doing.
    """

    preserve: str
    strength: float
    timestep: int | None
    drifted: int
    count: int
    added: int = 0

    @property
    def share(self) -> float:
        """Drift rate, 0 to 1."""
        return self.drifted / self.count if self.count else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95% interval."""
        return interval(self.drifted, self.count)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.drifted} of {self.count} ({self.share:.0%}, 95% interval {low:.0%} to {high:.0%})"


@dataclass(frozen=True)
class DriftResult:
    """What is also in ``drift.json``.

    Attributes:
        folder: Where the report was written.
        cells: S = 0, the mixed images, first; then every mode and strength.
        sources: Images drawn.
        unmixed: Of these, images for which no target was found.
        misnamed: Of these, images that the teacher gives another class to begin with; they are not judged.
        teacher_accuracy: On images that it was not trained on; None for a teacher that was given.
        settings: As they were passed.
        files: Names of all files in ``folder``.
        skipped: Key and reason of each file that could not be used.
    """

    folder: Path
    cells: tuple[Cell, ...]
    sources: int
    unmixed: int
    misnamed: int
    teacher_accuracy: float | None
    settings: dict[str, Any]
    files: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        size = f"{self.before.count} images, {len(self.cells) - 1} cells"
        return f"DriftResult({self.answer} {size}; report in {self.report})"

    def _repr_html_(self) -> str:
        columns = ("S", *self.modes)
        rows = [("0, mixed", *(_rate(self.before) for _ in self.modes))] + [
            (f"{strength:g}", *(_rate(self.cell(mode, strength)) for mode in self.modes)) for strength in self.strengths
        ]
        notes = (*self.details, *([self.caveat] if self.caveat else []), f"Report: {self.report}")
        return in_notebook(self.answer, notes, table(columns, rows))

    def show(self) -> None:
        """Show the whole report: below the cell in a notebook, elsewhere in the browser."""
        show(self.report)

    @property
    def report(self) -> Path:
        """The HTML page."""
        return self.folder / "report.html"

    @property
    def before(self) -> Cell:
        """The mixed images, before any refinement."""
        return self.cells[0]

    def cell(self, preserve: str, strength: float) -> Cell:
        """One cell."""
        return next(c for c in self.cells if (c.preserve, c.strength) == (preserve, strength))

    @property
    def modes(self) -> list[str]:
        """The modes, in order."""
        return list(dict.fromkeys(cell.preserve for cell in self.cells[1:]))

    @property
    def strengths(self) -> list[float]:
        """The strengths, in order."""
        return list(dict.fromkeys(cell.strength for cell in self.cells[1:]))

    @property
    def answer(self) -> str:
        """Does refinement change the class above S = 0.7? In about ten words: in which modes, and how often."""
        worst = self._worst
        if not worst:
            return f"Not known: no strength above {ASKED} was measured."
        if not self.changed:
            return f"No change of class was seen above S = {ASKED}."
        guilty = [f"{cell.preserve} {cell.added}/{cell.count}" for cell in worst if cell.added]
        return f"Yes, above S = {ASKED}: {', '.join(guilty)}."

    @property
    def details(self) -> tuple[str, ...]:
        """The figures behind the answer: one for each mode at its worst strength, and what drifted before."""
        left = self.before.count - self.before.drifted
        parts = [
            f"{cell.preserve}: {cell} at S = {cell.strength:g}, {cell.added} added by refinement"
            if cell.added
            else f"{cell.preserve}: not seen in {left} images (at most {interval(0, left)[1]:.0%})"
            for cell in self._worst
        ]
        return (*parts, f"before refinement: {self.before}")

    @property
    def sentence(self) -> str:
        """Both together."""
        return f"{self.answer} {'; '.join(self.details)}."

    @property
    def _worst(self) -> list[Cell]:
        """For each mode the strength above 0.7 that added most: what drifted in the mix is no strength's doing."""
        high = [strength for strength in self.strengths if strength > ASKED]
        return [max((self.cell(mode, one) for one in high), key=lambda cell: cell.added) for mode in self.modes if high]

    @property
    def changed(self) -> bool:
        """Whether refinement changed any class at S > 0.7."""
        return any(cell.added for cell in self.cells if cell.strength > ASKED)

    @property
    def caveat(self) -> str | None:
        """Why the answer may be doubted, or None."""
        reasons = []
        if self.before.count < 30:
            images = "1 image was" if self.before.count == 1 else f"{self.before.count} images were"
            reasons.append(f"Only {images} judged; the intervals are wide.")
        if self.teacher_accuracy is not None and self.teacher_accuracy < _WEAK:
            reasons.append(
                f"The teacher trained for this sweep is weak: it classifies {self.teacher_accuracy:.0%} of held-out "
                "images correctly. Pass your own classifier: --teacher FILE."
            )
        return " ".join(reasons) or None

    def table(self) -> str:
        """Drift rates as text: a row for each strength, a column for each mode."""
        lines = ["S     " + "".join(f"{mode:>22}" for mode in self.modes)]
        lines.append("0     " + "".join(f"{_rate(self.before):>22}" for _ in self.modes) + "   mixed, not refined")
        lines += [
            f"{strength:<6g}" + "".join(f"{_rate(self.cell(mode, strength)):>22}" for mode in self.modes)
            for strength in self.strengths
        ]
        return "\n".join(lines)

    def summary(self) -> dict[str, Any]:
        """What ``sgdmix drift --json`` prints."""
        whole = self.to_json()
        names = ("answer", "caveat", "cells", "sources", "unmixed", "misnamed", "teacher_accuracy")
        found = {name: whole[name] for name in names}
        return {**found, "changed": self.changed, "report": str(self.report), "skipped": skipped_rows(self.skipped)}

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and strings."""
        return {
            **asdict(self),
            "folder": str(self.folder),
            "cells": [{**asdict(cell), "share": cell.share, "interval": list(cell.interval)} for cell in self.cells],
            "answer": self.answer,
            "sentence": self.sentence,
            "caveat": self.caveat,
        }


def _rate(cell: Cell) -> str:
    low, high = cell.interval
    return f"{cell.share:.0%} ({low:.0%} to {high:.0%})"
