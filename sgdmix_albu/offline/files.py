"""Writing into the output folder, and nowhere else: each file whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from sgdmix_albu.errors import DataError
from sgdmix_albu.files import TEMPORARY, refusals_named, stays_below, write_whole
from sgdmix_albu.places import check_apart, local_path

__all__ = ["METADATA", "OutputFolder"]

METADATA = "metadata.jsonl"  # the name that Hugging Face's imagefolder looks for
_PLAN = ".sgdmix-plan.jsonl"
_MARK = "sgdmix_albu"


class OutputFolder:
    """A folder that is being filled.

    While it is, the names of all files to come stand in a hidden plan file, so that the remains of an
    interrupted run can be told from the user's own files. Metadata is written last and ends the run.

    Args:
        path: The folder; made if it is not there.
        overwrite: Go on although it is not empty.
        source: The folder that is read, which must lie apart; None where nothing on disk is read.

    Raises:
        DataError: Not a folder, not empty, not writable, holds another tool's metadata, or one of the two
            folders lies inside the other.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, overwrite: bool = False, source: str | os.PathLike[str] | None = None
    ) -> None:
        check_apart(path, source)
        local = local_path(path)
        if local is None:
            raise DataError(f"expected a folder on this machine to write, got {path}")
        self.path = local
        with refusals_named(self.path):
            if self.path.exists() and not self.path.is_dir():
                raise DataError(f"expected a folder to write, {self.path} is a file")
            self.path.mkdir(parents=True, exist_ok=True)
            if any(self.path.iterdir()) and not overwrite:
                raise DataError(f"{self.path} is not empty; choose another folder, or pass --overwrite")
            self._earlier = self._files_of_earlier_run()
            with tempfile.TemporaryFile(dir=self.path):
                pass  # better to learn now than after hours that nothing can be written here

    def begin(self, names: Iterable[str]) -> None:
        """Remove what an earlier run left here, and note the names of the files to come."""
        with refusals_named(self.path):
            (self.path / METADATA).unlink(missing_ok=True)
            for file in self._earlier:
                file.unlink(missing_ok=True)
            for folder in sorted({file.parent for file in self._earlier} - {self.path}, reverse=True):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
        self.write_lines(_PLAN, ({"file_name": name, "versions": {_MARK: None}} for name in names))

    def finish(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the metadata, one row for each file that is there, and drop the plan."""
        self.write_lines(METADATA, rows)
        with refusals_named(self.path):
            (self.path / _PLAN).unlink()

    def write_lines(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """A file of JSON lines."""

        def write(file: BinaryIO) -> None:
            for row in rows:
                # ASCII: a name may hold a line separator that some readers of text files break lines at.
                file.write(json.dumps(row, allow_nan=False).encode() + b"\n")

        self.write(name, write)

    def write(self, name: str, content: Callable[[BinaryIO], None]) -> None:
        """Let ``content`` write a file that appears under its name when it is complete and on disk."""
        write_whole(self.inside(name), content, unfinished_in=self.path)

    def inside(self, name: str) -> Path:
        """Where ``name`` lies in this folder.

        Raises:
            DataError: It would lie outside, by ``..``, an absolute name or a link.
        """
        if not stays_below(name):
            raise DataError(f"refused to write {name!r}: it does not lie in {self.path}")
        path = self.path.joinpath(*PurePosixPath(name).parts)
        if not path.parent.resolve().is_relative_to(self.path.resolve()):
            raise DataError(f"refused to write {path}: a link leads out of {self.path}")
        return path

    def _files_of_earlier_run(self) -> list[Path]:
        found = [path for path in self.path.glob(f"{TEMPORARY}*.tmp") if path.is_file()]
        for name in (METADATA, _PLAN):
            path = self.path / name
            if path.is_file():
                found += [self.inside(row) for row in _own_rows(path)]
        return found


def _own_rows(path: Path) -> Iterator[str]:
    """File names in metadata that this package wrote; anyone else's is not ours to replace."""
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
            ours = _MARK in row["versions"] and isinstance(row["file_name"], str)
        except (ValueError, KeyError, TypeError):
            ours = False
        if not ours:
            raise DataError(f"{path} was not written by sgdmix, so it is not replaced; choose another folder")
        yield row["file_name"]
