"""What may go wrong while a set is expanded: one clear line, nothing lost, and the same command goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from expand_helpers import (
    MINE,
    REAL,
    Stop,
    contents,
    expand,
    photograph,
    pixels,
    rows_of,
    write_tree,
)
from filelock import FileLock
from PIL import Image

from sgdmix_albu.bank import parts as banking
from sgdmix_albu.errors import DataError, InvalidInputError, SGDMixError, UnknownNameError
from sgdmix_albu.expand import ClassifierSettings, RefinerSettings, Settings, generate, verify
from sgdmix_albu.expand.execute import pools as working
from sgdmix_albu.expand.execute.local import LocalEngine
from sgdmix_albu.expand.store.run import Run
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.saliency import register_backend
from sgdmix_albu.synthetic import SyntheticPool

QUIET = Progress(quiet=True)


pytestmark = pytest.mark.usefixtures("by_hand", "small_chunks")


def test_two_at_once(photographs: Path, tmp_path: Path) -> None:
    for out in (tmp_path, f"file://{tmp_path}", f"local://{tmp_path}"):
        with (
            FileLock(tmp_path / ".sgdmix-lock"),
            pytest.raises(DataError, match="another sgdmix process is working on"),
        ):
            expand(photographs, out)
    told = rf"another sgdmix process is working on {tmp_path} \(process {os.getpid()}, sgdmix generate, since 20"

    class Second(Progress):
        def over(self, items: Any, label: str, total: int, **_: Any) -> Any:
            with pytest.raises(DataError, match=told):
                expand(photographs, tmp_path)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        expand(photographs, tmp_path, progress=Second())


def test_other_settings_or_images_are_not_mixed_up(photographs: Path, tmp_path: Path) -> None:
    data = write_tree(tmp_path / "data", classes=2, images=3)
    expand(data, tmp_path / "out")
    with pytest.raises(DataError, match=r"started with other settings: seed 0 \(now 7\)"):
        expand(data, tmp_path / "out", dataclasses.replace(MINE, seed=7))
    (data / "class 0" / "new.png").write_bytes((data / "class 0" / "000.png").read_bytes())
    with pytest.raises(DataError, match=r"started with other settings: limit None \(now 7\)"):
        expand(data, tmp_path / "out", limit=7)
    (tmp_path / "out" / "class 0" / "mine.txt").write_text("kept")
    done = expand(data, tmp_path / "out", dataclasses.replace(MINE, multiplier=1, seed=7), overwrite=True)
    assert done.written == 7
    assert verify(tmp_path / "out", progress=Progress(quiet=True)).good  # nothing of the earlier run is left
    assert (tmp_path / "out" / "class 0" / "mine.txt").exists()


def test_a_folder_of_somebody_else(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(DataError, match=r"holds files that sgdmix did not write, such as thesis\.tex"):
        expand(photographs, tmp_path)
    with pytest.raises(DataError, match="must lie apart"):
        expand(photographs, photographs / "out")


def test_bad_images_go_to_quarantine(tmp_path: Path) -> None:
    data = write_tree(tmp_path / "data", classes=2, images=4)
    (data / "class 0" / "001.png").write_bytes(b"")
    (data / "class 1" / "002.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    done = expand(data, tmp_path / "out")
    assert {one.key for one in done.skipped} == {"class 0/001.png", "class 1/002.png"}
    listed = [json.loads(line) for line in (tmp_path / "out" / ".sgdmix-quarantine.jsonl").read_text().splitlines()]
    assert {row["source"] for row in listed} == {"class 0/001.png", "class 1/002.png"}
    assert all(row["reason"] for row in listed)
    assert done.written == 18


def test_an_image_that_goes_away_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_tree(tmp_path / "data", classes=2, images=4)
    plan = Run.plan

    def then_lose_one(self: Run, *arguments: Any) -> None:
        plan(self, *arguments)
        (data / "class 0" / "001.png").unlink()

    monkeypatch.setattr(Run, "plan", then_lose_one)
    done = expand(data, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert "class 0/001.png" not in {row["source"] for row in rows} | {row["target"] for row in rows}
    assert done.lost == 24 - len(rows) > 0
    assert verify(tmp_path / "out", progress=Progress(quiet=True)).good


def test_a_bank_that_goes_bad_is_an_error(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Run.plan

    def then_spoil(self: Run, *arguments: Any) -> None:
        plan(self, *arguments)
        (masks,) = tmp_path.rglob("*.masks")
        masks.write_bytes(bytes(masks.stat().st_size))

    monkeypatch.setattr(Run, "plan", then_spoil)
    with pytest.raises(DataError, match=r"part-000000\.masks is damaged: .*; remove .*bank to rebuild it"):
        expand(photographs, tmp_path)
    assert not (tmp_path / "metadata.jsonl").exists()


def test_nothing_usable(tmp_path: Path) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "1.png").write_bytes(b"x")
    with pytest.raises(DataError, match="none of 1 images can be used"):
        expand(tmp_path / "data", tmp_path / "out")


def test_no_room_is_one_line_and_can_be_taken_up(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the operating system refuses a write halfway."""
    for label in range(2):
        (tmp_path / f"data/{label}").mkdir(parents=True)
        Image.fromarray(photograph(label, (300, 300))).save(tmp_path / f"data/{label}/1.png")
    program = (
        "import resource, sys\nfrom sgdmix_albu.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop()), -1))\nsys.exit(main())"
    )
    command = [sys.executable, "-c", program, "generate", str(tmp_path / "data"), str(tmp_path / "out")]
    command += ["--refiner", "none", "--saliency", "spectral_residual", "--mask", "otsu", "--multiplier", "1"]
    for limit, victim in ((3000, "part-000000"), (50_000, "1-00.png")):  # bytes
        done = subprocess.run([*command, str(limit)], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(r"sgdmix: error: cannot write .*: File too large\n", done.stderr)
        assert not [
            path
            for path in (tmp_path / "out").rglob("*")
            if victim in path.name and path.suffix not in (".masks", ".skipped")
        ]
        assert not list((tmp_path / "out").rglob("*.tmp"))
    subprocess.run([*command, "-1"], check=True, capture_output=True)
    assert verify(tmp_path / "out", progress=Progress(quiet=True)).images == 2


def test_a_worker_that_is_killed(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgdmix_albu.expand.pipeline.expanding_engine", lambda *_, **__: LocalEngine(2, "processes"))

    class Murderer(Progress):
        def over(self, items: Any, label: str, total: int, **_: Any) -> Iterator[Any]:
            for item in items:
                yield item
                if label == "expanding":
                    for child in working.multiprocessing.active_children():
                        os.kill(child.pid or 0, signal.SIGKILL)

    with pytest.raises(Exception, match="a worker process died .* run the same command to resume"):
        expand(photographs, tmp_path / "out", REAL, progress=Murderer())
    expand(photographs, tmp_path / "out", REAL)
    expand(photographs, tmp_path / "quiet", REAL)
    assert contents(tmp_path / "out") == contents(tmp_path / "quiet")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"multiplier": 0}, "multiplier must be 1 or more, got 0"),
        ({"seed": -1}, "seed must be a number from 0"),
        ({"image_format": "gif"}, "image_format must be one of png, jpg"),
        ({"candidates": 0}, "candidates must be a positive integer"),
        ({"size": True}, "size must be a side in pixels, 1 to 8192, got True"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Settings(**settings)


def test_wrong_arguments_are_told_before_anything_is_written(photographs: Path, tmp_path: Path) -> None:
    for options, error, message in [
        ({"engine": "spark"}, InvalidInputError, "engine must be one of local, ray, got 'spark'"),
        ({"workers": 0}, InvalidInputError, "workers must be 1 or more"),
        ({"address": "auto"}, InvalidInputError, "address needs engine='ray'"),
        ({"refiner": RefinerSettings("nope")}, UnknownNameError, "unknown refiner 'nope'"),
        ({"refiner": RefinerSettings("cub")}, DataError, "sgdmix finetune"),
        (
            {"refiner": RefinerSettings("cub", strengths="adaptive")},
            InvalidInputError,
            "adaptive strength needs a teacher",
        ),
        ({"teacher": ClassifierSettings("nope.pt", "resnet18")}, DataError, "nope.pt"),
        ({"settings": Settings(saliency="nope")}, UnknownNameError, "unknown saliency backend 'nope'"),
        ({"settings": Settings(mask="nope")}, UnknownNameError, "nope"),
    ]:
        with pytest.raises(error, match=message):
            generate(photographs, tmp_path / "out", **{"settings": MINE, **options})  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


# The manifest, its files and its shards

SHARDS = Settings(saliency="brightness", mask="bright", multiplier=3, shards=True)


@pytest.mark.parametrize("harm", ["cut at a line's end", "emptied", "one row twice", "a label changed"])
def test_a_manifest_that_is_not_what_was_written(photographs: Path, tmp_path: Path, harm: str) -> None:
    expand(photographs, tmp_path)
    before, manifest = contents(tmp_path), tmp_path / "metadata.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    changed = lines[5].replace(b'"label": "class 0"', b'"label": "class 1"')
    assert changed != lines[5]
    spoilt = {
        "cut at a line's end": lines[:-1],
        "emptied": [],
        "one row twice": [*lines, lines[3]],
        "a label changed": [*lines[:5], changed, *lines[6:]],
    }[harm]
    manifest.write_bytes(b"".join(spoilt))
    found = verify(tmp_path, progress=QUIET)
    assert not found.good
    assert f"metadata.jsonl: it was changed: {len(spoilt)} rows, 36 were written" in str(found)
    assert found.right <= found.images == len(spoilt)
    done = expand(photographs, tmp_path)
    assert contents(tmp_path) == before
    assert done.written == {"cut at a line's end": 4, "emptied": 36, "one row twice": 0, "a label changed": 4}[harm]
    assert verify(tmp_path, progress=QUIET).good


def test_a_shard_that_was_cut_is_made_again(photographs: Path, tmp_path: Path) -> None:
    expand(photographs, tmp_path, SHARDS)
    before = contents(tmp_path)
    shard = tmp_path / "shard-000002.tar"
    shard.write_bytes(shard.read_bytes()[:3000])
    assert not verify(tmp_path, progress=QUIET).good
    assert expand(photographs, tmp_path, SHARDS).written == 4
    assert contents(tmp_path) == before


def test_a_changed_label_in_a_shard_is_seen(photographs: Path, tmp_path: Path) -> None:
    expand(photographs, tmp_path, SHARDS)
    shard = tmp_path / "shard-000000.tar"
    with tarfile.open(shard) as tar:
        (label, *_) = (member for member in tar if member.name.endswith(".cls"))
    content = bytearray(shard.read_bytes())
    assert content[label.offset_data : label.offset_data + 1] == b"0"
    content[label.offset_data] = ord("2")
    shard.write_bytes(content)
    found = verify(tmp_path, progress=QUIET)
    assert len(found.wrong) == 4  # the shard's
    assert "its labels or metadata in shard-000000.tar were changed" in found.wrong[0]


def test_names_that_differ_by_a_dot_stay_apart_in_a_shard(tmp_path: Path) -> None:
    data = write_tree(tmp_path / "data", classes=1, images=3)
    for place, name in enumerate(("a.1", "a-1", "a%2E1")):
        (data / "class 0" / f"{place:03d}.png").rename(data / "class 0" / f"{name}.png")
    settings = Settings(saliency="brightness", mask="bright", multiplier=1, shards=True)
    expand(data, tmp_path / "out", settings)
    expand(data, tmp_path / "files", Settings(saliency="brightness", mask="bright", multiplier=1))
    assert verify(tmp_path / "out", progress=QUIET).good
    pool = SyntheticPool(tmp_path / "out")
    for place, name in enumerate(pool.names):
        assert np.array_equal(np.asarray(pool.image(place)), pixels(tmp_path / "files" / name))


# Sources that change or go away


def lose_after_planning(monkeypatch: pytest.MonkeyPatch, harm: Any) -> None:
    plan = Run.plan

    def then_harm(self: Run, *arguments: Any) -> None:
        plan(self, *arguments)
        harm()

    monkeypatch.setattr(Run, "plan", then_harm)


def test_an_image_that_comes_back_is_taken(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that was down for a moment costs nothing: the same command tries again."""
    expand(photographs, tmp_path / "quiet")
    away, there = tmp_path / "away.png", photographs / "class 1" / "002.png"
    with monkeypatch.context() as patch:
        lose_after_planning(patch, lambda: there.rename(away))
        try:
            done = expand(photographs, tmp_path / "out")
        finally:
            away.rename(there)
    assert [one.key for one in done.skipped] == ["class 1/002.png"]  # and nobody else, targets included
    assert done.lost == 36 - len(rows_of(tmp_path / "out")) > 3
    assert f"lost     {done.lost}: could not be made, for the reasons below; run the same command to retry" in str(done)
    again = expand(photographs, tmp_path / "out")
    assert (again.lost, again.skipped) == (0, [])
    assert contents(tmp_path / "out") == contents(tmp_path / "quiet")


def test_a_finished_run_goes_on_telling_what_is_missing(tmp_path: Path) -> None:
    data = write_tree(tmp_path / "data", classes=2, images=4)
    (data / "class 0" / "001.png").write_bytes(b"")
    first, second = (expand(data, tmp_path / "out") for _ in range(2))
    assert second.written == 0
    assert first.skipped == second.skipped
    assert [one.key for one in second.skipped] == ["class 0/001.png"]


def test_an_image_that_is_replaced_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same size: its mask would be another picture's."""
    data = write_tree(tmp_path / "data", classes=2, images=4)
    victim = data / "class 0" / "001.png"
    size = pixels(victim).shape[:2]
    lose_after_planning(monkeypatch, lambda: Image.fromarray(photograph(999, size)).save(victim))
    done = expand(data, tmp_path / "out")
    assert [one.key for one in done.skipped] == ["class 0/001.png"]
    assert "changed while it was in use" in done.skipped[0].reason
    again = expand(data, tmp_path / "out")  # which has no masks any more, and must not make them of the new picture
    assert [one.key for one in again.skipped] == ["class 0/001.png"]
    assert again.skipped[0].reason == "class 0/001.png changed after the plan was made"
    assert again.lost == done.lost > 0


@pytest.fixture
def half_done(tmp_path: Path) -> Path:
    """Photographs in "data", a run on them in "out" that was interrupted, and one in "quiet" that was not."""
    data = write_tree(tmp_path / "data", classes=3, images=4)
    expand(data, tmp_path / "quiet")
    with pytest.raises(KeyboardInterrupt):
        expand(data, tmp_path / "out", workers=1, progress=Stop(4))
    assert (tmp_path / "out" / ".sgdmix-plan.jsonl").exists()
    assert not (tmp_path / "out" / "metadata.jsonl").exists()
    return tmp_path


def without(rows: list[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    """Those that have nothing to do with some images."""
    return [row for row in rows if not {row["source"], row["target"]} & set(keys)]


def test_images_that_are_gone_are_named_and_the_rest_is_finished(half_done: Path) -> None:
    """A class with all its images too, by which other classes would get other numbers; and one that is new."""
    data, out = half_done / "data", half_done / "out"
    gone = [f"class 1/00{number}.png" for number in range(4)]
    shutil.move(data / "class 1", half_done / "away")
    (data / "aaa").mkdir()
    (data / "class 0" / "003.png").rename(data / "aaa" / "new.png")
    done = expand(data, out)
    gone.append("class 0/003.png")
    made, before = rows_of(out), {row["file_name"] for row in rows_of(out)}
    wanted = without(rows_of(half_done / "quiet"), *gone)
    assert [row for row in made if row in wanted] == wanted  # and perhaps some that were made before
    assert done.lost == 36 - len(made) > 0
    assert {one.key for one in done.skipped} <= set(gone)
    assert all("No such file" in one.reason for one in done.skipped)
    assert done.came == ["aaa/new.png"]
    assert "outside  1 image added after the run started, such as aaa/new.png; --overwrite includes them" in str(done)
    assert verify(out, progress=QUIET).good

    again = expand(data, out)  # nothing can be done, so nothing is
    assert (again.written, again.described, again.lost, again.skipped) == (0, 0, done.lost, done.skipped)
    assert {row["file_name"] for row in rows_of(out)} == before

    shutil.move(half_done / "away", data / "class 1")  # all come back
    (data / "aaa" / "new.png").rename(data / "class 0" / "003.png")
    (data / "aaa").rmdir()
    last = expand(data, out)
    assert (last.lost, last.skipped, last.came) == (0, [], [])
    assert contents(out) == contents(half_done / "quiet")


def test_chunks_that_lack_what_is_gone_are_done_once(half_done: Path) -> None:
    """Refining one may take a minute: an interruption is no reason to do it again."""
    data, out = half_done / "data", half_done / "out"
    (data / "class 0" / "003.png").unlink()
    before = len(list(out.rglob("*.png")))
    with pytest.raises(KeyboardInterrupt):
        expand(data, out, workers=1, progress=Stop(3))
    there = len(list(out.rglob("*.png")))
    assert there > before
    done = expand(data, out)
    assert done.lost > 0
    assert done.written == 36 - done.lost - there


def test_images_that_are_gone_before_there_is_a_plan(tmp_path: Path, small_parts: None) -> None:
    data = write_tree(tmp_path / "data", classes=3, images=4)
    with pytest.raises(KeyboardInterrupt):
        expand(data, tmp_path / "out", progress=Stop(0))
    assert not (tmp_path / "out" / ".sgdmix-plan.jsonl").exists()
    (data / "class 1" / "002.png").unlink()
    done = expand(data, tmp_path / "out")
    assert [one.key for one in done.skipped] == ["class 1/002.png"]
    assert (done.lost, done.written) == (0, 33)


def test_a_folder_may_be_moved(half_done: Path) -> None:
    shutil.move(half_done / "data", half_done / "elsewhere")
    done = expand(half_done / "elsewhere", half_done / "out")
    assert (done.lost, done.skipped) == (0, [])
    assert contents(half_done / "out") == contents(half_done / "quiet")


def test_another_folder_is_not_the_runs(half_done: Path) -> None:
    other = write_tree(half_done / "other", classes=3, images=4)
    for number, path in enumerate(sorted(other.rglob("*.png"))):
        Image.fromarray(photograph(900 + number)).save(path)
    with pytest.raises(DataError, match=r"other holds other images .* under the same names, such as class 0/000\.png"):
        expand(other, half_done / "out")
    for label in range(3):
        (other / f"class {label}").rename(other / f"kind {label}")
    with pytest.raises(
        DataError, match=r"other has none of the 12 images .* such as class 0/000\.png; give the folder"
    ):
        expand(other, half_done / "out")
    expand(half_done / "data", half_done / "out")
    assert contents(half_done / "out") == contents(half_done / "quiet")


def test_no_file_says_where_the_images_are(half_done: Path) -> None:
    expand(half_done / "data", half_done / "out")
    for path in (half_done / "out").rglob("*"):
        assert path.is_dir() or str(half_done).encode() not in path.read_bytes(), path


def test_an_image_that_goes_bad_after_all_is_done(tmp_path: Path) -> None:
    """And one of its outputs is lost: that output cannot come back, all others stay, and no error stands in the way."""
    data = write_tree(tmp_path / "data", classes=2, images=4)
    expand(data, tmp_path / "out")
    before = rows_of(tmp_path / "out")
    (data / "class 0" / "001.png").write_bytes(b"bad")
    lost = next(row for row in before if row["source"] == "class 0/001.png")
    (tmp_path / "out" / lost["file_name"]).unlink()
    done = expand(data, tmp_path / "out")
    assert [one.key for one in done.skipped] == ["class 0/001.png"]
    assert 0 < done.lost <= 4  # of its chunk
    assert verify(tmp_path / "out", progress=QUIET).good
    kept = {row["file_name"]: row["sha256"] for row in rows_of(tmp_path / "out")}
    assert kept.items() <= {row["file_name"]: row["sha256"] for row in before}.items()


def test_a_lost_file_costs_no_more_than_its_own_masks(photographs: Path, tmp_path: Path, small_parts: None) -> None:
    """A finished run keeps no masks; one by one they are made again, not all."""
    expand(photographs, tmp_path)
    victim = rows_of(tmp_path)[0]
    (tmp_path / victim["file_name"]).unlink()
    done = expand(photographs, tmp_path)
    rows = rows_of(tmp_path)[:4]
    places = [row.split("/") for part in rows for row in (part["source"], part["target"])]
    parts = {(4 * int(label[-1]) + int(name[:3])) // 5 for label, name in places}
    assert done.described == sum(min(5, 12 - 5 * part) for part in parts)
    assert verify(tmp_path, progress=QUIET).good


def test_an_odd_image_does_not_end_the_run_wherever_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it is alone in the last part of the bank."""

    def squeamish(images: torch.Tensor, labels: Any = None) -> torch.Tensor:
        if bool((images == 1).any()):
            raise SGDMixError("too bright")
        return images.mean(1)

    register_backend("squeamish", squeamish)
    monkeypatch.setattr(banking, "PART", 5)
    (tmp_path / "data" / "a").mkdir(parents=True)
    for number in range(5):
        Image.fromarray(np.minimum(photograph(number), 254)).save(tmp_path / f"data/a/{number}.png")
    white = np.full((40, 48, 3), 255, np.uint8)
    Image.fromarray(white).save(tmp_path / "data/a/5.png")
    done = expand(tmp_path / "data", tmp_path / "out", Settings(saliency="squeamish", mask="bright", multiplier=1))
    assert done.written == 5
    assert [str(one) for one in done.skipped] == ["a/5.png: too bright"]


@pytest.mark.parametrize("image_format", ["jpg", "png"])
def test_an_image_that_the_format_cannot_hold(tmp_path: Path, image_format: Any) -> None:
    data = write_tree(tmp_path / "data", classes=1, images=3)
    wide = np.repeat(photograph(3, (4, 70)), 1000, axis=1)
    Image.fromarray(wide).save(data / "class 0" / "wide.png")
    settings = Settings(saliency="brightness", mask="bright", multiplier=1, image_format=image_format)
    done = expand(data, tmp_path / "out", settings)
    if image_format == "png":
        assert (done.written, done.skipped) == (4, [])
    else:
        assert done.written == 3
        assert [one.key for one in done.skipped] == ["class 0/wide.png"]
        assert "cannot be written as jpg" in done.skipped[0].reason


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    data = write_tree(tmp_path / "data", classes=1, images=3)
    (data / "class 0" / "000.png").rename(data / "class 0" / f"{'x' * 251}.png")
    done = expand(data, tmp_path / "out")
    assert done.left_out["long_name"] == 2
    assert "the output's file name would be too long" in str(done)
    (data / "class 0").rename(data / "metadata.jsonl")
    with pytest.raises(DataError, match=r"a class is called metadata\.jsonl, which is the manifest's name"):
        expand(data, tmp_path / "other")


# Beginning anew


class EnoughError(Exception):
    """The process ends here."""


@pytest.mark.parametrize("steps", range(6))
def test_beginning_anew_may_be_interrupted_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Neither the old command nor the new one is lost; files of the user's own stay."""
    data = write_tree(tmp_path / "data", classes=2, images=3)
    other = Settings(saliency="brightness", mask="bright", multiplier=1, seed=7)
    expand(data, tmp_path / "old")
    expand(data, tmp_path / "new", other)
    remove, count = Storage.remove, 0

    def a_few(self: Storage, name: str) -> None:
        nonlocal count
        if count == steps:
            raise EnoughError
        count += 1
        remove(self, name)

    for settings, overwrite, like in ((other, True, "new"), (MINE, False, "old")):
        out = tmp_path / f"out {like}"
        expand(data, out)
        (out / "class 0" / "mine.txt").write_text("kept")
        count = 0
        with monkeypatch.context() as patch:
            patch.setattr(Storage, "remove", a_few)
            with pytest.raises(EnoughError):
                expand(data, out, other, overwrite=True)
        assert not (out / "metadata.jsonl").exists() or steps == 0
        expand(data, out, settings, overwrite=overwrite)
        made = contents(out)
        assert made.pop("class 0/mine.txt") == b"kept"
        assert made == contents(tmp_path / like)


def test_beginning_anew_leaves_nothing_and_takes_nothing(tmp_path: Path) -> None:
    data = write_tree(tmp_path / "data", classes=3, images=2)
    expand(data, tmp_path / "out", SHARDS)
    for name in ("shard-notes.tar", "shard-mine/shard-000000.tar"):
        (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_bytes(b"mine")
    expand(data, tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "shard-000000.tar").exists()
    assert (tmp_path / "out" / "shard-notes.tar").exists()
    assert (tmp_path / "out" / "shard-mine" / "shard-000000.tar").exists()
    for image in (data / "class 2").iterdir():
        image.unlink()
    (data / "class 2").rmdir()
    expand(data, tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "class 2").exists()  # ImageFolder would refuse an empty class


def test_a_damaged_plan_does_not_stop_who_begins_anew(photographs: Path, tmp_path: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        expand(photographs, tmp_path, workers=1, progress=Stop(4))
    plan = tmp_path / ".sgdmix-plan.jsonl"
    plan.write_bytes(b"???\n" + plan.read_bytes())
    with pytest.raises(DataError, match="does not match its checksum; pass --overwrite to start over"):
        expand(photographs, tmp_path)
    expand(photographs, tmp_path, overwrite=True)
    assert verify(tmp_path, progress=QUIET).good


# Who works, and on what


def test_one_folder_by_several_names(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expand(f"{photographs}/", tmp_path / "out")
    monkeypatch.chdir(photographs.parent)
    assert expand(f"./{photographs.name}", tmp_path / "out").written == 0
    with pytest.raises(DataError, match="must lie apart"):
        expand(photographs, f"file://{photographs}/out")


def test_another_teacher_under_the_same_name(photographs: Path, tmp_path: Path) -> None:
    from torchvision.models import resnet18

    for seed in range(2):
        torch.manual_seed(seed)
        torch.save(resnet18(num_classes=3).state_dict(), tmp_path / "teacher.pt")
        teacher = ClassifierSettings(str(tmp_path / "teacher.pt"), "resnet18")
        if seed == 0:
            expand(photographs, tmp_path / "out", teacher=teacher)
        else:
            with pytest.raises(DataError, match="started with other settings: teacher_sha256"):
                expand(photographs, tmp_path / "out", teacher=teacher)


def test_nobody_works_on_when_the_reader_stops(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as told:
        expand(photographs, tmp_path, workers=4, progress=Stop(2))
    there = sum(1 for _ in tmp_path.rglob("*"))
    time.sleep(0.3)
    assert sum(1 for _ in tmp_path.rglob("*")) == there
    del told  # it kept the frames, and with them the reader, alive


def broken() -> Any:
    raise DataError("no bank here")


def test_a_worker_process_that_cannot_begin_says_why() -> None:
    with pytest.raises(DataError, match="no bank here"):
        list(LocalEngine(2, "processes").run(broken, [1, 2, 3]))


def test_what_a_lost_worker_had_done_is_not_done_again(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine repeats more than is missing: where a chunk's note is there, the chunk is done."""
    from sgdmix_albu.expand.execute.worker import Expander

    call, reports = Expander.__call__, []

    def twice(self: Expander, chunk: Any) -> Any:
        reports.append(call(self, chunk))
        with monkeypatch.context() as patch:
            patch.setattr(Expander, "_mixed", None)
            again = call(self, chunk)
        assert (again.written, again.size) == (reports[-1].written, reports[-1].size)
        return again

    monkeypatch.setattr(Expander, "__call__", twice)
    assert expand(photographs, tmp_path, workers=1).written == 36
    assert len(reports) == 9


def test_what_a_lost_worker_left_lying_goes(photographs: Path, tmp_path: Path) -> None:
    """A machine that is lost in the middle of a file; others go on to the end."""

    class Leaves(Progress):
        def over(self, items: Any, label: str, total: int, **_: Any) -> Iterator[Any]:
            for item in items:
                (tmp_path / "class 0" / ".sgdmix-abc.tmp").write_bytes(b"half") if label == "expanding" else None
                yield item

    expand(photographs, tmp_path, progress=Leaves())
    assert not list(tmp_path.rglob("*.tmp"))


def test_strengths_without_a_refiner(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"strengths needs a refiner, and the refiner is 'none'; got \(0.5,\)"):
        expand(photographs, tmp_path, refiner=RefinerSettings(strengths=[0.5]))


def test_what_its_workers_die_of_is_given_up(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that repeats what lost workers had would go on for ever; here one that forgets what was done."""

    class Stubborn(LocalEngine):
        def run(self, make: Any, items: Any) -> Any:
            worker = make()
            for item in items:
                for _ in range(40):
                    with contextlib.suppress(DeadError):
                        yield worker(item)
                        break

    class DeadError(Exception):
        pass

    def die(*_: Any) -> None:
        raise DeadError

    monkeypatch.setattr("sgdmix_albu.expand.pipeline.expanding_engine", lambda *_, **__: Stubborn(1))
    for module in ("pipeline", "execute.choice"):
        monkeypatch.setattr(f"sgdmix_albu.expand.{module}.LocalEngine", type("Other", (), {}))
    with monkeypatch.context() as patch:
        patch.setattr("sgdmix_albu.expand.execute.worker.Expander._mixed", die)
        for _ in range(2):  # the count begins anew with each command
            with pytest.raises(SGDMixError, match="^chunk 0 was started 5 times, and its worker died each time"):
                expand(photographs, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr("sgdmix_albu.bank.builder.read_pixels", die)
        with pytest.raises(SGDMixError, match="^bank part 0 was started 5 times"):
            expand(photographs, tmp_path / "other")
    expand(photographs, tmp_path / "out")
    monkeypatch.undo()
    assert verify(tmp_path / "out", progress=QUIET).good
