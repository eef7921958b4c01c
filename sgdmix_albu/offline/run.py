"""A run on disk: what was asked for, what is planned, what is done, and so what is left to do."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sgdmix_albu.errors import DataError
from sgdmix_albu.offline.expander import PLAN, done_name
from sgdmix_albu.offline.files import METADATA
from sgdmix_albu.offline.notes import note_bytes, read_note
from sgdmix_albu.offline.source import Item, Skipped
from sgdmix_albu.offline.storage import Storage
from sgdmix_albu.offline.tasks import Chunk, Task, check_below, chunks_of, read_tasks, task_line

__all__ = ["QUARANTINE", "RUN", "Run", "manifest_rows"]

RUN, QUARANTINE = ".sgdmix-run.json", ".sgdmix-quarantine.jsonl"
_WORK, _LOCK = ".sgdmix", ".sgdmix-lock"
_SCHEMA = 1


class Run:
    """The state of an output folder. While somebody works on it, it is locked; see :meth:`locked`.

    Args:
        out: The folder.
        settings: What the outputs follow from; a run is taken up again under the same settings only.
        listing: The images that there are.
    """

    def __init__(self, out: Storage, settings: Mapping[str, Any], listing: Sequence[Item]) -> None:
        self.out = out
        digest = hashlib.sha256("\n".join(item.key for item in listing).encode()).hexdigest()
        self.wanted = {**settings, "images": len(listing), "images_sha256": digest}
        self.planned: dict[str, Any] | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else works on the folder meanwhile; a process that is killed holds no lock.

        Raises:
            DataError: Somebody does.
        """
        if not self.out.local:
            yield  # an object store has no locks
            return
        path = Path(self.out.path(_LOCK))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path, timeout=0)
            lock.acquire()
        except Timeout:
            raise DataError(f"another sgdmix process is working on {self.out.root}") from None
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror or error}") from error
        try:
            yield
        finally:
            lock.release()

    def begin(self, *, overwrite: bool) -> None:
        """Take up the run that is there, or begin one.

        Raises:
            DataError: The folder holds something else, or a run with other settings.
        """
        if self.out.has(RUN) and not overwrite:
            about = self._read()
            _check_same(self.out.root, about["settings"], self.wanted)
            self.planned = about["plan"]
        else:
            self._clear(overwrite)
            self._note()
        self.out.sweep()

    def plan(self, tasks: Iterable[Task], left_out: Counter[str]) -> None:
        """Write the plan; ``left_out`` is complete when the tasks have been read."""
        digest, rows = hashlib.sha256(), 0

        def lines() -> Iterator[bytes]:
            nonlocal rows
            for task in tasks:
                line = task_line(task)
                digest.update(line)
                rows += 1
                yield line

        self.out.write_lines(PLAN, lines())
        self.planned = {"rows": rows, "sha256": digest.hexdigest(), "left_out": dict(left_out)}
        self._note()

    def chunks(self, rows: int) -> list[Chunk]:
        """The plan's stretches.

        Raises:
            DataError: The plan is not what was written.
        """
        digest = hashlib.sha256()

        def lines() -> Iterator[bytes]:
            for line in self.out.lines(PLAN):
                digest.update(line)
                yield line

        found = list(chunks_of(lines(), rows))
        if self.planned is None or digest.hexdigest() != self.planned["sha256"]:
            raise DataError(f"{self.out.path(PLAN)} is not what was written; pass --overwrite to begin anew")
        return found

    def finished(self) -> bool:
        """Whether the manifest is there, and every file that it names. A manifest that lies is taken away."""
        if not self.out.has(METADATA):
            return False
        sizes = self.out.sizes()
        rows = _readable(self.out.lines(METADATA))
        whole = [row for row in rows if row is not None and _there(row, sizes)]
        if len(whole) == len(rows):
            self.out.remove(_WORK)  # the run may have ended between its last two steps
            return True
        self._restore_notes(whole)
        self.out.remove(METADATA)
        return False

    def left(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """The chunks that are not done: without a note, or a file that it names is not there whole."""
        sizes = self.out.sizes()
        return [chunk for chunk in chunks if done_name(chunk.number) not in sizes or not self._done(chunk, sizes)]

    def _done(self, chunk: Chunk, sizes: Mapping[str, int]) -> bool:
        rows = read_note(self.out.read(done_name(chunk.number)))
        return rows is not None and len(rows) == chunk.rows and all(_there(row, sizes) for row in rows)

    def finish(self, chunks: Sequence[Chunk], unusable: Sequence[Skipped]) -> list[Skipped]:
        """Write the manifest from the notes, list what could not be used, and drop what the run needed."""
        skipped = list(unusable)
        for row in self._noted(chunks):
            if "skipped" in row:
                skipped.append(Skipped(row["skipped"], row["reason"]))
        listed = [json.dumps({"source": one.key, "reason": one.reason}).encode() + b"\n" for one in skipped]
        self.out.write(QUARANTINE, b"".join(listed))
        # The last: a folder with a manifest is finished.
        made = (row for row in self._noted(chunks) if "skipped" not in row)
        self.out.write_lines(METADATA, (json.dumps(row, allow_nan=False).encode() + b"\n" for row in made))
        self.out.remove(_WORK)
        return skipped

    def _note(self) -> None:
        about = {"schema": _SCHEMA, "settings": self.wanted, "plan": self.planned}
        self.out.write(RUN, json.dumps({**about, "sha256": _sum_of(about)}, indent=1).encode() + b"\n")

    def _read(self) -> dict[str, Any]:
        path = self.out.path(RUN)
        try:
            about = json.loads(self.out.read(RUN))
            schema, told = about["schema"], about.pop("sha256")
            sound = told == _sum_of(about)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            sound = False
        if not sound:
            raise DataError(f"{path} is damaged; pass --overwrite to begin anew")
        if schema != _SCHEMA:
            raise DataError(f"{path} has schema {schema!r}, this version reads {_SCHEMA}")
        return about  # type: ignore[no-any-return]

    def _clear(self, overwrite: bool) -> None:
        """Remove what an earlier run left; what others put there stays."""
        if not self.out.has(RUN):
            strangers = [name for name in self.out.sizes() if not name.startswith(".sgdmix")]
            if strangers:
                raise DataError(f"{self.out.root} holds files of others, such as {strangers[0]}; choose another folder")
        if overwrite and self.out.has(PLAN):
            there = self.out.sizes()
            for task in read_tasks(b"".join(self.out.lines(PLAN))):
                if task.name in there:
                    self.out.remove(task.name)
            for name in there:
                if name.startswith("shard-") and name.endswith(".tar"):
                    self.out.remove(name)
        for name in (METADATA, PLAN, QUARANTINE, RUN, _WORK):
            self.out.remove(name)

    def _noted(self, chunks: Iterable[Chunk]) -> Iterator[dict[str, Any]]:
        for chunk in chunks:
            rows = read_note(self.out.read(done_name(chunk.number)))
            if rows is None:
                raise DataError(f"{self.out.path(done_name(chunk.number))} was damaged meanwhile; run the same again")
            yield from rows

    def _restore_notes(self, whole: Sequence[dict[str, Any]]) -> None:
        """The notes that the manifest was made from, of those chunks that are still whole."""
        rows = {row["file_name"]: row for row in whole}
        for chunk in self.chunks(self.wanted["chunk"]):
            tasks = read_tasks(self.out.read(PLAN, chunk.start, chunk.end))
            if all(task.name in rows for task in tasks):
                self.out.write(done_name(chunk.number), note_bytes(rows[task.name] for task in tasks))


def _sum_of(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True, allow_nan=False).encode()).hexdigest()


