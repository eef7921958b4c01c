"""The images of a run, as they were when it began: a folder that changes meanwhile does not keep it from its end.

``.sgdmix-images.jsonl`` has a line for each class, then one for each image: its key, the number of its class and, once
the plan is made, the SHA-256 of its file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sgdmix_albu.datasets.source import Item, Source
from sgdmix_albu.errors import DataError
from sgdmix_albu.io.records import UnsoundError, line, name_below, optional, parse, record, sha256, text, whole
from sgdmix_albu.io.sums import Summed

_CLASS = record({"class": text(4096)})
_IMAGE = record({"key": name_below, "label": whole(), "sha256": optional(sha256)})
_SAMPLE = 16  # images whose content is looked at, to tell another folder from one that has changed


@dataclass(frozen=True)
class Listed:
    """A set of images, by name.

    Attributes:
        class_names: Label index to name.
        images: Key, label index and SHA-256 of each; None before the plan is made, and of one that is not in it.
    """

    class_names: list[str]
    images: list[tuple[str, int, str | None]]


def listing_lines(
    class_names: Iterable[str], items: Iterable[Item], digest: Callable[[int], str | None] = lambda place: None
) -> Iterator[bytes]:
    """The lines of a listing.

    Args:
        class_names: Label index to name.
        items: The images.
        digest: SHA-256 of the file of the image in a place.
    """
    for name in class_names:
        yield line({"class": name})
    for place, item in enumerate(items):
        yield line({"key": item.key, "label": item.label, "sha256": digest(place)})


def listing_sum(class_names: Sequence[str], items: Sequence[Item]) -> str:
    """SHA-256 over the names of classes and images."""
    return Summed(listing_lines(class_names, items)).all().sha256


def read_listing(lines: Iterable[bytes]) -> Listed:
    """A listing.

    Raises:
        UnsoundError: It is none.

    Example:
        >>> read_listing([b'{"class": "owl"}', b'{"key": "owl/1.png", "label": 0, "sha256": null}'])
        Listed(class_names=['owl'], images=[('owl/1.png', 0, None)])
    """
    found = Listed([], [])
    for one in lines:
        row: dict[str, Any] = parse(one, _CLASS if one.startswith(b'{"class"') else _IMAGE)
        if "class" in row:
            found.class_names.append(row["class"])
            continue
        if row["label"] >= len(found.class_names):
            raise UnsoundError(f"{row['key']!r} has label {row['label']}, there are {len(found.class_names)} classes")
        found.images.append((row["key"], row["label"], row["sha256"]))
    return found


def taken_up(source: Source, listed: Listed, out: str) -> tuple[Source, list[str], list[str]]:
    """The set of a run that was begun, in the place of what lies in its folder today.

    Args:
        source: What lies there.
        listed: What lay there when the run began.
        out: The run's folder, for the message.

    Returns:
        The set, the keys of those images that are gone, and the keys of those that came since.

    Raises:
        DataError: It is another folder: no image of the run is there, or all have another content.
    """
    if not source.items or not listed.images:
        return source, [], []  # nothing that could be compared; both are refused as soon as they are looked at
    now = {item.key: item for item in source.items}
    reader = source.items[0].reader
    items = [Item(key, listed.class_names[label], label, reader, digest) for key, label, digest in listed.images]
    there = [item for item in items if item.key in now]
    remedy = "give the folder that it was started with, or pass --overwrite to start over"
    if not there:
        raise DataError(
            f"{source.name} has none of the {len(items)} images that the run in {out} was started with, such as "
            f"{items[0].key}; {remedy}"
        )
    known = [item for item in there if item.sha256 is not None]
    sample = known[:: -(-len(known) // _SAMPLE)] if known else []
    if sample and not any(map(_same, sample)):
        raise DataError(
            f"{source.name} holds other images than those that the run in {out} was begun with, under the same "
            f"names, such as {sample[0].key}; {remedy}"
        )
    keys = {item.key for item in items}
    gone = [item.key for item in items if item.key not in now]
    return replace(source, items=items, class_names=listed.class_names), gone, [key for key in now if key not in keys]


def _same(item: Item) -> bool:
    try:
        return hashlib.sha256(item.reader.read(item.key)).hexdigest() == item.sha256
    except DataError:
        return True  # not to be read today, which is another fault
