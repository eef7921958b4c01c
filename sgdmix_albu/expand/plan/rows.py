"""The plan as a file: JSON lines, one for each output, and reading any stretch of it.

JSON lines and not Parquet: it needs no further package, is written and read as a stream, a worker reads its stretch
by two numbers, and anyone can look into it. It is about five times as large as Parquet would be.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import TypeVar

from sgdmix_albu.errors import DataError
from sgdmix_albu.expand.names import output_name
from sgdmix_albu.io.records import UnsoundError, items, name_below, number, one_of, optional, parse, record, text, whole

T = TypeVar("T")

# Why an image may stay unmixed.
UNMIXED = ("not_drawn", "flat_saliency", "empty_mask", "doubtful", "no_target", "over_coverage")


@dataclass(frozen=True, slots=True)
class Row:
    """One output image, as planned.

    Attributes:
        name: Its file below the output folder, with forward slashes.
        label: The source's class.
        label_index: Its number among the set's classes.
        source: Key of the source image.
        target: Key of the target image; None where the source stays unmixed, and so are the next three.
        target_label: The target's class.
        source_place: The source's place in the listing.
        target_place: The target's.
        distance: Root-mean-square difference of their saliency maps.
        seed: Of the refinement.
        strength: Its translation strength S; None where it is found out ("adaptive") or nothing is refined.
        prompt: Its prompt; None where nothing is refined.
        unmixed: Why the source stays unmixed, one of ``UNMIXED``; None where it is mixed.
        refused: Nearer candidates refused because the union, or the hole that is painted, would have covered too
            much; None in plans of versions that did not say.
        placed: Three numbers in [0, 1), from which the object's area, y and x follow; None where it stays in its place.
    """

    name: str
    label: str
    label_index: int
    source: str
    target: str | None
    target_label: str | None
    source_place: int
    target_place: int | None
    distance: float | None
    seed: int
    strength: float | None
    prompt: str | None
    unmixed: str | None = None
    refused: int | None = None
    placed: tuple[float, ...] | None = None

    @property
    def images(self) -> list[tuple[int, str]]:
        """Place and key of the source, and of the target where there is one."""
        images = ((self.source_place, self.source), (self.target_place, self.target))
        return [(place, key) for place, key in images if place is not None and key is not None]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that are worked on together, and where they stand in the plan: bytes from ``start`` to ``end``."""

    number: int
    start: int
    end: int
    rows: int


_FIELDS = tuple(field.name for field in dataclasses.fields(Row))
_START, _STRING = '{"name":', json.JSONDecoder()
_VALUES = attrgetter(*_FIELDS)
_JSON = json.JSONEncoder(allow_nan=False, separators=(",", ":"))  # made once: there may be ten million rows
_ROW = record(
    {
        "name": output_name,
        "label": text(4096),
        "label_index": whole(),
        "source": name_below,
        "target": optional(name_below),
        "target_label": optional(text(4096)),
        "source_place": whole(),
        "target_place": optional(whole()),
        "distance": optional(number(0, 1)),
        "seed": whole(),
        "strength": optional(number(0, 1, above=True)),
        "prompt": optional(text()),
    },
    may={
        "unmixed": optional(one_of(*UNMIXED)),
        "refused": optional(whole()),
        "placed": optional(items(number(0, 1), least=3, most=3)),
    },
)


def row_line(row: Row) -> bytes:
    """A line of the plan.

    Example:
        >>> line = row_line(Row("a/1.png", "a", 0, "a/1.jpg", "b/2.jpg", "b", 0, 7, 0.1, 5, 0.7, "a bird"))
        >>> read_rows(line)[0].target
        'b/2.jpg'
    """
    return _JSON.encode(dict(zip(_FIELDS, _VALUES(row), strict=True))).encode() + b"\n"


def read_rows(content: bytes) -> list[Row]:
    """Lines of a plan.

    Raises:
        DataError: A line is not what :func:`row_line` writes.
    """
    return [_read(line) for line in io.BytesIO(content)]  # splitlines() breaks at \r too


def row_name(line: bytes) -> str:
    """The output's name in a line that :func:`row_line` wrote, without reading the rest of it; of another, the line.

    Example:
        >>> row_name(b'{"name":"owl/1.png","label":"owl"}')
        'owl/1.png'
    """
    text = line.decode("utf-8", "replace")
    with suppress(ValueError):
        if text.startswith(_START):
            return str(_STRING.raw_decode(text, len(_START))[0])
    return text


def names_sum(names: Iterable[str]) -> bytes:
    """What tells the outputs of one chunk from those of another, in whatever order they come."""
    return hashlib.sha256("\n".join(sorted(names)).encode("utf-8", "surrogatepass")).digest()[:16]


def chunks_of(lines: Iterable[bytes], rows: int) -> Iterator[tuple[Chunk, list[bytes]]]:
    r"""The stretches of a plan of ``rows`` lines each, the last of fewer, and their lines.

    Example:
        >>> [chunk for chunk, _ in chunks_of([b"1\n", b"22\n", b"3\n"], rows=2)]
        [Chunk(number=0, start=0, end=5, rows=2), Chunk(number=1, start=5, end=7, rows=1)]
    """
    start = 0
    for place, batch in enumerate(batched(lines, rows)):
        end = start + sum(map(len, batch))
        yield Chunk(place, start, end, len(batch)), batch
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


def _read(line: bytes) -> Row:
    try:
        fields = parse(line, _ROW)
        placed = fields.pop("placed", None)
        row = Row(**fields, placed=None if placed is None else tuple(placed))
        target = {value is None for value in (row.target, row.target_label, row.target_place, row.distance)}
        if target != {row.unmixed is not None}:
            raise UnsoundError("it has half a target")
        if row.target is None and row.placed is not None:
            raise UnsoundError("it has a place and no target")
    except UnsoundError as error:
        shown = ascii(line[:80].decode("ascii", "replace"))
        raise DataError(f"not a line of a plan: {error}: {shown}") from error
    return row
