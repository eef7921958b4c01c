"""The output folder: whole files, inside, nothing of the user's lost."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from expand_helpers import write_tree

from sgdmix_albu.errors import DataError
from sgdmix_albu.expand import Expansion, mix_folder
from sgdmix_albu.expand.store.done import done_bytes
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.io.storage import Storage

pytestmark = pytest.mark.usefixtures("by_hand")


def mixed_into(photographs: Path, out: Path, **settings: Any) -> Expansion:
    given = {"saliency": "brightness", "mask": "bright", "limit": 3, "progress": Progress(quiet=True), **settings}
    return mix_folder(photographs, out, **given)


def files(folder: Path) -> list[str]:
    """But for the lock."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.endswith(".sgdmix-lock"))


IMAGES = ["class 0/000.png", "class 1/000.png", "class 2/000.png"]
STATE = [".sgdmix-images.jsonl", ".sgdmix-plan.jsonl", ".sgdmix-quarantine.jsonl", ".sgdmix-run.json"]


def test_a_run_leaves_images_and_metadata(photographs: Path, tmp_path: Path) -> None:
    mixed_into(photographs, tmp_path / "new" / "out")
    assert files(tmp_path / "new" / "out") == [*STATE, *IMAGES, "metadata.jsonl"]
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "new" / "out" / IMAGES[0]).stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize(
    "name", ["../1.png", "/tmp/1.png", "owl/../../1.png", "", "link/1.png", "link/owl/1.png", "a\0b.png"]
)
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="refused to write"):
        Storage(tmp_path / "out").write(name, b"whole")
    assert files(tmp_path) == []


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "precious.png").write_bytes(b"precious")
    (tmp_path / "out" / "1.png").symlink_to(tmp_path / "precious.png")
    Storage(tmp_path / "out").write("1.png", b"whole")
    assert (tmp_path / "precious.png").read_bytes() == b"precious"
    assert not (tmp_path / "out" / "1.png").is_symlink()


