"""What was done and what was found, counted; and what counts as a fault."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .command import Ended

__all__ = ["Tally", "differences", "faults_of"]

FAULTS = (
    "lost",  # an image, or a file of the result, is not there
    "doubled",  # it is named twice, or nothing names it
    "differing",  # its bytes are not those of a run that nobody disturbed
    "hung",
    "memory",
    "traceback",
    "left over",  # processes that outlive their command
    "unclean",  # control characters, or what is no line of ours
    "silent",  # it failed, and did not say why in one line; or did not say of which file
    "wrong remedy",  # it said what to do, and that did not help
    "wrong code",
    "trace",  # code of a hostile file was run
    "call",  # of the API, that ended as none may
)
_KEPT = {".sgdmix-lock", ".sgdmix-holder"}  # hold no result


class Tally:
    """Counts; ``str()`` of it is the closing table."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.faults: list[tuple[str, str]] = []
        self.where = ""

    def begin(self, where: str) -> None:
        """From here on, faults are this run's: how to repeat it."""
        self.where = where
        self.counts["runs"] += 1

    def count(self, what: str) -> None:
        """Something that is no fault was done."""
        self.counts[what] += 1

    def fault(self, kind: str, text: object) -> None:
        """Something went wrong."""
        assert kind in FAULTS, kind
        self.faults.append((kind, f"{self.where}: {str(text)!r:.1200}"))
        print(f"  {kind}: {self.faults[-1][1]}", flush=True)

    def judge(self, ended: Ended, codes: set[int] | None = None) -> None:
        """Count a command's end; ``codes`` are those that it may end with."""
        for kind, text in faults_of(ended):
            self.fault(kind, text)
        if codes is not None and ended.code not in codes and not (ended.hung or ended.swollen):
            self.fault("wrong code", f"{ended.command}: {ended.code}, expected {sorted(codes)}; {ended.err[-300:]}")
        if ended.code == 2:
            self.count("refusals")

    def compare(self, right: Path, found: Path, *, results_only: bool = False) -> None:
        """Count what differs between a folder and the one that it should be."""
        for kind, name in differences(right, found, results_only=results_only):
            self.fault(kind, name)

    def __str__(self) -> str:
        kinds = Counter(kind for kind, _ in self.faults)
        done = [f"{self.counts[what]:8}  {what}" for what in sorted(self.counts)]
        wrong = [f"{kinds[kind]:8}  {kind}" for kind in FAULTS]
        return "\n".join([*done, *wrong, *(f"{kind}: {text}" for kind, text in self.faults)])


def faults_of(ended: Ended) -> Iterator[tuple[str, str]]:
    """What a command must never do, whatever it was given."""
    said = f"{ended.command}: {ended.err[-300:]}"
    if ended.hung:
        yield "hung", f"{ended.command}: more than {ended.seconds:.0f} s; {ended.err[-300:]}"
    if ended.swollen:
        yield "memory", said
    if "Traceback (most recent call last)" in ended.err + ended.out:
        yield "traceback", f"{ended.command}: {' / '.join(ended.err.strip().splitlines()[-7:])}"
    if ended.left:
        yield "left over", f"{ended.command}: {', '.join(ended.left)}"
    strange = next((line for line in (ended.out + ended.err).split("\n") if not line.isprintable()), None)
    if strange is not None:
        yield "unclean", f"{ended.command}: {strange:.300}"
    told = [line for line in ended.err.splitlines() if "sgdmix: error:" in line]
    if ended.code == 2 and len(told) != 1:
        yield "silent", said


def differences(right: Path, found: Path, *, results_only: bool = False) -> Iterator[tuple[str, str]]:
    """How a folder differs from the one that it should be: (kind of fault, file).

    ``results_only`` leaves out the hidden files, which are a run's own.
    """
    wanted, there = (_files(folder, results_only) for folder in (right, found))
    yield from (("lost", name) for name in sorted(wanted - there))
    yield from (("doubled", f"{name}: a stranger") for name in sorted(there - wanted))
    for name in sorted(wanted & there):
        if (right / name).read_bytes() != (found / name).read_bytes():
            yield "differing", name
    manifest = found / "metadata.jsonl"
    if "metadata.jsonl" in there:
        with manifest.open(encoding="utf-8", errors="replace") as lines:
            names = Counter(_name(line) for line in lines)
        yield from (("doubled", f"{name}: named twice") for name, times in names.items() if times > 1)


def _files(folder: Path, results_only: bool) -> set[str]:
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() or path.is_symlink()}
    return {name for name in found if name not in _KEPT and not (results_only and name.startswith(".sgdmix"))}


def _name(line: str) -> str:
    try:
        return str(json.loads(line)["file_name"])
    except (ValueError, KeyError, TypeError):
        return f"no row: {line!r:.60}"
