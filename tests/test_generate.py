"""``generate`` from end to end: the plan decides everything, and nothing that happens on the way can be seen after."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from offline_helpers import photograph, pixels, register_by_hand, write_tree
from PIL import Image
from test_offline_mix import foreground, nearest_pixels
from torch import nn
from torchvision.datasets import ImageFolder

from sgdmix_albu import cli
from sgdmix_albu.errors import DataError, InvalidInputError, UnknownNameError
from sgdmix_albu.offline import RefinerSettings, Settings, TeacherSettings, generate, verify
from sgdmix_albu.offline import bank as banking
from sgdmix_albu.offline import engines as working
from sgdmix_albu.offline.engines import LocalEngine
from sgdmix_albu.offline.progress import Progress
from sgdmix_albu.offline.run import Run

MINE = Settings(saliency="brightness", mask="bright", multiplier=3)
REAL = Settings(saliency="spectral_residual", mask="otsu", multiplier=3)


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend and a preset whose result can be checked by hand, under names; small chunks."""
    register_by_hand(monkeypatch)
    monkeypatch.setattr(Settings, "chunk", property(lambda self: 4))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bank of several parts; other processes do not see it."""
    monkeypatch.setattr(banking, "PART", 5)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("photographs"), classes=3, images=4)


def expand(data: Path | None, out: Path | str, settings: Settings = MINE, **options: Any) -> Any:
    return generate(data, out, settings=settings, **{"workers": 2, "progress": Progress(quiet=True), **options})


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the lock and the settings, which hold paths."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".sgdmix-lock", ".sgdmix-run.json")
    }


# What is made


def test_every_pixel_is_the_sources_or_the_targets(photographs: Path, tmp_path: Path, small_parts: None) -> None:
    done = expand(photographs, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert (done.planned, done.written, done.lost, len(rows)) == (36, 36, 0, 36)
    for row in rows:
        source, target = pixels(photographs / row["source"]), pixels(photographs / row["target"])
        mixed = pixels(tmp_path / "out" / row["file_name"])
        height, width = source.shape[:2]
        own, other = foreground(source), foreground(target)
        assert row["source_coverage"] == pytest.approx(own.mean())
        if target.shape != source.shape:
            target = np.asarray(Image.fromarray(target).resize((width, height), Image.Resampling.BICUBIC))
            other = nearest_pixels(other, height, width)
        assert np.array_equal(mixed, np.where((own | other)[..., None], source, target))
        assert row["kept"] == pytest.approx((own | other).mean())
        assert row["label"] == Path(row["source"]).parts[0] == Path(row["file_name"]).parts[0]


def test_no_source_gets_a_target_twice_and_copies_are_left_out(tmp_path: Path) -> None:
    data = write_tree(tmp_path / "data", classes=1, images=3)
    done = expand(data, tmp_path / "out", Settings(saliency="brightness", mask="bright", multiplier=4))
    pairs = [(row["source"], row["target"]) for row in rows_of(tmp_path / "out")]
    assert len(pairs) == len(set(pairs)) == 6  # three sources, two others each
    assert done.left_out == Counter(no_target=6)
    assert "left out 6: no further candidate" in str(done)


def test_more_outputs_leave_the_first_ones_as_they_were(photographs: Path, tmp_path: Path) -> None:
    expand(photographs, tmp_path / "few", Settings(saliency="brightness", mask="bright", multiplier=2))
    expand(photographs, tmp_path / "many", Settings(saliency="brightness", mask="bright", multiplier=4))
    few, many = (
        {row["file_name"]: (row["target"], row["seed"]) for row in rows_of(tmp_path / name)} for name in ("few", "many")
    )
    assert few.items() < many.items()
    assert len({seed for _, seed in many.values()}) == len(many)


def test_two_readers_agree(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expand(photographs, tmp_path / "out")
    rows = {row["file_name"]: row for row in rows_of(tmp_path / "out")}
    folder = ImageFolder(tmp_path / "out")
    assert folder.classes == ImageFolder(photographs).classes
    assert {Path(path).relative_to(tmp_path / "out").as_posix(): label for path, label in folder.samples} == {
        name: row["label_index"] for name, row in rows.items()
    }
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(loaded) == len(rows)
    assert sorted(loaded["sha256"]) == sorted(row["sha256"] for row in rows.values())


def test_jpeg_and_one_size(photographs: Path, tmp_path: Path) -> None:
    settings = Settings(saliency="brightness", mask="bright", multiplier=1, image_format="jpg", size=32)
    expand(photographs, tmp_path, settings)
    assert {pixels(tmp_path / row["file_name"]).shape for row in rows_of(tmp_path)} == {(32, 32, 3)}


# The same bytes, however it came about


def test_any_number_of_workers_gives_the_same_bytes(photographs: Path, tmp_path: Path) -> None:
    for workers in (1, 4):
        expand(photographs, tmp_path / str(workers), workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "4")


def test_processes_give_the_same_bytes(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expand(photographs, tmp_path / "threads", REAL)
    monkeypatch.setattr("sgdmix_albu.offline.pipeline._engine", lambda *_, **__: LocalEngine(2, "processes"))
    expand(photographs, tmp_path / "processes", REAL)
    assert contents(tmp_path / "threads") == contents(tmp_path / "processes")


class Stop(Progress):
    """Ctrl-C after so many results."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def over(self, items: Any, label: str, total: int, **_: Any) -> Iterator[Any]:
        for item in items:
            if self.after == 0:
                raise KeyboardInterrupt
            self.after -= 1
            yield item