def manifest_rows(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Rows of a manifest.

    Raises:
        DataError: A line is not one.
    """
    for number, row in enumerate(_readable(lines), start=1):
        if row is None:
            raise DataError(f"line {number} of {METADATA} is damaged")
        yield row


def _readable(lines: Iterable[bytes]) -> list[dict[str, Any] | None]:
    """Rows of a manifest, None for each that is none."""
    return [_row(line) for line in lines]


def _row(line: bytes) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError, DataError):
        row = json.loads(line)
        check_below(row["file_name"], row.get("shard", row["file_name"]))
        sound = isinstance(row["file_name"], str) and isinstance(row["sha256"], str) and isinstance(row["bytes"], int)
        return row if sound else None
    return None


def _there(row: Mapping[str, Any], sizes: Mapping[str, int]) -> bool:
    if "skipped" in row:
        return True
    if "shard" in row:
        return row["shard"] in sizes
    return bool(sizes.get(row["file_name"]) == row["bytes"])


def _check_same(root: str, begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    other = [
        f"{name} {begun.get(name)!r} (now {wanted.get(name)!r})"
        for name in sorted({*begun, *wanted})
        if begun.get(name) != wanted.get(name)
    ]
    if other:
        raise DataError(
            f"the run in {root} was begun with other settings: {', '.join(other[:4])}; go on with those, choose "
            "another folder, or pass --overwrite to begin anew"
        )
