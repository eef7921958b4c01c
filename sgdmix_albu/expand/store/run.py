"""A run on disk: what was asked for, what is planned, what is done, and so what is left to do."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from sgdmix_albu.datasets.source import Item, Skipped
from sgdmix_albu.errors import DataError
from sgdmix_albu.expand.names import ATTEMPTS, LISTING, METADATA, PLAN, QUARANTINE, RUN, WORK, done_name
from sgdmix_albu.expand.plan.rows import Chunk, Row, chunks_of, names_sum, read_rows, row_line, row_name
from sgdmix_albu.expand.store.done import done_bytes, read_done
from sgdmix_albu.expand.store.finish import (
    lines_of,
    manifest_lines,
    read_quarantine,
    short_sum,
    with_every_field,
    write_quarantine,
)
from sgdmix_albu.expand.store.listing import listing_lines, listing_sum
from sgdmix_albu.expand.store.manifest import Inventory, is_there, manifest_row
from sgdmix_albu.expand.store.run_file import RunFile, check_same, read_run, write_run
from sgdmix_albu.expand.store.shards import is_shard
from sgdmix_albu.io.lock import locked
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.io.sums import Summed


class Run:
    """The state of an output folder. While somebody works on it, it is locked; see :meth:`locked`.

    Args:
        out: The folder.
        settings: What the outputs follow from; a run is taken up again under the same settings only.
        class_names: Label index to name.
        listing: The images that there were when it began.
        gone: Keys of those that are not there any more.
    """

    def __init__(
        self,
        out: Storage,
        settings: Mapping[str, Any],
        class_names: Sequence[str],
        listing: Sequence[Item],
        gone: Collection[str] = (),
    ) -> None:
        self.out, self.class_names, self.listing, self.gone = out, class_names, listing, frozenset(gone)
        self.wanted = {**settings, "images": len(listing), "images_sha256": listing_sum(class_names, listing)}
        self.planned: dict[str, Any] | None = None  # rows and sum of the plan, and what it leaves out
        self._names: dict[int, bytes] = {}  # of each chunk of the plan: a sum over its outputs' names
        self.made: dict[str, Any] | None = None  # rows and sum of the manifest, sums of its chunks, what stayed unmixed

    def locked(self) -> AbstractContextManager[None]:
        """Nobody else works on the folder meanwhile; a process that is killed holds no lock.

        Raises:
            DataError: Somebody does.
        """
        command = "sgdmix mix" if self.wanted["keep_unmixed"] else "sgdmix generate"
        if self.out.local and Path(self.out.root).is_file():
            raise DataError(f"expected a folder to write, {self.out.root} is a file")
        # An object store has no locks.
        return locked(Path(self.out.root), command) if self.out.local else nullcontext()

    def begin(self, *, overwrite: bool) -> None:
        """Take up the run that is there, or begin one.

        Raises:
            DataError: The folder holds something else, or a run with other settings.
        """
        begun = self.out.has(RUN)
        if begun and not overwrite:
            settings, self.planned, self.made = read_run(self.out)
            check_same(self.out.root, settings, self.wanted)
        else:
            if not begun:
                self._check_empty()
            self._clear()
            self._list()
            self._save()  # from here on it is the new run's folder
            for name in (PLAN, QUARANTINE):
                self.out.remove(name)
        self.out.remove(ATTEMPTS)  # an interruption is not the work's fault
        self.out.sweep()

    def plan(
        self,
        rows: Iterable[Row],
        left_out: Counter[str],
        unusable: Sequence[Skipped],
        digest_of: Callable[[int], str | None],
    ) -> None:
        """Write the plan, and of which files it is.

        Args:
            rows: Its outputs.
            left_out: Outputs that are left out, by reason; complete when the rows have been read.
            unusable: Images that are left out, and why.
            digest_of: SHA-256 of the file of the image in a place of the listing; None of one that is left out.
        """
        lines = Summed(map(row_line, rows))
        self.out.write_lines(PLAN, lines)
        self.planned = {
            "rows": lines.rows,
            "sha256": lines.sha256,
            "images_sha256": self._list(digest_of),
            "left_out": dict(left_out),
            "unusable": list(unusable),
        }
        self._save()

    def chunks(self, rows: int) -> list[Chunk]:
        """The plan's stretches.

        Raises:
            DataError: The plan is not what was written.
        """
        lines = Summed(self.out.lines(PLAN))
        found = []
        for chunk, those in chunks_of(lines, rows):
            found.append(chunk)
            self._names[chunk.number] = names_sum(map(row_name, those))
        if self.planned is None or lines.sha256 != self.planned["sha256"]:
            raise DataError(f"{self.out.path(PLAN)} does not match its checksum; pass --overwrite to start over")
        return found

    def finished(self) -> bool:
        """Whether the manifest is there as it was written, with every file, and a row for each output that can be made.

        One that is not is taken away; what it still says of files that are there is kept.
        """
        if not self.out.has(METADATA):
            return False
        if self._untouched():
            self.out.remove(WORK)  # the run may have ended between its last two steps
            return True
        sizes, lines = self.out.sizes(), Summed(self.out.lines(METADATA))
        sound = True
        for row in map(manifest_row, lines):
            sound = sound and row is not None and is_there(row, sizes)
        as_written = self.made is not None and lines.sha256 == self.made["sha256"]
        if sound and as_written and self.planned is not None and self._complete(lines.rows):
            self.out.remove(WORK)  # the run may have ended between its last two steps
            return True
        self._restore_done(sizes)
        self.out.remove(METADATA)
        return False

    def _untouched(self) -> bool:
        """Whether all is as it was written and nothing besides: told by sums, without a look at each row.

        What is not may still be finished: there may be a stranger's file.
        """
        if self.made is None or "inventory" not in self.made or self.planned is None:
            return False
        if self.made["rows"] != self.planned["rows"] or self.out.sha256(METADATA) != self.made["sha256"]:
            return False
        inventory = Inventory()
        for name, size in self.out.files():
            if not (name == METADATA or name.startswith(".sgdmix")):
                inventory.add(name, size)
        return bool(inventory.said() == self.made["inventory"])

    def _complete(self, rows: int) -> bool:
        """Whether those outputs that a sound manifest does not name are of images that are gone."""
        assert self.planned is not None
        if rows == self.planned["rows"] or not self.gone:
            return bool(rows == self.planned["rows"])
        named = (row["file_name"] for row in map(manifest_row, self.out.lines(METADATA)) if row is not None)
        name = next(named, None)
        for one in self.out.lines(PLAN):
            (planned,) = read_rows(one)
            if planned.name == name:
                name = next(named, None)
            elif not self.gone.intersection(key for _, key in planned.images):
                return False
        return name is None

    def left(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """The chunks that are not done, and of which nothing says so any more: an image may be missing."""
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
        """An image that could not be read is tried again, unless it is gone: a network may have been down."""
        rows = read_done(self.out.read(done_name(chunk.number)))
        if rows is None or len(rows) != chunk.rows:
            return False
        if names_sum(row["file_name"] for row in rows) != self._names[chunk.number]:
            return False  # another chunk's, copied or renamed
        return all(row["skipped"] in self.gone if "skipped" in row else is_there(row, sizes) for row in rows)

    def rows(self, chunks: Iterable[Chunk]) -> Iterator[Row]:
        """The outputs of some chunks."""
        for chunk in chunks:
            yield from read_rows(self.out.read(PLAN, chunk.start, chunk.end))

    def quarantined(self) -> list[Skipped]:
        """The images of a finished run that could not be used, and why; errors as of :func:`read_quarantine`."""
        return read_quarantine(self.out)

    def finish(self, chunks: Sequence[Chunk]) -> None:
        """Write the manifest from what the chunks say, list what could not be used, and drop what the run needed."""
        assert self.planned is not None  # chunks are a plan's
        self.out.sweep()  # of workers that were lost with their machine
        # The last: a folder with a manifest is finished. What is told of it is told before it appears.
        rows, reasons = map(self._done_rows, chunks), dict(self.planned["unusable"])
        self.out.write_lines(METADATA, manifest_lines(rows, reasons, self._tell))
        self.out.remove(WORK)

    def _tell(self, made: dict[str, Any], reasons: Mapping[str, str]) -> None:
        write_quarantine(self.out, reasons)
        self.made = made
        self._save()

    def _list(self, digest_of: Callable[[int], str | None] = lambda place: None) -> str:
        """Write the listing; the SHA-256 of the file."""
        lines = Summed(listing_lines(self.class_names, self.listing, digest_of))
        self.out.write_lines(LISTING, lines)
        return lines.sha256

    def _save(self) -> None:
        write_run(self.out, RunFile(self.wanted, self.planned, self.made))

    def _check_empty(self) -> None:
        strangers = [name for name in self.out.sizes() if not name.startswith(".sgdmix")]
        if strangers:
            raise DataError(
                f"{self.out.root} holds files that sgdmix did not write, such as {strangers[0]}; choose another folder"
            )

    def _clear(self) -> None:
        """Remove what an earlier run wrote; what others put there stays.

        Its settings and plan go last: interrupted, it is a run that lacks images.
        """
        self.out.remove(METADATA)
        self.out.remove(WORK)
        there = self.out.sizes()
        for name in self._outputs():
            if name in there:
                with contextlib.suppress(DataError):  # it lies behind a link
                    self.out.remove(name)
        for name in filter(is_shard, there):
            self.out.remove(name)
        self.out.prune()

    def _outputs(self) -> Iterator[str]:
        """Names of outputs, as far as there is a plan that says so: it may be what is damaged."""
        with contextlib.suppress(DataError):
            for one in self.out.lines(PLAN):
                with contextlib.suppress(DataError):
                    yield from (row.name for row in read_rows(one))

    def _done_rows(self, chunk: Chunk) -> list[dict[str, Any]]:
        rows = read_done(self.out.read(done_name(chunk.number)))
        if rows is None:
            raise DataError(
                f"{self.out.path(done_name(chunk.number))} was damaged during the run; run the same command again"
            )
        return [with_every_field(row) for row in rows]

    def _restore_done(self, sizes: Mapping[str, int]) -> None:
        """What says that a chunk is done, from the manifest that was made of it, for those that are still whole.

        Manifest and plan have one order, so that both are read once. A row in a wrong place, which we never wrote,
        ends it: what follows is made again.
        """
        chunks = self.chunks(self.wanted["chunk"])
        if self.made is None or len(self.made["chunks"]) != len(chunks):
            return
        rows = (row for row in map(manifest_row, self.out.lines(METADATA)) if row is not None and is_there(row, sizes))
        row = next(rows, None)
        for chunk in chunks:
            names = {row.name for row in self.rows([chunk])}
            found = []
            while row is not None and row["file_name"] in names:
                found.append(row)
                row = next(rows, None)
            if len(found) == len(names) and short_sum(lines_of(found)) == self.made["chunks"][chunk.number]:
                self.out.write(done_name(chunk.number), done_bytes(found))
