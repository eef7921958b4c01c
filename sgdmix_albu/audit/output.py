"""What a report writes: settings as JSON has them, and a folder whose files appear together and replace their own."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from PIL import Image

from sgdmix_albu.errors import DataError
from sgdmix_albu.io.files import LARGEST, beside, move_folder, read_regular
from sgdmix_albu.io.lock import locked
from sgdmix_albu.io.records import UnsoundError, items, parse, record, text

_INDEX = record({"files": items(text(255))}, others=True)


def called(spec: Any) -> str:
    """How a backend, preset, model or refiner is called in a report.

    Example:
        >>> called("otsu"), called(Path("net.pt")), called(len), called({})
        ('otsu', 'net.pt', 'len', 'dict')
    """
    if isinstance(spec, str | os.PathLike):
        return os.fspath(spec)
    return getattr(spec, "__name__", None) or type(spec).__name__


def noted(**settings: Any) -> dict[str, Any]:
    """Settings for JSON: objects by what they are called, no options as None; without where the report goes.

    Example:
        >>> noted(mask=["otsu", Path("own")], saliency_options={}, seed=0, out="report", overwrite=True)
        {'mask': ['otsu', 'own'], 'saliency_options': None, 'seed': 0}
    """
    return {name: _plain(value) for name, value in settings.items() if name not in ("out", "overwrite")}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value) or None
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    return called(value)


def check_folder(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that cannot be written, before any work.

    Raises:
        DataError: A file, or a folder with something in it and ``overwrite`` is False.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"expected a folder to write to, {folder} is a file")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise DataError(
            f"{folder} is not empty; choose another folder, or replace an earlier report with --overwrite (in Python, "
            "overwrite=True)"
        )


def write_together(folder: Path, index: str, contents: Mapping[str, Any], *, overwrite: bool) -> None:
    """Write all files beside the folder, then move them there; an earlier report's files go first.

    Args:
        folder: Where the report goes.
        index: The JSON file among them whose "files" names all of them, so that the next run can replace them.
        contents: Text, picture, or what becomes JSON, by file name.
        overwrite: Whether there may be something in the folder.

    Raises:
        DataError: Another process has filled the folder meanwhile, or does so now; or the operating system refused.
    """
    with beside(folder) as fresh:
        for name, content in contents.items():
            if isinstance(content, Image.Image):
                content.save(fresh / name)
                continue
            if not isinstance(content, str):
                content = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
            (fresh / name).write_text(content, encoding="utf-8")
        if overwrite and folder.is_dir() and any(folder.iterdir()):
            with locked(folder, "sgdmix audit or drift"):
                for name in _earlier_files(folder, index):
                    (folder / name).unlink()
                for name in contents:
                    (fresh / name).replace(folder / name)
            return
        try:
            move_folder(fresh, folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise DataError(f"{folder} was filled by another process during the run; choose another folder") from error


def _earlier_files(folder: Path, index: str) -> list[str]:
    """Names that an earlier report says it wrote; only plain names, whatever its file says."""
    try:
        names = parse(read_regular(folder / index, LARGEST), _INDEX)["files"]
    except (DataError, UnsoundError):
        return []
    return [name for name in names if Path(name).name == name and (folder / name).is_file()]
