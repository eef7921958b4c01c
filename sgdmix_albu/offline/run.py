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
from sgdmix_albu.offline.expander import PLAN, TRIES, done_name
from sgdmix_albu.offline.manifest import METADATA
from sgdmix_albu.offline.manifest import is_there, manifest_row
from sgdmix_albu.offline.notes import note_bytes, read_note
from sgdmix_albu.offline.shards import is_shard
from sgdmix_albu.offline.source import Item, Skipped
from sgdmix_albu.offline.storage import Storage
from sgdmix_albu.offline.tasks import Chunk, Task, chunks_of, read_tasks, task_line

__all__ = ["QUARANTINE", "RUN", "Run", "read_run"]

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
        self.planned: dict[str, Any] | None = None  # rows and sum of the plan, and what it leaves out
        self.made: dict[str, Any] | None = None  # rows and sum of the manifest, and sums of its chunks

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
        begun = self.out.has(RUN)
        if begun and not overwrite:
            about = read_run(self.out)
            _check_same(self.out.root, about["settings"], self.wanted)
            self.planned, self.made = about["plan"], about["manifest"]
        else:
            if not begun:
                self._check_empty()
            self._clear()
            self._note()  # from here on it is the new run's folder
            for name in (PLAN, QUARANTINE):
                self.out.remove(name)
        self.out.remove(TRIES)  # an interruption is not the work's fault
        self.out.sweep()

    def plan(self, tasks: Iterable[Task], left_out: Counter[str], unusable: Sequence[Skipped]) -> None:
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
        self.planned = {
            "rows": rows,
            "sha256": digest.hexdigest(),
            "left_out": dict(left_out),
            "unusable": [[one.key, one.reason] for one in unusable],
        }
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
        """Whether the manifest is there as it was written, with a row for each line of the plan and every file.

        One that is not is taken away; what it still says of files that are there is kept as notes.
        """
        if not self.out.has(METADATA):
            return False
        sizes, digest, count, sound = self.out.sizes(), hashlib.sha256(), 0, True
        for line in self.out.lines(METADATA):
            digest.update(line)
            count += 1
            row = manifest_row(line)
            sound = sound and row is not None and is_there(row, sizes)
        as_written = self.made is not None and digest.hexdigest() == self.made["sha256"]
        if sound and as_written and self.planned is not None and count == self.planned["rows"]:
            self.out.remove(_WORK)  # the run may have ended between its last two steps
            return True
        self._restore_notes(sizes)
        self.out.remove(METADATA)
        return False

    def left(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """The chunks that are not done: without a note, or an image of theirs is missing. None of them has a note."""
        sizes = self.out.sizes()
        left = []
        for chunk in chunks:
            name = done_name(chunk.number)
            if name in sizes:
                if self._done(chunk, sizes):
                    continue
                self.out.remove(name)
            left.append(chunk)
        return left

    def _done(self, chunk: Chunk, sizes: Mapping[str, int]) -> bool:
        """An image that could not be read the last time is tried again: a network may have been down."""
        rows = read_note(self.out.read(done_name(chunk.number)))
        if rows is None or len(rows) != chunk.rows:
            return False
        return all("skipped" not in row and is_there(row, sizes) for row in rows)

    def tasks(self, chunks: Iterable[Chunk]) -> Iterator[Task]:
        """The outputs of some chunks."""
        for chunk in chunks:
            yield from read_tasks(self.out.read(PLAN, chunk.start, chunk.end))

    def quarantined(self) -> list[Skipped]:
        """The images of a finished run that could not be used, and why.

        Raises:
            DataError: The list of them is damaged.
        """
        found = []
        for line in self.out.lines(QUARANTINE):
            try:
                row = json.loads(line)
                found.append(Skipped(str(row["source"]), str(row["reason"])))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                path = self.out.path(QUARANTINE)
                remedy = f"remove {self.out.path(METADATA)}, and both are made again"
                raise DataError(f"{path} is damaged; {remedy}") from error
        return found

    def finish(self, chunks: Sequence[Chunk]) -> None:
        """Write the manifest from the notes, list what could not be used, and drop what the run needed."""
        assert self.planned is not None  # chunks are a plan's
        reasons = dict(self.planned["unusable"])
        digest, count, sums = hashlib.sha256(), 0, []
        for chunk in chunks:
            rows = self._noted(chunk)
            reasons |= {row["skipped"]: row["reason"] for row in rows if "skipped" in row}
            lines = _lines(rows)
            digest.update(lines)
            count += lines.count(b"\n")
            sums.append(_short_sum(lines))
        listed = (json.dumps({"source": key, "reason": reason}).encode() + b"\n" for key, reason in reasons.items())
        self.out.write_lines(QUARANTINE, listed)
        self.out.sweep()  # of workers that were lost with their machine
        self.made = {"rows": count, "sha256": digest.hexdigest(), "chunks": sums}
        self._note()
        # The last: a folder with a manifest is finished.
        self.out.write_lines(METADATA, (_lines(self._noted(chunk)) for chunk in chunks))
        self.out.remove(_WORK)

    def _note(self) -> None:
        about = {"schema": _SCHEMA, "settings": self.wanted, "plan": self.planned, "manifest": self.made}
        self.out.write(RUN, json.dumps({**about, "sha256": _sum_of(about)}, indent=1).encode() + b"\n")

    def _check_empty(self) -> None:
        strangers = [name for name in self.out.sizes() if not name.startswith(".sgdmix")]
        if strangers:
            raise DataError(f"{self.out.root} holds files of others, such as {strangers[0]}; choose another folder")

    def _clear(self) -> None:
        """Remove what an earlier run wrote; what others put there stays.

        Its settings and plan go last: interrupted, it is a run that lacks images.
        """
        self.out.remove(METADATA)
        self.out.remove(_WORK)
        there = self.out.sizes()
        if PLAN in there:
            for line in self.out.lines(PLAN):
                with contextlib.suppress(DataError):  # the plan may be what is damaged
                    (task,) = read_tasks(line)
                    if task.name in there:
                        self.out.remove(task.name)
        for name in filter(is_shard, there):
            self.out.remove(name)
        self.out.prune()

    def _noted(self, chunk: Chunk) -> list[dict[str, Any]]:
        rows = read_note(self.out.read(done_name(chunk.number)))
        if rows is None:
            raise DataError(f"{self.out.path(done_name(chunk.number))} was damaged meanwhile; run the same again")
        return rows

    def _restore_notes(self, sizes: Mapping[str, int]) -> None:
        """The notes that the manifest was made from, of those chunks that are still whole.

        Manifest and plan have one order, so that both are read once. A row in a wrong place, which we never wrote,
        ends it: what follows is made again.
        """
        if self.made is None:
            return
        rows = (row for row in map(manifest_row, self.out.lines(METADATA)) if row is not None and is_there(row, sizes))
        row = next(rows, None)
        for chunk in self.chunks(self.wanted["chunk"]):
            names = {task.name for task in self.tasks([chunk])}
            found = []
            while row is not None and row["file_name"] in names:
                found.append(row)
                row = next(rows, None)
            if len(found) == len(names) and _short_sum(_lines(found)) == self.made["chunks"][chunk.number]:
                self.out.write(done_name(chunk.number), note_bytes(found))


def read_run(out: Storage) -> dict[str, Any]:
    """What a folder's run was asked for, what it planned and what it wrote.

    Raises:
        DataError: Damaged, or of another version.
    """
    try:
        about = json.loads(out.read(RUN))
        schema, told = about["schema"], about.pop("sha256")
        sound = told == _sum_of(about)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise DataError(f"{out.path(RUN)} is damaged; pass --overwrite to begin anew")
    if schema != _SCHEMA:
        raise DataError(f"{out.path(RUN)} has schema {schema!r}, this version reads {_SCHEMA}")
    return about  # type: ignore[no-any-return]


def _lines(noted: Iterable[Mapping[str, Any]]) -> bytes:
    """The manifest's lines of a chunk."""
    made = (json.dumps(row, allow_nan=False).encode() for row in noted if "skipped" not in row)
    return b"".join(line + b"\n" for line in made)


def _short_sum(lines: bytes) -> str:
    """Enough to see damage, and short: there is one for each chunk."""
    return hashlib.sha256(lines).hexdigest()[:16]


def _sum_of(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True, allow_nan=False).encode()).hexdigest()


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
