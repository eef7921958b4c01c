"""The plan as a file: JSON lines, one for each output, and reading any stretch of it.

JSON lines and not Parquet: it needs no further package, is written and read as a stream, a worker reads its stretch
by two numbers, and anyone can look into it. It is about five times as large as Parquet would be.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from sgdmix_albu.errors import DataError
from sgdmix_albu.expand.store.manifest import output_name
from sgdmix_albu.io.records import UnsoundError, name_below, number, optional, parse, record, text, whole

__all__ = ["Chunk", "Task", "batched", "chunks_of", "read_tasks", "task_line"]

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
_TASK = record(
    {
        "name": output_name,
        "label": text(4096),
        "label_index": whole(),
        "source": name_below,
        "target": name_below,
        "target_label": text(4096),
        "source_place": whole(),
        "target_place": whole(),
        "distance": number(0, 1),
        "seed": whole(),
        "strength": optional(number(0, 1, above=True)),
        "prompt": optional(text()),
    }
)


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
    return [_task(line) for line in io.BytesIO(content)]  # splitlines() breaks at \r too


def chunks_of(lines: Iterable[bytes], rows: int) -> Iterator[Chunk]:
    r"""The stretches of a plan of ``rows`` lines each, the last of fewer.

    Example:
        >>> list(chunks_of([b"1\n", b"22\n", b"3\n"], rows=2))
        [Chunk(number=0, start=0, end=5, rows=2), Chunk(number=1, start=5, end=7, rows=1)]
    """
    start = 0
    for place, batch in enumerate(batched(lines, rows)):
        end = start + sum(map(len, batch))
        yield Chunk(place, start, end, len(batch))
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
        return Task(**parse(line, _TASK))
    except UnsoundError as error:
        raise DataError(f"not a line of a plan: {error}: {_shown(line)}") from error


def _shown(line: bytes) -> str:
    return ascii(line[:80].decode("ascii", "replace"))
