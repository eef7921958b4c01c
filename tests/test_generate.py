"""``generate`` from end to end: the plan decides everything, and nothing that happens on the way can be seen after."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

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
from PIL import Image
from test_expand_mix import check_painted, foreground, nearest_pixels
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18
from torchvision.transforms._presets import ImageClassification
from torchvision.transforms.functional import normalize, to_tensor

from sgdmix_albu import cli
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.expand import ClassifierSettings, Expansion, RefinerSettings, Settings, verify
from sgdmix_albu.expand.execute.local import LocalEngine
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.types import Fill

pytestmark = pytest.mark.usefixtures("by_hand", "small_chunks")


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


def test_targets_lose_their_objects_to_paint(photographs: Path, tmp_path: Path, small_parts: None) -> None:
    done = expand(photographs, tmp_path, dataclasses.replace(MINE, fill="inpaint", feather=0))
    assert (done.planned, done.written, done.lost) == (36, 36, 0)
    for row in rows_of(tmp_path):
        check_painted(row, photographs, tmp_path)
    assert verify(tmp_path, progress=Progress(quiet=True)).good


MOVED = dataclasses.replace(MINE, fill="inpaint", place="random", feather=0)


def test_objects_are_moved_to_where_the_manifest_says(photographs: Path, tmp_path: Path, small_parts: None) -> None:
    """Discs are brighter than 180, all else and all paint is darker than 100."""
    done = expand(photographs, tmp_path, MOVED)
    assert (done.planned, done.written, done.lost) == (36, 36, 0)
    rows = rows_of(tmp_path)
    for row in rows:
        own, found = foreground(pixels(photographs / row["source"])), foreground(pixels(tmp_path / row["file_name"]))
        scale, dy, dx = row["placement"]
        there, here = (np.argwhere(region).mean(0) + 0.5 for region in (found, own))
        np.testing.assert_allclose(there, scale * here + np.array([dy, dx]) * own.shape, atol=0.6)
        assert row["kept"] == pytest.approx(found.mean())
        assert found.sum() == pytest.approx(scale**2 * own.sum(), rel=0.2, abs=6)
        ends = [
            scale * end + shift * side
            for where, shift, side in zip(np.nonzero(own), (dy, dx), own.shape, strict=True)
            for end in (where.min(), where.max() + 1)
        ]
        assert min(ends) >= -1e-9
        assert (ends[1], ends[3]) <= own.shape
        assert row["place"] == "random"
    planned = [json.loads(line)["placed"] for line in (tmp_path / ".sgdmix-plan.jsonl").read_text().splitlines()]
    assert len({number for placed in planned for number in placed}) == 3 * 36
    assert verify(tmp_path, progress=Progress(quiet=True)).good


def test_moved_objects_are_the_same_bytes_however_they_are_made(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_parts: None
) -> None:
    expand(photographs, tmp_path / "one", MOVED, workers=1)
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            expand(photographs, tmp_path / "disturbed", MOVED, workers=2, progress=Stop(4))
            break
    assert contents(tmp_path / "one") == contents(tmp_path / "disturbed")
    expand(photographs, tmp_path / "fewer", dataclasses.replace(MOVED, multiplier=2))
    more = {row["file_name"]: row["sha256"] for row in rows_of(tmp_path / "one")}
    assert all(more[row["file_name"]] == row["sha256"] for row in rows_of(tmp_path / "fewer"))
    still = {row["target"] for row in rows_of(tmp_path / "one")}
    expand(photographs, tmp_path / "unmoved", dataclasses.replace(MOVED, place="source"))
    assert still == {row["target"] for row in rows_of(tmp_path / "unmoved")}
    assert all(row["placement"] is None for row in rows_of(tmp_path / "unmoved"))
    with pytest.raises(DataError, match=r"started with other settings: place 'source' \(now 'random'\)"):
        expand(photographs, tmp_path / "unmoved", MOVED)


def test_a_run_with_another_fill_is_another_run(photographs: Path, tmp_path: Path) -> None:
    painted = dataclasses.replace(MINE, fill="inpaint")
    for workers in (1, 2):
        with contextlib.suppress(KeyboardInterrupt):
            expand(photographs, tmp_path / str(workers), painted, workers=1, progress=Stop(3 + workers))
        with pytest.raises(DataError, match=r"started with other settings: feather None \(now 0\), fill 'inpaint' \("):
            expand(photographs, tmp_path / str(workers), MINE)
        expand(photographs, tmp_path / str(workers), painted, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_a_run_of_a_version_that_knew_one_fill_goes_on(photographs: Path, tmp_path: Path) -> None:
    expand(photographs, tmp_path / "whole")
    with contextlib.suppress(KeyboardInterrupt):
        expand(photographs, tmp_path / "old", workers=1, progress=Stop(4))
    file = tmp_path / "old" / ".sgdmix-run.json"
    about = json.loads(file.read_text())
    assert (about["settings"].pop("fill"), about["settings"].pop("place")) == ("source", "source")
    assert about.pop("sha256")
    assert (about["settings"].pop("p"), about["settings"].pop("keep_unmixed")) == (1.0, False)
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps({**about, "sha256": digest}))
    bank = tmp_path / "old" / ".sgdmix" / "bank"
    assert list(bank.iterdir())
    shutil.rmtree(bank)
    bank.mkdir()
    (bank / "part-000000.npz").write_bytes(b"of another format: it is made anew")
    with pytest.raises(DataError, match=r"fill 'source' \(now 'inpaint'\)"):
        expand(photographs, tmp_path / "old", dataclasses.replace(MINE, fill="inpaint"))
    expand(photographs, tmp_path / "old")
    assert contents(tmp_path / "old") == contents(tmp_path / "whole")


def test_every_row_has_every_field_whichever_version_made_it(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with contextlib.suppress(KeyboardInterrupt):
        expand(photographs, out, workers=1, progress=Stop(4))
    later = ("mixed", "unmixed_because", "refused_over_coverage", "source_threshold", "target_threshold")
    later += ("place", "placement")
    for file in (out / ".sgdmix" / "done").iterdir():
        rows = [json.loads(line) for line in file.read_bytes().splitlines()[1:]]
        lines = b"".join(json.dumps({k: v for k, v in row.items() if k not in later}).encode() + b"\n" for row in rows)
        file.write_bytes(hashlib.sha256(lines).hexdigest().encode() + b"\n" + lines)
    done = expand(photographs, out)
    assert 0 < done.written < done.planned
    rows = rows_of(out)
    assert len({frozenset(row) for row in rows}) == 1
    assert all(row["mixed"] for row in rows)
    assert verify(out, progress=Progress(quiet=True)).good


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
    monkeypatch.setattr("sgdmix_albu.expand.pipeline.expanding_engine", lambda *_, **__: LocalEngine(2, "processes"))
    expand(photographs, tmp_path / "processes", REAL)
    assert contents(tmp_path / "threads") == contents(tmp_path / "processes")


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


# Elsewhere and otherwise


def test_tar_shards(photographs: Path, tmp_path: Path) -> None:
    expand(photographs, tmp_path / "files")
    shards = dataclasses.replace(MINE, shards=True)
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
        assert json.loads(members["json"]) == {name: value for name, value in row.items() if name != "shard_bytes"}
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
        f"{first['file_name']}: it is missing",
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
    assert cli.main(["generate", *command, "--place", "random", "--fill", "source"]) == 2
    assert "--place random needs" in capsys.readouterr().err
    moved = [command[0], str(tmp_path / "moved"), *command[2:], "--mask", "bright", "--place", "random"]
    assert cli.main(["generate", *moved]) == 0
    assert cli.main(["verify", str(tmp_path / "moved")]) == 0


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


def test_explore_shows_what_generate_writes(
    insects: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its command is run."""
    from sgdmix_albu.explore import Choices, Explorer, Given

    given = Given(data=str(insects[0]), size=32, refiner=RefinerSettings(str(insects[1]), device="cpu", steps=4))
    choices = Choices(saliency="spectral_residual", mask="otsu", strength=0.6, preserve="none")
    look = Explorer(given).look("ant/1.png", choices)
    assert not np.array_equal(look.panels["mixed"], look.panels["refined"])
    monkeypatch.chdir(tmp_path)
    assert cli.main([*shlex.split(look.command)[1:], "--workers", "1"]) == 0
    difference = pixels(tmp_path / "out" / "ant" / "1.png").astype(int) - look.result.permute(1, 2, 0).numpy()
    assert np.abs(difference).max() <= 1  # there all images are refined together


