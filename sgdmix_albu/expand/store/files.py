"""The output folder of ``sgdmix mix``: each file whole or not at all, by one process at a time, others' files kept."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sgdmix_albu.errors import DataError
from sgdmix_albu.expand.store.manifest import METADATA, Written, output_name, write_note
from sgdmix_albu.io.files import path_inside, refusals_named, write_whole
from sgdmix_albu.io.lock import HOLDER, LOCK, locked
from sgdmix_albu.io.places import check_apart, local_path
from sgdmix_albu.io.records import UnsoundError, anything, parse, record
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.io.sums import Summed

__all__ = ["METADATA", "MIXED", "OutputFolder"]

MIXED = ".sgdmix-mixed.json"  # what the manifest must be
_PLAN = ".sgdmix-plan.jsonl"
_RUN = ".sgdmix-run.json"  # of `sgdmix generate`, whose folders are not ours
_OWN_ROW = record({"file_name": output_name, "versions": record({"sgdmix_albu": anything}, others=True)}, others=True)


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
        self.path, self.overwrite = local, overwrite
        with refusals_named(self.path):
            if self.path.exists() and not self.path.is_dir():
                raise DataError(f"expected a folder to write, {self.path} is a file")
            self.path.mkdir(parents=True, exist_ok=True)
            if not (self.path / LOCK).exists():  # else whoever holds it is the better answer
                self._check_empty()
            with tempfile.TemporaryFile(dir=self.path):
                pass  # better to learn now than after hours that nothing can be written here
        self._earlier: list[Path] = []

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else fills the folder meanwhile, from the look at what is there to the metadata.

        Raises:
            DataError: Somebody does; or as when it was made.
        """
        with locked(self.path, "sgdmix mix"):
            with refusals_named(self.path):
                self._check_empty()
                self._earlier = self._files_of_earlier_run()
            yield

    def begin(self, names: Iterable[str]) -> None:
        """Remove what an earlier run left here, and note the names of the files to come."""
        with refusals_named(self.path):
            for name in (METADATA, MIXED):
                (self.path / name).unlink(missing_ok=True)
            for file in self._earlier:
                file.unlink(missing_ok=True)
            for folder in sorted({file.parent for file in self._earlier} - {self.path}, reverse=True):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
        self.write_lines(_PLAN, ({"file_name": name, "versions": {"sgdmix_albu": None}} for name in names))

    def finish(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the metadata, one row for each file that is there, and drop the plan."""
        written = self.write_lines(METADATA, rows)
        self.write(MIXED, write_note(written))
        with refusals_named(self.path):
            (self.path / _PLAN).unlink()

    def write_lines(self, name: str, rows: Iterable[Mapping[str, Any]]) -> Written:
        """A file of JSON lines; what was written."""
        # ASCII: a name may hold a line separator that some readers of text files break lines at.
        lines = Summed(json.dumps(row, allow_nan=False).encode() + b"\n" for row in rows)
        write_whole(path_inside(self.path, name), lambda file: file.writelines(lines), unfinished_in=self.path)
        return Written(lines.rows, lines.sha256)

    def write(self, name: str, content: bytes) -> None:
        """A file that appears under its name when it is complete and on disk.

        Raises:
            DataError: It would lie outside, or the operating system refused.
        """
        write_whole(path_inside(self.path, name), lambda file: file.write(content), unfinished_in=self.path)

    def _check_empty(self) -> None:
        there = {path.name for path in self.path.iterdir()} - {LOCK, HOLDER}
        if _RUN in there:
            raise DataError(f"{self.path} is a folder of sgdmix generate; choose another")
        if there and not self.overwrite:
            raise DataError(f"{self.path} is not empty; choose another folder, or pass --overwrite")

    def _files_of_earlier_run(self) -> list[Path]:
        found: list[Path] = []
        storage = Storage(self.path)
        for name in (METADATA, _PLAN):
            if storage.has(name):
                found += [path_inside(self.path, row) for row in _own_rows(storage, name)]
        return found


def _own_rows(storage: Storage, name: str) -> Iterator[str]:
    """File names in metadata that this package wrote; anyone else's is not ours to replace."""
    for number, line in enumerate(storage.lines(name), start=1):
        try:
            yield parse(line, _OWN_ROW)["file_name"]
        except UnsoundError as error:
            raise DataError(
                f"{storage.path(name)} was not written by sgdmix, so it is not replaced; choose another folder "
                f"(line {number}: {error})"
            ) from error
