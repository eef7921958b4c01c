"""One folder, here or behind a URL: whole files, and one line for whatever is refused."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sgdmix_albu.errors import DataError
from sgdmix_albu.io.remembered import Remembered
from sgdmix_albu.io.remote import Opened, fetched
from sgdmix_albu.io.storage import Storage


class BucketError(Exception):
    """What a driver raises that is no OSError."""


@pytest.mark.parametrize("error", [BucketError("no credentials\nat all"), PermissionError(13, "Permission denied")])
def test_what_a_store_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def refuse(*_: object, **__: object) -> None:
        raise error

    for name in ("cat_file", "pipe_file", "put_file", "open", "info", "find", "rm"):
        monkeypatch.setattr(MemoryFileSystem, name, refuse)
    monkeypatch.setattr("sgdmix_albu.io.remote._WAITS", ())
    store = Storage("memory://bucket")
    said = "no credentials at all" if isinstance(error, BucketError) else "Permission denied"
    for action, call in [
        ("read memory://bucket/a", lambda: store.read("a")),
        ("write memory://bucket/a", lambda: store.write("a", b"x")),
        ("write memory://bucket/a", lambda: store.write_lines("a", [b"x"])),
        ("read memory://bucket/a", lambda: list(store.lines("a"))),
        ("read memory://bucket/a", lambda: store.has("a")),  # not knowing is not a no
        ("list memory://bucket", store.sizes),
        ("remove memory://bucket/a", lambda: store.remove("a")),
    ]:
        with pytest.raises(DataError, match=f"^cannot {action}: {said}$"):
            call()


def test_what_this_machine_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    store = Storage(tmp_path)
    store.write("a/1.png", b"x")
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=f"^cannot list {tmp_path}: Permission denied$"):
        store.sizes()
    with pytest.raises(DataError, match="^cannot remove .*: Permission denied$"):
        store.remove("a")


def test_lines_that_stop_halfway_leave_nothing(tmp_path: Path) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def lines() -> Iterator[bytes]:
        yield b"one\n"
        raise KeyboardInterrupt

    try:
        for store in (Storage(tmp_path), Storage("memory://bucket")):
            store.write("there", b"before")
            for name in ("there", "new"):
                with pytest.raises(KeyboardInterrupt):
                    store.write_lines(name, lines())
            assert store.read("there") == b"before"
            assert store.sizes() == {"there": 6}
            store.write_lines("there", [b"one\n", b"two\n"])
            assert list(store.lines("there")) == [b"one\n", b"two\n"]
    finally:
        MemoryFileSystem.store.clear()


@pytest.mark.parametrize("scheme", ["file", "local"])
def test_urls_of_this_machine_are_folders_of_it(tmp_path: Path, scheme: str) -> None:
    """With locks, and files that appear whole."""
    store = Storage(f"{scheme}://{tmp_path}/a%20b/")
    assert (store.local, store.root) == (True, f"{tmp_path}/a b")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="it is a named pipe"):
        Storage(f"{scheme}://{tmp_path}").read("pipe")


def test_empty_folders_go(tmp_path: Path) -> None:
    store = Storage(tmp_path)
    store.write("a/b/1.png", b"x")
    store.write("c/d/1.png", b"x")
    (tmp_path / "e" / "f").mkdir(parents=True)
    store.remove("a/b/1.png")
    store.prune()
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} == {"c", "c/d", "c/d/1.png"}
    Storage(tmp_path / "not there").prune()


def test_a_folder_in_a_files_place_is_named(tmp_path: Path) -> None:
    """And not the unfinished file, which nobody has heard of."""
    (tmp_path / "1.png").mkdir()
    with pytest.raises(DataError, match=rf"^cannot write {tmp_path}/1\.png: Is a directory$"):
        Storage(tmp_path).write("1.png", b"x")


def test_a_line_longer_than_any_of_ours(tmp_path: Path) -> None:
    """It is not cut in two, which might pass for two lines."""
    line = b"x" * (2**20 - 2) + b"\n"
    (tmp_path / "a").write_bytes(line + b"xx" + line)
    lines = Storage(tmp_path).lines("a")
    assert next(lines) == line
    with pytest.raises(DataError, match="a line is longer than 1048576 bytes"):
        next(lines)


# A store that fails for a moment


class Moody:
    """A file system of one object, which fails so often before it answers."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.left, self.error, self.asked = failures, error, 0

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        self.asked += 1
        if self.left:
            self.left -= 1
            raise self.error
        return b"0123456789"[start:end]

    def info(self, path: str) -> dict[str, int]:
        return {"size": 10}


@pytest.mark.parametrize(("failures", "asked"), [(0, 1), (1, 2), (3, 4)])
def test_a_store_is_asked_again(failures: int, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("sgdmix_albu.io.remote.time.sleep", waited.append)
    store = Moody(failures, TimeoutError("no answer"))
    assert fetched(store, "a", 2, 5) == b"234"
    assert store.asked == asked
    assert waited == [0.2, 1.0, 5.0][:failures]


def test_a_store_is_asked_four_times_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgdmix_albu.io.remote._WAITS", (0, 0, 0))
    store = Moody(9, BucketError("slow down"))
    with pytest.raises(BucketError):
        fetched(store, "a", 2, 5)
    assert store.asked == 4


@pytest.mark.parametrize("answer", [FileNotFoundError("a"), PermissionError("a")])
def test_an_answer_is_not_asked_for_again(answer: Exception) -> None:
    store = Moody(9, answer)
    with pytest.raises(type(answer)):
        fetched(store, "a", 2, 5)
    assert store.asked == 1


def test_fewer_bytes_than_were_asked_for_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgdmix_albu.io.remote._WAITS", (0, 0, 0))
    store = Moody(0, TimeoutError())
    with pytest.raises(OSError, match="got 2 bytes, expected 4"):
        fetched(store, "a", 8, 12)
    assert store.asked == 4
    assert fetched(store, "a", 10, 10) == b""
    assert store.asked == 4


def test_a_part_is_read_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a file in memory, at places that blocks begin and end at."""
    monkeypatch.setattr("sgdmix_albu.io.remote._BLOCK", 4)
    store, plain = Moody(0, TimeoutError()), io.BytesIO(b"0123456789")
    opened = io.BufferedReader(Opened(store, "a"), 3)
    for place, whence, count in [(0, 0, 3), (4, 0, 1), (-2, 1, 6), (-1, 2, 5), (0, 2, 1), (9, 0, 4), (3, 0, -1)]:
        assert opened.seek(place, whence) == plain.seek(place, whence)
        assert opened.read(count) == plain.read(count)


def test_files_are_remembered_as_long_as_there_is_room(tmp_path: Path) -> None:
    store = Storage(tmp_path)
    for name in "abc":
        store.write(name, name.encode() * 4)
    store.write("large", b"x" * 11)
    images = Remembered(store, most=8)
    for name in ("a", "b", "a", "large", "c"):  # b goes: a was used later
        assert images.read(name) == store.read(name)
    for name in ("a", "b", "c", "large"):
        store.remove(name)
    assert (images.read("a"), images.read("c")) == (b"aaaa", b"cccc")
    for name in ("b", "large"):
        with pytest.raises(DataError):
            images.read(name)
    assert images.path("a") == f"{tmp_path}/a"
