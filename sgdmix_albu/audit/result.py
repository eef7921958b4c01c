"""What an audit found, as data: returned to Python and written as ``audit.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sgdmix_albu.audit.gallery import WORST
from sgdmix_albu.audit.notebook import in_notebook, show, table, top_of
from sgdmix_albu.audit.shares import interval
from sgdmix_albu.audit.signs import Flag
from sgdmix_albu.audit.variant import Variant
from sgdmix_albu.audit.verdict import Level, incomplete, judge, leaking, mean
from sgdmix_albu.datasets.sample import Sample
from sgdmix_albu.printable import skipped_rows


@dataclass(frozen=True)
class SignCount:
    """How often one warning sign was seen.

    Attributes:
        name: The failure's name.
        count: Images that show it.
        share: The same as a share of the measured images.
        interval: Its 95% interval.
        worst: Keys of up to twenty of them, the worst first.
    """

    name: str
    count: int
    share: float
    interval: tuple[float, float]
    worst: tuple[str, ...]


@dataclass(frozen=True)
class VariantResult:
    """What one saliency backend with one mask preset made of the sample.

    Attributes:
        name: Backend and preset.
        saliency: The backend's name.
        mask: The preset's name.
        level: "trusted", "unproven", "doubtful" or "untrusted".
        answer: What to do, in about ten words.
        verdict: The reason in one sentence.
        advice: What to try next.
        means: Mean of each measure, None where it has no value; "coverage", "spill" and "leak" only with true masks.
        incomplete: Share of the masks that hold less than three quarters of their object; None without true masks.
        leaking: Share of the pairs that show more than a quarter of the target's object; None without true masks.
        intervals: The 95% intervals of ``incomplete`` and ``leaking``, where they are known.
        unmixed: Share of the sources that were left unmixed.
        guards: How many sources each guard rejected.
        signs: The warning signs, those for which something was measured.
        better: The backend that the masks were compared with; None where they were not.
        milliseconds: Saliency and mask per image, on this machine at that time.
        samples: For each measured source its key, its target's key (None where unmixed) and its measures.
    """

    name: str
    saliency: str
    mask: str
    level: Level
    answer: str
    verdict: str
    advice: tuple[str, ...]
    means: dict[str, float | None]
    incomplete: float | None
    leaking: float | None
    intervals: dict[str, tuple[float, float]]
    unmixed: float
    guards: dict[str, int]
    signs: tuple[SignCount, ...]
    better: str | None
    milliseconds: float
    samples: tuple[dict[str, Any], ...]

    def __repr__(self) -> str:
        return f"VariantResult({self.name}: {self.level}, {len(self.samples)} images)"

    @property
    def new_background(self) -> float | None:
        """Mean share of a mix that comes from its target; None where nothing was mixed."""
        kept = self.means["kept"]
        return None if kept is None else 1 - kept

    def flagged(self, sign: str) -> float | None:
        """Share of the images that show a sign; None where nothing was measured for it."""
        return next((one.share for one in self.signs if one.name == sign), None)


@dataclass(frozen=True)
class AuditResult:
    """What an audit found.

    Attributes:
        folder: Where the report and the panels are.
        report: The HTML report.
        best: Name of the variant that did best.
        tied: Names of all that are not distinguishable from the best on this many images, ``best`` among them.
        level: Its level.
        answer: What to do, in about ten words.
        verdict: One sentence on it.
        variants: All of them, in the order asked for.
        measured: Number of sources that the figures are about.
        skipped: Key and reason of each file that could not be used.
        settings: What to pass to run the audit again.
        versions: Of Python and the packages that matter.
        files: Names of the files written, in ``folder``.
    """

    folder: Path
    report: Path
    best: str
    tied: tuple[str, ...]
    level: Level
    answer: str
    verdict: str
    variants: tuple[VariantResult, ...]
    measured: int
    skipped: tuple[tuple[str, str], ...]
    settings: dict[str, Any]
    versions: dict[str, str]
    files: tuple[str, ...]

    def __repr__(self) -> str:
        shown = f"{len(self.variants)} variants, " if len(self.variants) > 1 else ""
        return f"AuditResult({self.best}: {self.answer} {shown}{self.measured} images; report in {self.report})"

    def _repr_html_(self) -> str:
        columns = ("variant", "verdict", "incomplete", "new background", "ms")
        rows = [
            (one.name, one.level, one.incomplete, one.new_background, f"{one.milliseconds:.0f}")
            for one in self.variants
        ]
        pictures = sorted(name for name in self.files if name.startswith("samples-"))
        return in_notebook(
            self.answer,
            (f"{self.best}: {self.verdict}", f"Report: {self.report}"),
            table(columns, rows),
            top_of(self.folder / pictures[0]) if pictures else "",
        )

    def show(self) -> None:
        """Show the whole report: below the cell in a notebook, elsewhere in the browser."""
        show(self.report)

    def lines(self) -> list[str]:
        """What ``sgdmix audit`` prints."""
        lines = [f"answer   {self.answer}", f"verdict  {self.best}: {self.verdict}"]
        if len(self.tied) > 1:
            others = ", ".join(name for name in self.tied if name != self.best)
            lines.append(f"tie      {others}: as good on these {self.measured} images")
        return [*lines, f"report   {self.report}"]

    def summary(self) -> dict[str, Any]:
        """What ``sgdmix audit --json`` prints: everything but the figures of each sample."""
        whole = self.to_json()
        for variant in whole["variants"]:
            del variant["samples"]
        names = ("best", "tied", "level", "answer", "verdict", "measured", "variants")
        found = {name: whole[name] for name in names}
        return {**found, "report": str(self.report), "skipped": skipped_rows(self.skipped)}

    def to_json(self) -> dict[str, Any]:
        """The same as plain dictionaries and lists, without the folder, which may be moved."""
        plain = asdict(self)
        del plain["folder"]
        return {**plain, "report": self.report.name}


def found_of(sample: Sample, variant: Variant, flags: dict[str, list[Flag]]) -> VariantResult:
    """The figures of one variant, over the measured sources only."""
    measured, keys = sample.measured, sample.keys
    measures = {name: values[:measured] for name, values in variant.measures.items()}
    applied = variant.plan.applied[:measured]
    verdict = judge(measures, flags, applied, (variant.saliency, variant.mask))
    counts = {"incomplete": incomplete(measures), "leaking": leaking(measures)}
    shares = {name: hits / count if count else None for name, (hits, count) in counts.items()}
    return VariantResult(
        name=variant.name,
        saliency=variant.saliency,
        mask=variant.mask,
        level=verdict.level,
        answer=verdict.answer,
        verdict=verdict.sentence,
        advice=verdict.advice,
        means={name: mean(values) for name, values in measures.items()},
        incomplete=shares["incomplete"],
        leaking=shares["leaking"],
        intervals={name: interval(*counts[name]) for name, share in shares.items() if share is not None},
        unmixed=float((~applied).double().mean()),
        guards={name: int(hits[:measured].count_nonzero()) for name, hits in vars(variant.plan.guards).items()},
        signs=tuple(
            SignCount(
                name,
                len(raised),
                len(raised) / measured,
                interval(len(raised), measured),
                tuple(keys[flag.row] for flag in raised[:WORST]),
            )
            for name, raised in flags.items()
        ),
        better=variant.witnesses.name,
        milliseconds=variant.milliseconds,
        samples=tuple(_row(sample, variant, row) for row in range(measured)),
    )


def _row(sample: Sample, variant: Variant, row: int) -> dict[str, Any]:
    values = {name: float(measure[row]) for name, measure in variant.measures.items()}
    return {
        "key": sample.keys[row],
        "target": sample.keys[int(variant.plan.target[row])] if variant.plan.applied[row] else None,
        **{name: None if value != value else round(value, 4) for name, value in values.items()},
    }