def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(tmp_path)

    def lines() -> Iterator[bytes]:
        yield b"{}\n"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        storage.write_lines("x.jsonl", lines())

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"cannot write .*owl/1\.png: No space left on device"):
        storage.write("owl/1.png", b"whole")
    assert files(tmp_path) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_others_are_not_joined(photographs: Path, tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(
        DataError, match=r"holds files that sgdmix did not write, such as note\.txt; choose another folder"
    ):
        mixed_into(photographs, tmp_path, overwrite=overwrite)
    assert files(tmp_path) == ["note.txt"]


def test_not_a_folder(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write .*file is a file"):
        mixed_into(photographs, tmp_path / "file")
    with pytest.raises(DataError, match="cannot write"):
        mixed_into(photographs, tmp_path / "file" / "out")


def test_source_and_output_must_lie_apart(photographs: Path, tmp_path: Path) -> None:
    data = write_tree(tmp_path / "data")
    (tmp_path / "link").symlink_to(data)
    before = files(tmp_path)
    for out in ("data", "data/out", ".", "link/out", "data/../data/owl"):
        with pytest.raises(DataError, match="must lie apart"):
            mixed_into(data, tmp_path / out, overwrite=True)
    assert files(tmp_path) == before
    mixed_into(data, tmp_path / "data2")


def test_overwrite_removes_what_an_earlier_run_wrote_and_nothing_else(photographs: Path, tmp_path: Path) -> None:
    mixed_into(photographs, tmp_path)
    (tmp_path / "class 0" / "mine.png").touch()
    mixed_into(photographs, tmp_path, limit=1, image_format="jpg", overwrite=True)
    assert files(tmp_path) == [*STATE, "class 0/000.jpg", "class 0/mine.png", "metadata.jsonl"]
    assert not (tmp_path / "class 1").exists()


def test_overwrite_after_an_interrupted_run(photographs: Path, tmp_path: Path) -> None:
    class Interrupting(Progress):
        def over(self, items: Any, label: str, total: int, **_: Any) -> Iterator[Any]:
            for item in items:
                yield item
                if label == "expanding":
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mixed_into(photographs, tmp_path, progress=Interrupting())
    assert "class 0/000.png" in files(tmp_path)
    (tmp_path / ".sgdmix-abc.tmp").write_bytes(b"ha")  # what SIGKILL leaves
    mixed_into(photographs, tmp_path, image_format="jpg", overwrite=True)
    assert files(tmp_path) == [*STATE, *(name.replace("png", "jpg") for name in IMAGES), "metadata.jsonl"]


def test_who_holds_the_folder_is_told(photographs: Path, tmp_path: Path) -> None:
    told = f"another sgdmix process is working on {tmp_path} \\(process {os.getpid()}, sgdmix mix, since 20.*\\); wait"

    class Second(Progress):
        def over(self, items: Any, label: str, total: int, **_: Any) -> Iterator[Any]:
            for overwrite in (False, True):
                with pytest.raises(DataError, match=told):
                    mixed_into(photographs, tmp_path, overwrite=overwrite)
            yield from items

    mixed_into(photographs, tmp_path, progress=Second())
    assert ".sgdmix-holder" not in files(tmp_path)


@pytest.mark.parametrize("name", [".sgdmix-lock", ".sgdmix-holder"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_lock_that_is_no_file_of_ours(photographs: Path, tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    out = tmp_path / "out"
    out.mkdir()
    {
        "link": lambda: (out / name).symlink_to(tmp_path / "precious"),
        "pipe": lambda: os.mkfifo(out / name),
        "folder": lambda: (out / name).mkdir(),
    }[kind]()
    with pytest.raises(DataError, match=f"{name} is not a file that sgdmix wrote; remove it"):
        mixed_into(photographs, out)
    assert (tmp_path / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize("line", ['{"file_name": "owl/1.png"}', '["x"]', "not json"])
def test_another_tools_metadata_is_not_replaced(photographs: Path, tmp_path: Path, line: str) -> None:
    (tmp_path / "owl").mkdir()
    (tmp_path / "owl" / "1.png").write_bytes(b"the user's own")
    (tmp_path / "metadata.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match="holds files that sgdmix did not write"):
        mixed_into(photographs, tmp_path, overwrite=True)
    assert files(tmp_path) == ["metadata.jsonl", "owl/1.png"]


@pytest.mark.parametrize("name", ["../precious.png", "link/precious.png", "precious.txt", ".hidden/1.png"])
def test_an_earlier_plan_that_names_files_elsewhere(photographs: Path, tmp_path: Path, name: str) -> None:
    """Beginning anew removes what the plan of the earlier run names, and only what lies inside."""
    out = tmp_path / "out"
    mixed_into(photographs, out)
    (tmp_path / "precious.png").touch()
    (out / "precious.txt").touch()
    (out / "link").symlink_to(tmp_path)
    first, *others = (out / ".sgdmix-plan.jsonl").read_bytes().splitlines(keepends=True)
    (out / ".sgdmix-plan.jsonl").write_bytes(
        b"".join([json.dumps({**json.loads(first), "name": name}).encode(), b"\n", *others])
    )
    mixed_into(photographs, out, limit=1, overwrite=True)
    assert (tmp_path / "precious.png").exists()
    assert (out / "precious.txt").exists()


def test_metadata_that_is_no_file(photographs: Path, tmp_path: Path) -> None:
    mixed_into(photographs, tmp_path)
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "metadata.jsonl").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"metadata.jsonl: it is a device"):
        mixed_into(photographs, tmp_path)


def test_metadata_is_ascii(tmp_path: Path) -> None:
    data = write_tree(tmp_path / "data")
    (data / "class 0").rename(data / "tit é\u2028")
    mixed_into(data, tmp_path / "out", limit=None)
    raw = (tmp_path / "out" / "metadata.jsonl").read_bytes()
    assert raw.isascii()
    with pytest.raises(ValueError, match="not JSON compliant"):
        done_bytes([{"a": float("nan")}])
    assert {json.loads(line)["label"] for line in raw.splitlines()} == {"tit é\u2028", "class 1", "class 2"}
