"""The output folder: whole files, inside, nothing of the user's lost."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import BinaryIO

import pytest

from sgdmix_albu.errors import DataError
from sgdmix_albu.offline.files import OutputFolder


def content(file: BinaryIO) -> None:
    file.write(b"whole")


def row(name: str) -> dict[str, object]:
    return {"file_name": name, "versions": {"sgdmix_albu": "0.1.0"}}


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_run_leaves_images_and_metadata(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "new" / "out")
    folder.begin(["owl/1.png"])
    assert files(folder.path) == [".sgdmix-plan.jsonl"]
    folder.write("owl/1.png", content)
    folder.finish([row("owl/1.png")])
    assert files(folder.path) == ["metadata.jsonl", "owl/1.png"]
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
        folder.write(name, content)
    assert files(tmp_path) == []


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out")
    (tmp_path / "precious.png").write_bytes(b"precious")
    (folder.path / "1.png").symlink_to(tmp_path / "precious.png")
    folder.write("1.png", content)
    assert (tmp_path / "precious.png").read_bytes() == b"precious"
    assert not (folder.path / "1.png").is_symlink()


def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = OutputFolder(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"cannot write .*owl/1\.png: No space left on device"):
        folder.write("owl/1.png", content)

    def interrupted(file: BinaryIO) -> None:
        file.write(b"ha")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.write("owl/1.png", interrupted)
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
    first = OutputFolder(tmp_path)
    first.begin(["owl/1.png", "tit/1.png"])
    first.write("owl/1.png", content)
    first.write("tit/1.png", content)
    first.finish([row("owl/1.png"), row("tit/1.png")])
    (tmp_path / "owl" / "mine.png").touch()
    second = OutputFolder(tmp_path, overwrite=True)
    assert "owl/1.png" in files(tmp_path)  # nothing is removed before the run begins
    second.begin(["elk/1.png"])
    assert files(tmp_path) == [".sgdmix-plan.jsonl", "owl/mine.png"]
    assert not (tmp_path / "tit").exists()


def test_overwrite_after_an_interrupted_run(tmp_path: Path) -> None:
    first = OutputFolder(tmp_path)
    first.begin(["owl/1.png", "owl/2.png"])
    first.write("owl/1.png", content)
    (tmp_path / ".sgdmix-abc.tmp").write_bytes(b"ha")  # what SIGKILL leaves
    second = OutputFolder(tmp_path, overwrite=True)
    second.begin([])
    second.finish([])
    assert files(tmp_path) == ["metadata.jsonl"]


@pytest.mark.parametrize(
    "line", ['{"file_name": "owl/1.png"}', '["x"]', "not json", '{"file_name": 1, "versions": {"sgdmix_albu": "0"}}']
)
def test_another_tools_metadata_is_not_replaced(tmp_path: Path, line: str) -> None:
    (tmp_path / "owl").mkdir()
    (tmp_path / "owl" / "1.png").write_bytes(b"the user's own")
    (tmp_path / "metadata.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match="was not written by sgdmix"):
        OutputFolder(tmp_path, overwrite=True)
    assert files(tmp_path) == ["metadata.jsonl", "owl/1.png"]


def test_earlier_metadata_that_names_files_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "precious.png").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metadata.jsonl").write_text(json.dumps(row("../precious.png")) + "\n")
    with pytest.raises(DataError, match="does not lie in"):
        OutputFolder(tmp_path / "out", overwrite=True)
    assert (tmp_path / "precious.png").exists()


def test_metadata_is_ascii_and_has_no_nan(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    folder.begin([])
    folder.finish([row("tit/é\u2028.png")])
    raw = (tmp_path / "metadata.jsonl").read_bytes()
    assert raw.isascii()
    assert json.loads(raw)["file_name"] == "tit/é\u2028.png"
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write_lines("x.jsonl", [{"a": float("nan")}])
    assert files(tmp_path) == ["metadata.jsonl"]
