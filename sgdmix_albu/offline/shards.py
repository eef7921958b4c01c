"""Tar shards as WebDataset reads them: KEY.png, KEY.cls and KEY.json for each sample."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

__all__ = ["is_shard", "member_name", "shard_bytes", "shard_name"]


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
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for row, image in samples:
            name = PurePosixPath(member_name(row["file_name"]))
            _add(tar, str(name), image)
            _add(tar, str(name.with_suffix(".cls")), str(row["label_index"]).encode())
            _add(tar, str(name.with_suffix(".json")), json.dumps(row, allow_nan=False).encode())
    return content.getvalue()


def member_name(file_name: str) -> str:
    """An image's name in its shard: WebDataset takes a sample's key up to the first dot of its file name.

    Other dots are written as in a URL, so that different names stay different.

    Example:
        >>> member_name("no.1 owl/1.b-00.png")
        'no.1 owl/1%2Eb-00.png'
    """
    path = PurePosixPath(file_name)
    return path.with_name(path.stem.replace("%", "%25").replace(".", "%2E") + path.suffix).as_posix()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # no time, no owner: nothing that differs between two runs
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
