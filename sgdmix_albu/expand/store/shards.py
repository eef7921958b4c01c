"""Tar shards as WebDataset reads them: KEY.png, KEY.cls and KEY.json for each sample.

What a shard holds, and where, follows from the manifest's rows and the images. So nobody reads a tar archive here: one
that is damaged, or made to harm (members that are sparse, of negative or endless size), is other bytes and no more.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, BinaryIO


def shard_name(number: int) -> str:
    """The file of a shard.

    Example:
        >>> shard_name(7)
        'shard-000007.tar'
    """
    return f"shard-{number:06d}.tar"


def is_shard(name: str) -> bool:
    """Whether a file has a shard's name."""
    return re.fullmatch(r"shard-\d{6,}\.tar", name) is not None


def shard_bytes(samples: Iterable[tuple[Mapping[str, Any], bytes]]) -> bytes:
    """A tar file of images with their metadata rows; the same samples give the same bytes.

    Example:
        >>> row = {"file_name": "owl/1.b-00.png", "label_index": 3}
        >>> with tarfile.open(fileobj=io.BytesIO(shard_bytes([(row, b"...")]))) as tar:
        ...     tar.getnames()
        ['owl/1%2Eb-00.png', 'owl/1%2Eb-00.cls', 'owl/1%2Eb-00.json']
    """
    content = io.BytesIO()
    _write(content, samples)
    return content.getvalue()


def image_places(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, int]]:
    """Where in its shard each image begins, and its size in bytes, by the manifest's rows of that shard.

    Example:
        >>> row = {"file_name": "owl/1.png", "label_index": 3, "bytes": 3, "shard_bytes": 10240}
        >>> ((start, size),) = image_places([row])
        >>> shard_bytes([(inside(row), b"abc")])[start : start + size]
        b'abc'
    """
    place = 0
    for row in rows:
        image, *others = _members(inside(row))
        place += len(_header(image, row["bytes"]))
        yield place, row["bytes"]
        place += _padded(row["bytes"])
        place += sum(len(_header(name, len(content))) + _padded(len(content)) for name, content in others)


def same_shard(file: BinaryIO, samples: Iterable[tuple[Mapping[str, Any], bytes]]) -> bool:
    """Whether an open file is what :func:`shard_bytes` makes of the samples; one of them is in memory at a time."""
    file.seek(0)
    comparison = _Comparison(file)
    _write(comparison, samples)
    return comparison.same and not file.read(1)


def inside(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a shard says of an image: its row of the manifest, but for the shard's size, which is known afterwards."""
    return {name: value for name, value in row.items() if name != "shard_bytes"}


class _Comparison:
    """A file to write into that compares what it is given with what another has."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.same = True
        self._written = 0

    def write(self, content: bytes) -> int:
        self.same = self.same and self._file.read(len(content)) == content
        self._written += len(content)
        return len(content)

    def tell(self) -> int:
        return self._written


def _write(file: io.BytesIO | _Comparison, samples: Iterable[tuple[Mapping[str, Any], bytes]]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for row, image in samples:
            name, *others = _members(row)
            for member, content in ((name, image), *others):
                tar.addfile(_member(member, len(content)), io.BytesIO(content))


def member_name(file_name: str) -> str:
    """An image's name in its shard: WebDataset takes a sample's key up to the first dot of its file name.

    Other dots are written as in a URL, so that different names stay different.

    Example:
        >>> member_name("no.1 owl/1.b-00.png")
        'no.1 owl/1%2Eb-00.png'
    """
    path = PurePosixPath(file_name)
    return path.with_name(path.stem.replace("%", "%25").replace(".", "%2E") + path.suffix).as_posix()


def _members(row: Mapping[str, Any]) -> tuple[str, tuple[str, bytes], tuple[str, bytes]]:
    """The name of the image in its shard, and names and contents of what stands beside it."""
    name = PurePosixPath(member_name(row["file_name"]))
    return (
        str(name),
        (str(name.with_suffix(".cls")), str(row["label_index"]).encode()),
        (str(name.with_suffix(".json")), json.dumps(row, allow_nan=False).encode()),
    )


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)  # no time, no owner: nothing that differs between two runs
    member.size = size
    return member


def _header(name: str, size: int) -> bytes:
    return _member(name, size).tobuf(tarfile.PAX_FORMAT, tarfile.ENCODING, "surrogateescape")


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
