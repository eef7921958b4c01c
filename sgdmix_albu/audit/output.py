"""A report's folder: all its files appear together, and only a report's own files are ever replaced."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from sgdmix_albu.errors import DataError
from sgdmix_albu.io.files import LARGEST, read_regular, refusals_named, umask
from sgdmix_albu.io.lock import locked
from sgdmix_albu.io.records import UnsoundError, items, parse, record, text

__all__ = ["check_folder", "write_together"]

_INDEX = record({"files": items(text(255))}, others=True)


def check_folder(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that cannot be written, before any work.

    Raises:
        DataError: A file, or a folder with something in it and ``overwrite`` is False.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"expected a folder to write to, {folder} is a file")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise DataError(f"{folder} is not empty; choose another folder, or pass overwrite to replace an earlier report")


def write_together(folder: Path, index: str, contents: Mapping[str, str | Image.Image], *, overwrite: bool) -> None:
    """Write all files beside the folder, then move them there; an earlier report's files go first.

    Args:
        folder: Where the report goes.
        index: The JSON file among them whose "files" names all of them, so that the next run can replace them.
        contents: Text or picture by file name.
        overwrite: Whether there may be something in the folder.

    Raises:
        DataError: Another process has filled the folder meanwhile, or does so now; or the operating system refused.
    """
    with refusals_named(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for name, content in contents.items():
                if isinstance(content, str):
                    (fresh / name).write_text(content, encoding="utf-8")
                else:
                    content.save(fresh / name)
            fresh.chmod(0o777 & ~umask())
            if overwrite and folder.is_dir() and any(folder.iterdir()):
                with locked(folder, "sgdmix audit or drift"):
                    for name in _earlier_files(folder, index):
                        (folder / name).unlink()
                    for name in contents:
                        (fresh / name).replace(folder / name)
            else:
                _moved(fresh, folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _moved(fresh: Path, folder: Path) -> None:
    try:
        fresh.replace(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise DataError(f"{folder} was filled by another process meanwhile; choose another folder") from error


def _earlier_files(folder: Path, index: str) -> list[str]:
    """Names that an earlier report says it wrote; only plain names, whatever its file says."""
    try:
        names = parse(read_regular(folder / index, LARGEST), _INDEX)["files"]
    except (DataError, UnsoundError):
        return []
    return [name for name in names if Path(name).name == name and (folder / name).is_file()]
