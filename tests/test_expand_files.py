"""The output folder: whole files, inside, nothing of the user's lost."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sgdmix_albu.errors import DataError
from sgdmix_albu.expand.store.files import OutputFolder


def row(name: str) -> dict[str, object]:
    return {"file_name": name, "versions": {"sgdmix_albu": "0.1.0"}}


def files(folder: Path) -> list[str]:
    """But for the lock."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.endswith(".sgdmix-lock"))


@contextmanager
def filling(path: Path, **options: Any) -> Iterator[OutputFolder]:
    folder = OutputFolder(path, **options)
    with folder.locked():
        yield folder


def mixed_into(path: Path, *names: str, **options: Any) -> None:
    """A whole run."""
    with filling(path, **options) as folder:
        folder.begin(names)
        for name in names:
            folder.write(name, b"whole")
        folder.finish(map(row, names))


def test_a_run_leaves_images_and_metadata(tmp_path: Path) -> None:
    with filling(tmp_path / "new" / "out") as folder:
        folder.begin(["owl/1.png"])
        assert files(folder.path) == [".sgdmix-holder", ".sgdmix-plan.jsonl"]
        folder.write("owl/1.png", b"whole")
        folder.finish([row("owl/1.png")])
    assert files(folder.path) == [".sgdmix-mixed.json", "metadata.jsonl", "owl/1.png"]
    assert (folder.path / "owl/1.png").read_bytes() == b"whole"
    umask = os.umask(0)
    os.umask(umask)
    assert (folder.path / "owl/1.png").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize(
    "name", ["../1.png", "/tmp/1.png", "owl/../../1.png", "", "link/1.png", "link/owl/1.png", "a\0b.png"]
)
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    folder = OutputFolder(tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    (folder.path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="refused to write"):
        folder.write(name, b"whole")
    assert files(tmp_path) == []


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out")
    (tmp_path / "precious.png").write_bytes(b"precious")
    (folder.path / "1.png").symlink_to(tmp_path / "precious.png")
    folder.write("1.png", b"whole")
    assert (tmp_path / "precious.png").read_bytes() == b"precious"
    assert not (folder.path / "1.png").is_symlink()


def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = OutputFolder(tmp_path)

    def rows() -> Iterator[dict[str, object]]:
        yield row("owl/1.png")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.write_lines("x.jsonl", rows())

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"cannot write .*owl/1\.png: No space left on device"):
        folder.write("owl/1.png", b"whole")
    assert files(tmp_path) == []


def test_not_empty(tmp_path: Path) -> None:
    (tmp_path / "note.txt").touch()
    with pytest.raises(DataError, match=r"is not empty; .* --overwrite"):
        OutputFolder(tmp_path)
    OutputFolder(tmp_path, overwrite=True)


def test_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file"):
        OutputFolder(tmp_path / "file")
    with pytest.raises(DataError, match="cannot write"):
        OutputFolder(tmp_path / "file" / "out")


def test_source_and_output_must_lie_apart(tmp_path: Path) -> None:
    (tmp_path / "data" / "owl").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for out in ("data", "data/out", ".", "link/out", "data/../data/owl"):
        with pytest.raises(DataError, match="must lie apart"):
            OutputFolder(tmp_path / out, source=tmp_path / "data", overwrite=True)
    OutputFolder(tmp_path / "data2", source=tmp_path / "data")
    assert files(tmp_path) == []


def test_overwrite_removes_what_an_earlier_run_wrote_and_nothing_else(tmp_path: Path) -> None:
    mixed_into(tmp_path, "owl/1.png", "tit/1.png")
    (tmp_path / "owl" / "mine.png").touch()
    with filling(tmp_path, overwrite=True) as folder:
        assert "owl/1.png" in files(tmp_path)  # nothing is removed before the run begins
        folder.begin(["elk/1.png"])
        assert files(tmp_path) == [".sgdmix-holder", ".sgdmix-plan.jsonl", "owl/mine.png"]
    assert not (tmp_path / "tit").exists()


