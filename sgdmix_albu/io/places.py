"""Where a path that somebody wrote lies: the one rule of all commands, and that outputs lie apart from inputs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sgdmix_albu.arguments import said
from sgdmix_albu.errors import DataError, InvalidInputError

T = TypeVar("T")

_FILE = ("file://", "local://")  # what fsspec calls this machine


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path names another place than this machine's file system: ``s3://bucket/birds``.

    Example:
        >>> is_url("s3://bucket/birds"), is_url("birds")
        (True, False)
    """
    return "://" in _text(path)


def local_path(path: str | os.PathLike[str]) -> Path | None:
    """A path on this machine, with ``~`` and ``file://`` understood; None for the URL of another place.

    Raises:
        DataError: The path is empty: a shell writes that for a variable that is not set.

    Example:
        >>> local_path("file:///birds/train"), local_path("s3://bucket/birds")
        (PosixPath('/birds/train'), None)
    """
    text = _text(path)
    if not text.strip():
        raise DataError(f"expected a path, got {text!r}: is a variable of your shell empty?")
    scheme = next(filter(text.startswith, _FILE), None)
    if scheme is not None:
        from urllib.request import url2pathname

        return Path(url2pathname(text.removeprefix(scheme).removeprefix("localhost")))
    return None if is_url(text) else Path(text).expanduser()


def _text(path: str | os.PathLike[str]) -> str:
    if not isinstance(path, str | os.PathLike):
        raise InvalidInputError(f"expected a path or a URL, got {said(path)}")
    return os.fspath(path)


def settled(path: str | os.PathLike[str]) -> str:
    """The same place from any folder: an absolute path with ``~`` replaced, links kept; a URL as it is."""
    local = local_path(path)
    return os.fspath(path) if local is None else os.path.abspath(local)  # noqa: PTH100


def settled_files(settings: T, *names: str) -> T:
    """Settings that mean the same from any folder, since workers may start elsewhere.

    Args:
        settings: A dataclass.
        names: Its fields that may name files: what is there becomes an absolute path, a hub's name stays as it is.
    """

    def there(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(there, value))
        return settled(value) if value is not None and Path(value).expanduser().exists() else value

    return replace(settings, **{name: there(getattr(settings, name)) for name in names})  # type: ignore[type-var]


def check_apart(out: str | os.PathLike[str] | None, *sources: str | os.PathLike[str] | None) -> None:
    """Refuse to write into a folder that is read, or to read from the one that is written.

    What a run leaves in its own data, the next run takes for a class. Links and relative paths are followed first.

    Args:
        out: The folder to write; None for none.
        sources: Folders to read. None and URLs of other places lie apart from every folder here; two URLs are
            compared as they are written.

    Raises:
        DataError: One of the folders lies in the other, or is the other.
    """
    if out is None:
        return
    for source in sources:
        if source is not None and _overlap(out, source):
            raise DataError(f"the folder to write, {out}, and the folder to read, {source}, must lie apart")


def _overlap(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    a, b = local_path(one), local_path(other)
    if a is None and b is None:
        first, second = (f"{os.fspath(path).rstrip('/')}/" for path in (one, other))
        return first.startswith(second) or second.startswith(first)
    if a is None or b is None:
        return False
    a, b = a.resolve(), b.resolve()
    return a.is_relative_to(b) or b.is_relative_to(a)