def test_interrupted_anywhere_it_goes_on(photographs: Path, tmp_path: Path, small_parts: None) -> None:
    expand(photographs, tmp_path / "quiet")
    out, interruptions = tmp_path / "disturbed", 0
    while True:
        try:
            done = expand(photographs, out, workers=1, progress=Stop(2))
        except KeyboardInterrupt:
            interruptions += 1
            assert not (out / "metadata.jsonl").exists()
            continue
        break
    assert interruptions >= 3
    assert done.written < done.planned
    assert contents(out) == contents(tmp_path / "quiet")


def test_killed_it_goes_on(photographs: Path, tmp_path: Path) -> None:
    """SIGKILL of a real process, at moments when it is at work."""
    out = tmp_path / "disturbed"
    command = [sys.executable, "-m", "sgdmix_albu", "generate", str(photographs), str(out), "--refiner", "none"]
    command += ["--saliency", "spectral_residual", "--mask", "otsu", "--multiplier", "11", "--workers", "1"]
    for marks in (".sgdmix-run.json", ".sgdmix/done/*.jsonl"):
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        while not any(out.glob(marks)) and process.poll() is None:
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    quiet = [str(tmp_path / "quiet") if part == str(out) else part for part in command]
    subprocess.run(quiet, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert contents(out) == contents(tmp_path / "quiet")
    assert verify(out, progress=Progress(quiet=True)).good


@pytest.mark.parametrize("harm", ["remove", "cut"])
def test_only_what_is_missing_is_made_again(photographs: Path, tmp_path: Path, harm: str) -> None:
    expand(photographs, tmp_path)
    before = contents(tmp_path)
    victim = tmp_path / rows_of(tmp_path)[5]["file_name"]
    victim.unlink() if harm == "remove" else victim.write_bytes(victim.read_bytes()[:50])
    done = expand(photographs, tmp_path)
    assert (done.written, done.planned) == (4, 36)  # its chunk
    assert contents(tmp_path) == before
    again = expand(photographs, tmp_path)
    assert again.written == 0
    assert "36 were there" in str(again)


def test_a_damaged_note_is_made_again(photographs: Path, tmp_path: Path) -> None:
    expand(photographs, tmp_path / "quiet")
    with contextlib.suppress(KeyboardInterrupt):
        expand(photographs, tmp_path / "out", workers=1, progress=Stop(6))
    notes = sorted((tmp_path / "out" / ".sgdmix" / "done").iterdir())
    notes[0].write_bytes(notes[0].read_bytes()[:-30])
    expand(photographs, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "quiet")


# What may go wrong


def test_two_at_once(photographs: Path, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".sgdmix-lock"), pytest.raises(DataError, match="another sgdmix process is working on"):
        expand(photographs, tmp_path)


def test_other_settings_or_images_are_not_mixed_up(photographs: Path, tmp_path: Path) -> None:
    data = write_tree(tmp_path / "data", classes=2, images=3)
    expand(data, tmp_path / "out")
    with pytest.raises(DataError, match=r"begun with other settings: seed 0 \(now 7\)"):
        expand(data, tmp_path / "out", Settings(saliency="brightness", mask="bright", multiplier=3, seed=7))
    (data / "class 0" / "new.png").write_bytes((data / "class 0" / "000.png").read_bytes())
    with pytest.raises(DataError, match=r"images 6 \(now 7\)"):
        expand(data, tmp_path / "out")
    (tmp_path / "out" / "class 0" / "mine.txt").write_text("kept")
    done = expand(
        data, tmp_path / "out", Settings(saliency="brightness", mask="bright", multiplier=1, seed=7), overwrite=True
    )
    assert done.written == 7
    assert verify(tmp_path / "out", progress=Progress(quiet=True)).good  # nothing of the earlier run is left
    assert (tmp_path / "out" / "class 0" / "mine.txt").exists()


def test_a_folder_of_somebody_else(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(DataError, match=r"holds files of others, such as thesis\.tex"):
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
    with pytest.raises(DataError, match="a stored mask is damaged"):
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
    monkeypatch.setattr("sgdmix_albu.offline.pipeline._engine", lambda *_, **__: LocalEngine(2, "processes"))

    class Murderer(Progress):
        def over(self, items: Any, label: str, total: int, **_: Any) -> Iterator[Any]:
            for item in items:
                yield item
                if label == "expanding":
                    for child in working.multiprocessing.active_children():
                        os.kill(child.pid or 0, signal.SIGKILL)

    with pytest.raises(Exception, match="a worker process died .* goes on from what is done"):
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
        ({"size": True}, "size must be 1 or more, got True"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Settings(**settings)


def test_wrong_arguments_are_told_before_anything_is_written(photographs: Path, tmp_path: Path) -> None:
    for options, error, message in [
        ({"engine": "spark"}, InvalidInputError, "engine must be one of local, ray, got 'spark'"),
        ({"workers": 0}, InvalidInputError, "workers must be 1 or more"),
        ({"address": "auto"}, InvalidInputError, "go with engine='ray'"),
        ({"refiner": RefinerSettings("nope")}, UnknownNameError, "unknown refiner 'nope'"),
        ({"refiner": RefinerSettings("cub")}, DataError, "sgdmix finetune"),
        ({"refiner": RefinerSettings("cub", adaptive=True)}, InvalidInputError, "adaptive strength needs a teacher"),
        ({"teacher": TeacherSettings("nope.pt", "resnet18")}, DataError, "nope.pt"),
        ({"settings": Settings(saliency="nope")}, UnknownNameError, "unknown saliency backend 'nope'"),
        ({"settings": Settings(mask="nope")}, UnknownNameError, "nope"),
    ]:
        with pytest.raises(error, match=message):
            generate(photographs, tmp_path / "out", **{"settings": MINE, **options})  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


# Elsewhere and otherwise


def test_tar_shards(photographs: Path, tmp_path: Path) -> None:
    expand(photographs, tmp_path / "files")
    shards = Settings(saliency="brightness", mask="bright", multiplier=3, shards=True)
    for name in ("one", "other"):
        expand(photographs, tmp_path / name, shards)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")
    assert verify(tmp_path / "one", progress=Progress(quiet=True)).good
    files = {
        row["file_name"]: (tmp_path / "files" / row["file_name"]).read_bytes() for row in rows_of(tmp_path / "files")
    }
    seen = {}
    for row in rows_of(tmp_path / "one"):
        with tarfile.open(tmp_path / "one" / row["shard"]) as tar:
            key = row["file_name"].removesuffix(".png")
            members = {suffix: tar.extractfile(f"{key}.{suffix}").read() for suffix in ("png", "cls", "json")}  # type: ignore[union-attr]
        assert int(members["cls"]) == row["label_index"]
        assert json.loads(members["json"]) == row
        seen[row["file_name"]] = members["png"]
    assert seen == files
    victim = tmp_path / "one" / "shard-000003.tar"
    victim.write_bytes(victim.read_bytes()[:2000])
    assert not verify(tmp_path / "one", progress=Progress(quiet=True)).good


def test_another_file_system(photographs: Path, tmp_path: Path) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    expand(photographs, tmp_path)
    try:
        expand(photographs, "memory://bucket/out")
        found = {
            path.removeprefix("/bucket/out/"): MemoryFileSystem().cat_file(path)
            for path in MemoryFileSystem().find("/bucket/out")
        }
        assert {n: c for n, c in found.items() if n != ".sgdmix-run.json"} == contents(tmp_path)
        assert verify("memory://bucket/out", progress=Progress(quiet=True)).good
    finally:
        MemoryFileSystem.store.clear()
    with pytest.raises(DataError, match="cannot open nowhere://x"):
        expand(photographs, "nowhere://x")


def test_input_from_a_url(photographs: Path, tmp_path: Path) -> None:
    """The same images whether they are read from a path, from a URL of the same files, or from another store."""
    from fsspec.implementations.memory import MemoryFileSystem

    expand(photographs, tmp_path / "path")
    try:
        MemoryFileSystem().put(str(photographs), "/bucket/birds", recursive=True)
        for name, data in (("file", f"file://{photographs}"), ("memory", "memory://bucket/birds")):
            expand(data, tmp_path / name)
            assert contents(tmp_path / name) == contents(tmp_path / "path")
        MemoryFileSystem().pipe_file("/bucket/birds/class 0/001.png", b"")
        done = expand("memory://bucket/birds", tmp_path / "bad")
        assert [str(one) for one in done.skipped] == [
            "class 0/001.png: cannot read memory://bucket/birds/class 0/001.png: the file is empty"
        ]
        with pytest.raises(DataError, match="found no image in a class folder of memory://bucket/nothing"):
            expand("memory://bucket/nothing", tmp_path / "nothing")
    finally:
        MemoryFileSystem.store.clear()


def test_a_dry_run_writes_nothing(photographs: Path, tmp_path: Path) -> None:
    expected = expand(photographs, tmp_path / "out", dry_run=True)
    assert list(tmp_path.iterdir()) == []
    done = expand(photographs, tmp_path / "out")
    assert (expected.sources, expected.outputs, expected.classes) == (12, done.planned, 3)
    assert expected.size == pytest.approx(done.size)  # so small a set is tried whole
    assert "nothing was written" in str(expected)


def test_verify(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no metadata"):
        verify(tmp_path)
    with contextlib.suppress(KeyboardInterrupt):
        expand(photographs, tmp_path, workers=1, progress=Stop(4))
    with pytest.raises(DataError, match="is not finished"):
        verify(tmp_path)
    expand(photographs, tmp_path)
    first, second = rows_of(tmp_path)[:2]
    (tmp_path / first["file_name"]).unlink()
    file = tmp_path / second["file_name"]
    content = bytearray(file.read_bytes())
    content[60] ^= 1
    file.write_bytes(content)
    (tmp_path / "class 0" / "stranger.png").write_bytes(b"?")
    found = verify(tmp_path, progress=Progress(quiet=True))
    assert found.wrong == [
        f"{first['file_name']}: it is not there",
        f"{second['file_name']}: it was changed: {second['bytes']} bytes, {second['bytes']} were written",
    ]
    assert found.strangers == ["class 0/stranger.png"]


def test_the_command(photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(photographs), str(tmp_path / "out"), "--refiner", "none", "--saliency", "brightness"]
    assert cli.main(["generate", *command, "--mask", "bright", "--multiplier", "2"]) == 0
    assert "written  24 of 24 images from 12 sources" in capsys.readouterr().out
    assert cli.main(["verify", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == "verified 24 of 24 images\n"
    next((tmp_path / "out").rglob("*.png")).unlink()
    assert cli.main(["verify", str(tmp_path / "out")]) == 1
    assert cli.main(["generate", *command, "--strengths", "high"]) == 2


# With a refiner, and a teacher


@pytest.fixture(scope="module")
def insects(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set of two classes and a tiny refiner that knows them."""
    from tiny_diffusion import tiny_base, tiny_refiner

    root = tmp_path_factory.mktemp("insects")
    for label, name in enumerate(("ant", "bee")):
        for number in range(3):
            (root / "data" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(photograph(10 * label + number)).save(root / "data" / name / f"{number}.png")
    base = tiny_base(root / "base", architecture="sd", width=32)
    return root / "data", tiny_refiner(root / "refiner", base, ("ant", "bee"))


def test_refined_images_are_the_same_for_any_number_of_processes(insects: tuple[Path, Path], tmp_path: Path) -> None:
    data, refiner = insects
    settings = Settings(saliency="spectral_residual", mask="otsu", multiplier=2)
    for workers in (1, 2):
        expand(
            data,
            tmp_path / str(workers),
            settings,
            refiner=RefinerSettings(str(refiner), preserve="soft", device="cpu"),
            strengths=(0.3, 0.9),
            workers=workers,
        )
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    rows = rows_of(tmp_path / "1")
    assert {row["strength"] for row in rows} == {0.3, 0.9}
    assert all(row["timestep"] > 0 and row["preserve"] == "soft" for row in rows)
    assert all("ant" not in row["prompt"] for row in rows)  # the token, never the name
    expand(data, tmp_path / "mixed", settings)
    mixed, refined = contents(tmp_path / "mixed"), contents(tmp_path / "1")
    assert all(mixed[row["file_name"]] != refined[row["file_name"]] for row in rows)


class Colour(nn.Module):
    """Class 0 where the image is dark, class 1 where it is light."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        light = images.mean((1, 2, 3))
        return torch.stack([-light, light], 1)


def test_a_teacher_judges_and_decides(
    insects: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, refiner = insects

    def ant_for_ever(self: Any, classes: Any) -> Any:
        return lambda pixels: torch.tensor([[9.0, 0.0]]).repeat(len(pixels), 1)

    monkeypatch.setattr(TeacherSettings, "open", ant_for_ever)
    expand(
        data,
        tmp_path,
        Settings(saliency="spectral_residual", mask="otsu", multiplier=1),
        refiner=RefinerSettings(str(refiner), adaptive=True, device="cpu"),
        teacher=TeacherSettings("teacher.pt"),
        workers=1,
    )
    for row in rows_of(tmp_path):
        assert row["teacher"] == "ant"
        assert row["teacher_confidence"] == pytest.approx(1 / (1 + np.exp(-9)), abs=1e-5)
        assert row["accepted"] == (row["label"] == "ant")
        assert (row["strength"] > 0) == row["accepted"]


def test_a_real_teacher_is_opened_by_its_file(photographs: Path, tmp_path: Path) -> None:
    from torchvision.models import resnet18

    torch.save(resnet18(num_classes=3).state_dict(), tmp_path / "teacher.pt")
    expand(photographs, tmp_path / "out", teacher=TeacherSettings(str(tmp_path / "teacher.pt"), "resnet18"))
    assert {row["teacher"] for row in rows_of(tmp_path / "out")} <= {"class 0", "class 1", "class 2"}
    assert all(1 / 3 <= row["teacher_confidence"] <= 1 for row in rows_of(tmp_path / "out"))