@pytest.mark.parametrize("fill", ["source", "inpaint"])
def test_refined_images_are_the_same_for_any_number_of_processes(
    insects: tuple[Path, Path], tmp_path: Path, fill: Fill
) -> None:
    data, refiner = insects
    settings = Settings(saliency="spectral_residual", mask="otsu", fill=fill, multiplier=2)
    for workers in (1, 2):
        expand(
            data,
            tmp_path / str(workers),
            settings,
            refiner=RefinerSettings(str(refiner), strengths=(0.3, 0.9), preserve="soft", device="cpu"),
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


def test_holes_are_drawn_anew_where_the_strength_leaves_the_rest_alone(
    insects: tuple[Path, Path], tmp_path: Path
) -> None:
    data, refiner = insects
    settings = Settings(saliency="spectral_residual", mask="otsu", fill="inpaint", multiplier=1)
    expand(data, tmp_path / "mixed", settings)
    refining = RefinerSettings(str(refiner), strengths=(0.05,), device="cpu", hole_strength=1.0)
    expand(data, tmp_path / "refined", settings, refiner=refining, workers=1)
    rows = rows_of(tmp_path / "refined")
    assert {(row["strength"], row["timestep"], row["accepted"]) for row in rows} == {(0.0, None, True)}
    for row in rows:
        mixed, refined = (pixels(tmp_path / name / row["file_name"]) for name in ("mixed", "refined"))
        assert not np.array_equal(mixed, refined)


def test_the_base_is_noted_found_from_anywhere_and_not_changed(
    insects: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, refiner = insects
    shutil.copytree(json.loads((refiner / "refiner.json").read_text())["base"], tmp_path / "sd15")
    monkeypatch.chdir(tmp_path)
    settings = Settings(saliency="spectral_residual", mask="otsu", multiplier=1)

    def made(base: str) -> Expansion:
        refining = RefinerSettings(str(refiner), base=base, strengths=(0.3,), device="cpu")
        return expand(data, tmp_path / "out", settings, refiner=refining, workers=1, limit=2)

    made("sd15/")
    rows = rows_of(tmp_path / "out")
    assert {row["base"] for row in rows} == {"sd15"}  # not where it is
    assert {len(row["base_sha256"]) for row in rows} == {64}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert made("../sd15/../sd15").written == 0
    config = tmp_path / "sd15" / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(DataError, match="started with other settings: base_sha256"):
        made(str(tmp_path / "sd15"))


def tiny_lora(folder: Path) -> str:
    """A LoRA file of one layer."""
    from safetensors.torch import save_file

    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    with torch.random.fork_rng():
        torch.manual_seed(3)
        down, up = torch.randn(2, 16), torch.randn(16, 2)
    state = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(2.0)}
    save_file(state, folder / "style.safetensors")
    return str(folder / "style.safetensors")


@pytest.mark.parametrize(
    ("name", "value", "noted"),
    [
        ("steps", 12, 12),
        ("guidance", 1.0, 1.0),
        ("scheduler", "EulerAncestralDiscreteScheduler", "EulerAncestralDiscreteScheduler"),
        ("dtype", "bfloat16", "bfloat16"),
        ("loras", "a tiny one", ANY),
    ],
)
def test_what_a_refiner_is_asked_for_is_done_and_noted(
    insects: tuple[Path, Path], tmp_path: Path, name: str, value: object, noted: object
) -> None:
    """Each changes the images, and a run goes on under the same only."""
    data, refiner = insects
    plain = RefinerSettings(str(refiner), strengths=(0.9,), preserve="none", device="cpu")
    options = {name: (tiny_lora(tmp_path),) if name == "loras" else value}
    asked = dataclasses.replace(plain, **options)
    expand(data, tmp_path / "plain", REAL, refiner=plain, workers=1, limit=2)
    expand(data, tmp_path / "asked", REAL, refiner=asked, workers=1, limit=2)
    pairs = [
        (pixels(tmp_path / "plain" / row["file_name"]), pixels(tmp_path / "asked" / row["file_name"]))
        for row in rows_of(tmp_path / "asked")
    ]
    assert pairs
    assert any((one != other).any() for one, other in pairs)
    assert {name in row for row in rows_of(tmp_path / "plain")} == {False}  # as in runs that could not ask
    for row in rows_of(tmp_path / "asked"):
        assert row[name] == noted
        assert name != "loras" or row[name][0].startswith("style.safetensors ")  # its sum, and not where it is
    assert expand(data, tmp_path / "asked", REAL, refiner=asked, workers=1, limit=2).written == 0
    with pytest.raises(DataError, match=f"started with other settings: {name}"):
        expand(data, tmp_path / "asked", REAL, refiner=plain, workers=1, limit=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be 1 or more, got 0"),
        ({"steps": 1, "strengths": (0.3,)}, "steps must leave a step to refine: .* none at strength 0.3; .* least 4"),
        ({"hole_strength": 1.0}, "hole_strength needs fill='inpaint', which paints holes; got fill='source'"),
        ({"guidance": -1}, "guidance must be 0 or more, got -1"),
        ({"scheduler": "Eulr"}, "scheduler must be one of .*, got 'Eulr'"),
        ({"dtype": "float8"}, "dtype must be one of float32, float16, bfloat16, got 'float8'"),
        ({"loras": ["nowhere.safetensors"]}, "nowhere.safetensors"),
        ({"base": str(Path(__file__).parent)}, "with model_index.json, found none in"),
        ({"strengths": "high"}, "strengths must be one of adaptive, got 'high'"),
        ({"strengths": (0.5, 2)}, r"strengths must lie in \(0, 1\], got 2"),
    ],
)
def test_what_a_refiner_cannot_be_asked_is_told_before_any_work(
    insects: tuple[Path, Path], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    data, refiner = insects
    with pytest.raises((InvalidInputError, DataError), match=message):
        expand(data, tmp_path / "out", REAL, refiner=RefinerSettings(str(refiner), device="cpu", **options))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def broken_base(insects: tuple[Path, Path], tmp_path: Path) -> Path:
    """A base whose UNet holds one weight that is no number."""
    from safetensors.torch import load_file, save_file

    base = Path(shutil.copytree(json.loads((insects[1] / "refiner.json").read_text())["base"], tmp_path / "base"))
    weights = base / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state["conv_in.weight"][0, 0, 0, 0] = float("nan")
    save_file(state, weights, {"format": "pt"})
    return base


def test_images_whose_numbers_break_are_quarantined(
    insects: tuple[Path, Path], broken_base: Path, tmp_path: Path
) -> None:
    """They were written as black pictures, and called accepted."""
    data, refiner = insects
    refining = RefinerSettings(str(refiner), base=str(broken_base), device="cpu")
    with pytest.warns(RuntimeWarning, match="NaN or infinite numbers for image"):
        found = expand(data, tmp_path / "out", REAL, refiner=refining, workers=1)
    assert found.written == 0
    assert found.lost == found.planned == 18
    assert rows_of(tmp_path / "out") == []
    assert not list((tmp_path / "out").rglob("*.png"))
    assert {one.reason for one in found.skipped} == {
        "the refiner gave NaN or infinite numbers, in single precision too"
    }


def test_a_strip_costs_its_own_outputs_only(insects: tuple[Path, Path], tmp_path: Path) -> None:
    data, refiner = Path(shutil.copytree(insects[0], tmp_path / "data")), insects[1]
    Image.fromarray(photograph(7, (160, 8))).save(data / "ant" / "strip.png")
    settings = Settings(saliency="spectral_residual", mask="otsu", multiplier=2, target_class="any")
    found = expand(data, tmp_path / "out", settings, refiner=RefinerSettings(str(refiner), device="cpu"), workers=1)
    assert {row["source"] for row in rows_of(tmp_path / "out")} == {
        f"{name}/{number}.png" for name in ("ant", "bee") for number in range(3)
    }
    ((key, reason),) = {(one.key, one.reason) for one in found.skipped}
    assert key == "ant/strip.png"
    assert reason.startswith("it cannot be refined: expected images at most 4 times as long as wide, got 160 x 8")


@pytest.fixture
def teacher(insects: tuple[Path, Path], tmp_path: Path) -> tuple[ClassifierSettings, Callable[[Path], torch.Tensor]]:
    """A teacher of two classes whose confidence depends on the pixels, and torchvision's own use of it on a file."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = resnet18(num_classes=2).eval()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
        model.fc.weight.data *= 40
    preset = ImageClassification(crop_size=64)
    with torch.no_grad():  # centred on the images, so that both classes are named
        images = (to_tensor(Image.open(path)) for path in insects[0].rglob("*.png"))
        model.fc.bias.data -= torch.cat(
            [model(normalize(image, preset.mean, preset.std)[None]) for image in images]
        ).mean(0)
    torch.save(model.state_dict(), tmp_path / "teacher.pt")

    def confidences(path: Path) -> torch.Tensor:
        image = to_tensor(Image.open(path))
        with torch.no_grad():
            return model(normalize(image, preset.mean, preset.std)[None]).softmax(1)[0]

    return ClassifierSettings(str(tmp_path / "teacher.pt"), "resnet18"), confidences


def test_a_teacher_sees_the_images_that_were_written(
    insects: tuple[Path, Path], teacher: tuple[ClassifierSettings, Callable[[Path], torch.Tensor]], tmp_path: Path
) -> None:
    """Its opinion in the manifest is torchvision's on the file; once it was shown black pictures."""
    settings, confidences = teacher
    expand(insects[0], tmp_path / "out", REAL, teacher=settings)
    rows = rows_of(tmp_path / "out")
    for row in rows:
        seen = confidences(tmp_path / "out" / row["file_name"])
        assert row["teacher"] == ("ant", "bee")[int(seen.argmax())]
        assert row["teacher_confidence"] == pytest.approx(float(seen.max()), abs=1e-4)
    spread = [row["teacher_confidence"] for row in rows]
    assert max(spread) - min(spread) > 0.05  # else a teacher that sees nothing would pass


def test_a_teacher_decides_on_the_strength(
    insects: tuple[Path, Path], teacher: tuple[ClassifierSettings, Callable[[Path], torch.Tensor]], tmp_path: Path
) -> None:
    """The largest strength of the refiner's at which torchvision's use of the teacher still names the class."""
    settings, confidences = teacher
    mixing = Settings(saliency="spectral_residual", mask="otsu", multiplier=3)
    refining = RefinerSettings(str(insects[1]), preserve="none", device="cpu")
    rungs = {}
    for strength in (0.9, 0.6, 0.3):
        one = dataclasses.replace(refining, strengths=(strength,))
        expand(insects[0], tmp_path / str(strength), mixing, refiner=one, workers=1)
        for row in rows_of(tmp_path / str(strength)):
            seen = confidences(tmp_path / str(strength) / row["file_name"])
            sure = float(seen[row["label_index"]])
            assert abs(sure - 0.5) > 0.001  # rounding decides nothing here
            rungs[row["file_name"], strength] = sure > 0.5
    adaptive = dataclasses.replace(refining, strengths="adaptive")
    expand(insects[0], tmp_path / "out", mixing, refiner=adaptive, teacher=settings, workers=1)
    planned = (tmp_path / "out" / ".sgdmix-plan.jsonl").read_text().splitlines()
    assert {json.loads(line)["strength"] for line in planned} == {None}  # nobody knows yet
    rows = rows_of(tmp_path / "out")
    for row in rows:
        allowed = [strength for strength in (0.9, 0.6, 0.3) if rungs[row["file_name"], strength]]
        assert row["strength"] == max(allowed, default=0.0)
        assert row["accepted"] == bool(allowed)
    assert len({row["strength"] for row in rows}) > 1


def test_a_teacher_is_found_from_anywhere(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers may start elsewhere, and the same command may be given again from another folder."""
    torch.save(resnet18(num_classes=3).state_dict(), tmp_path / "teacher.pt")
    monkeypatch.chdir(tmp_path)
    expand(photographs, "out", teacher=ClassifierSettings("teacher.pt", "resnet18"))
    run = json.loads((tmp_path / "out" / ".sgdmix-run.json").read_text())
    assert run["settings"]["teacher_model"] == "teacher.pt"
    monkeypatch.chdir(photographs)
    elsewhere = os.path.relpath(tmp_path / "teacher.pt", photographs)
    expand(photographs, tmp_path / "out", teacher=ClassifierSettings(elsewhere, "resnet18"))