def test_overwrite_after_an_interrupted_run(tmp_path: Path) -> None:
    with filling(tmp_path) as folder:
        folder.begin(["owl/1.png", "owl/2.png"])
        folder.write("owl/1.png", b"whole")
    (tmp_path / ".sgdmix-abc.tmp").write_bytes(b"ha")  # what SIGKILL leaves
    mixed_into(tmp_path, overwrite=True)
    assert files(tmp_path) == [".sgdmix-mixed.json", "metadata.jsonl"]


def test_who_holds_the_folder_is_told(tmp_path: Path) -> None:
    """To one that finds it new, too: it looks at the lock before it looks for files."""
    told = f"another sgdmix process is working on {tmp_path} \\(process {os.getpid()}, sgdmix mix, since 20.*\\); wait"
    with filling(tmp_path):
        for overwrite in (False, True):
            with pytest.raises(DataError, match=told), filling(tmp_path, overwrite=overwrite):
                pass
    mixed_into(tmp_path, "owl/1.png")
    assert ".sgdmix-holder" not in files(tmp_path)


def test_a_folder_that_was_filled_meanwhile(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    mixed_into(tmp_path, "owl/1.png")
    with pytest.raises(DataError, match="is not empty"), folder.locked():
        pass


def test_a_folder_of_generate_is_another_commands(tmp_path: Path) -> None:
    (tmp_path / ".sgdmix-run.json").touch()
    with pytest.raises(DataError, match="is a folder of sgdmix generate; choose another"):
        OutputFolder(tmp_path, overwrite=True)


@pytest.mark.parametrize("name", [".sgdmix-lock", ".sgdmix-holder"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_lock_that_is_no_file_of_ours(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    out = tmp_path / "out"
    out.mkdir()
    {
        "link": lambda: (out / name).symlink_to(tmp_path / "precious"),
        "pipe": lambda: os.mkfifo(out / name),
        "folder": lambda: (out / name).mkdir(),
    }[kind]()
    with pytest.raises(DataError, match=f"{name} is not a file that sgdmix wrote; remove it"), filling(out):
        pass
    assert (tmp_path / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize(
    "line", ['{"file_name": "owl/1.png"}', '["x"]', "not json", '{"file_name": 1, "versions": {"sgdmix_albu": "0"}}']
)
def test_another_tools_metadata_is_not_replaced(tmp_path: Path, line: str) -> None:
    (tmp_path / "owl").mkdir()
    (tmp_path / "owl" / "1.png").write_bytes(b"the user's own")
    (tmp_path / "metadata.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match="was not written by sgdmix"), filling(tmp_path, overwrite=True):
        pass
    assert files(tmp_path) == ["metadata.jsonl", "owl/1.png"]


@pytest.mark.parametrize("name", ["../precious.png", "link/precious.png", "precious.txt", ".hidden/1.png"])
def test_earlier_metadata_that_names_files_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "precious.png").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").touch()
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    (tmp_path / "out" / "metadata.jsonl").write_text(json.dumps(row(name)) + "\n")
    with pytest.raises(DataError, match="not written by sgdmix|leads out"), filling(tmp_path / "out", overwrite=True):
        pass
    assert (tmp_path / "precious.png").exists()
    assert (tmp_path / "out" / "precious.txt").exists()


def test_metadata_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="metadata.jsonl: it is a device"), filling(tmp_path, overwrite=True):
        pass


def test_metadata_is_ascii_and_has_no_nan(tmp_path: Path) -> None:
    mixed_into(tmp_path, "tit/é\u2028.png")
    raw = (tmp_path / "metadata.jsonl").read_bytes()
    assert raw.isascii()
    assert json.loads(raw)["file_name"] == "tit/é\u2028.png"
    written = json.loads((tmp_path / ".sgdmix-mixed.json").read_bytes())
    assert written == {"rows": 1, "sha256": hashlib.sha256(raw).hexdigest()}
    with pytest.raises(ValueError, match="not JSON compliant"):
        OutputFolder(tmp_path, overwrite=True).write_lines("x.jsonl", [{"a": float("nan")}])
    assert files(tmp_path) == [".sgdmix-mixed.json", "metadata.jsonl", "tit/é\u2028.png"]
