"""The plan as a file: JSON lines, one for each output, and reading any stretch of it.

JSON lines and not Parquet: it needs no further package, is written and read as a stream, a worker reads its stretch
by two numbers, and anyone can look into it. It is about five times as large as Parquet would be.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from sgdmix_albu.errors import DataError
from sgdmix_albu.files import stays_below

__all__ = ["Chunk", "Task", "batched", "check_below", "chunks_of", "read_tasks", "task_line"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Task:
    """One output image, as planned.

    Attributes:
        name: Its file below the output folder, with forward slashes.
        label: The source's class.
        label_index: Its number among the set's classes.
        source: Key of the source image.
        target: Key of the target image.
        target_label: The target's class.
        source_place: The source's place in the listing.
        target_place: The target's.
        distance: Root-mean-square difference of their saliency maps.
        seed: Of the refinement.
        strength: Its translation strength S; None where it is found out ("adaptive") or nothing is refined.
        prompt: Its prompt; None where nothing is refined.
    """

    name: str
    label: str
    label_index: int
    source: str
    target: str
    target_label: str
    source_place: int
    target_place: int
    distance: float
    seed: int
    strength: float | None
    prompt: str | None

    @property
    def places(self) -> tuple[int, int]:
        """The source's and the target's."""
        return self.source_place, self.target_place


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that are worked on together, and where they stand in the plan: bytes from ``start`` to ``end``."""

    number: int
    start: int
    end: int
    rows: int


_FIELDS = tuple(field.name for field in dataclasses.fields(Task))
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "label", "source", "target", "target_label"), (str,)),
    **dict.fromkeys(("label_index", "source_place", "target_place", "seed"), (int,)),
    "distance": (float, int),
    "strength": (float, int, type(None)),
    "prompt": (str, type(None)),
}


def task_line(task: Task) -> bytes:
    """A line of the plan.

    Example:
        >>> line = task_line(Task("a/1.png", "a", 0, "a/1.jpg", "b/2.jpg", "b", 0, 7, 0.1, 5, 0.7, "a bird"))
        >>> read_tasks(line)[0].target
        'b/2.jpg'
    """
    row = {name: getattr(task, name) for name in _FIELDS}
    return json.dumps(row, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def read_tasks(content: bytes) -> list[Task]:
    """Lines of a plan.

    Raises:
        DataError: A line is not what :func:`task_line` writes.
    """
    return [_task(line) for line in content.splitlines()]


def chunks_of(lines: Iterable[bytes], rows: int) -> Iterator[Chunk]:
    r"""The stretches of a plan of ``rows`` lines each, the last of fewer.

    Example:
        >>> list(chunks_of([b"1\n", b"22\n", b"3\n"], rows=2))
        [Chunk(number=0, start=0, end=5, rows=2), Chunk(number=1, start=5, end=7, rows=1)]
    """
    start = 0
    for number, batch in enumerate(batched(lines, rows)):
        end = start + sum(map(len, batch))
        yield Chunk(number, start, end, len(batch))
        start = end


def batched(items: Iterable[T], count: int) -> Iterator[list[T]]:
    """As ``itertools.batched`` of Python 3.12.

    Example:
        >>> list(batched("owls", 3))
        [['o', 'w', 'l'], ['s']]
    """
    coming = iter(items)
    while batch := list(islice(coming, count)):
        yield batch


def _task(line: bytes) -> Task:
    try:
        row: Any = json.loads(line)
        values = {name: row[name] for name in _FIELDS}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"not a line of a plan: {_shown(line)}") from error
    for name, value in values.items():
        if not isinstance(value, _KINDS[name]) or isinstance(value, bool):
            raise DataError(f"{name} of a line of the plan is {value!r}: {_shown(line)}")
    check_below(values["name"], values["source"], values["target"])
    if values["strength"] is not None and not 0 < values["strength"] <= 1:
        raise DataError(f"strength of a line of the plan is {values['strength']!r}: {_shown(line)}")
    if min(values["source_place"], values["target_place"], values["seed"]) < 0:
        raise DataError(f"a number of a line of the plan is negative: {_shown(line)}")
    return Task(**values)


def check_below(*names: str) -> None:
    """Refuse names that lead out of their folder, by ``..`` or from the root.

    Raises:
        DataError: Such a name.
    """
    for name in names:
        if not stays_below(name):
            raise DataError(f"a name leads out of its folder: {name!r}")


def _shown(line: bytes) -> str:
    return ascii(line[:80].decode("ascii", "replace"))
