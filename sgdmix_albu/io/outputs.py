"""Where a command is to write: looked at before any work, so that none is done in vain."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

import fsspec

from sgdmix_albu.errors import DataError
from sgdmix_albu.io.files import TEMPORARY, refusals_named
from sgdmix_albu.io.places import local_path
from sgdmix_albu.io.storage import Storage


def check_output(out: str | os.PathLike[str]) -> None:
    """Refuse a folder that cannot be written, or a URL that fsspec has no driver for.

    The store behind a URL is asked when the first file is written.

    Args:
        out: A folder that need not be there, or a URL that fsspec understands.

    Raises:
        DataError: A file lies there or above it, the operating system refuses to write there, or it was a URL before
            pathlib took a slash from it.

    Example:
        >>> check_output("/dev/null/report")
        Traceback (most recent call last):
        ...
        sgdmix_albu.errors.DataError: cannot write /dev/null/report: /dev/null is a file
    """
    folder = local_path(out)
    if folder is None:
        Storage(out)
        return
    _check_no_url(os.fspath(out))
    above = next(one for one in (folder, *folder.absolute().parents) if os.path.lexists(one))
    if not above.is_dir():
        raise DataError(f"cannot write {folder}: {above} is a file")
    with refusals_named(folder):
        try:
            tempfile.TemporaryFile(prefix=TEMPORARY, dir=above).close()
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(folder)) from error


def local_output(out: str | os.PathLike[str], *, file: bool = False) -> Path:
    """A folder of this machine that can be written; it need not be there.

    Args:
        out: Its path, or a ``file://`` URL.
        file: It is the path of a file in such a folder.

    Raises:
        DataError: As of :func:`check_output`; or it is the URL of another place.

    Example:
        >>> local_output("s3://bucket/report")
        Traceback (most recent call last):
        ...
        sgdmix_albu.errors.DataError: cannot write s3://bucket/report: expected a path on this machine, not a URL ...
    """
    path = local_path(out)
    if path is None:
        raise DataError(
            f"cannot write {os.fspath(out)}: expected a path on this machine, not a URL (only generate and mix write "
            "to one); write here, then copy"
        )
    check_output(path.parent if file else path)
    return path


def check_unclaimed(folder: Path, foreign: Iterable[str], ours: str) -> None:
    """Refuse a folder that is somebody else's: in one of photographs, what is written would be one more class.

    Args:
        folder: Where the output goes.
        foreign: Names in it, if nothing there is an earlier output.
        ours: What it might hold: "an earlier demo".

    Raises:
        DataError: There is such a name.

    Example:
        >>> check_unclaimed(Path("photos"), ["owl"], "an earlier demo")
        Traceback (most recent call last):
        ...
        sgdmix_albu.errors.DataError: expected photos to be empty or to hold an earlier demo, found 'owl' in it; ...
    """
    first = min(foreign, default=None)
    if first is not None:
        raise DataError(
            f"expected {folder} to be empty or to hold {ours}, found {first!r} in it; choose another folder"
        )


def _check_no_url(text: str) -> None:
    scheme = re.match(r"([a-z][a-z0-9+.-]+):/(?!/)", text)
    if scheme and scheme[1] in fsspec.available_protocols():
        raise DataError(f"expected a folder or a URL, got {text}: pass a URL as text, pathlib takes one of its slashes")
