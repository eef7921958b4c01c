"""State files that somebody made to harm: one line, and no wait, no gigabytes, nothing written elsewhere."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expand_helpers import Stop, write_tree

from sgdmix_albu.bank.parts import ROW, _sum, unpacked
from sgdmix_albu.errors import DataError
from sgdmix_albu.expand import Settings, generate, mix_folder, verify
from sgdmix_albu.expand.store import done as done_file
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.io.records import UnsoundError
from sgdmix_albu.io.sums import sum_of
from sgdmix_albu.synthetic import SyntheticPool

QUIET = Progress(quiet=True)
FILES = Settings(saliency="spectral_residual", mask="otsu", multiplier=2)
SHARDS = Settings(saliency="spectral_residual", mask="otsu", multiplier=2, shards=True)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "chunk", property(lambda self: 4))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("photographs"), classes=2, images=3)


@pytest.fixture(scope="module")
def runs(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that was interrupted, one that is finished, one in shards, and a mixed folder."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Settings, "chunk", property(lambda self: 4))
        with contextlib.suppress(KeyboardInterrupt):
            generate(photographs, folder / "begun", settings=FILES, workers=1, progress=Stop(2))
        generate(photographs, folder / "finished", settings=FILES, workers=1, progress=QUIET)
        generate(photographs, folder / "shards", settings=SHARDS, workers=1, progress=QUIET)
        mix_folder(photographs, folder / "mixed", saliency="spectral_residual", mask="otsu", workers=1, progress=QUIET)
    assert (folder / "begun" / ".sgdmix" / "done").exists()
    return folder


@pytest.fixture
def run_in(runs: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of one of them."""
    return lambda name: Path(shutil.copytree(runs / name, tmp_path / name))


STATE = {
    "begun": [
        ".sgdmix-run.json",
        ".sgdmix-images.jsonl",
        ".sgdmix-plan.jsonl",
        ".sgdmix/bank/part-000000.json",
        ".sgdmix/bank/part-000000.rows",
        ".sgdmix/bank/part-000000.maps",
        ".sgdmix/bank/part-000000.masks",
        ".sgdmix/done/000000.jsonl",
        ".sgdmix-lock",
        ".sgdmix-holder",
    ],
    "finished": ["metadata.jsonl", ".sgdmix-run.json", ".sgdmix-quarantine.jsonl", "class 0/000-00.png"],
    "shards": ["metadata.jsonl", "shard-000000.tar"],
    "mixed": ["metadata.jsonl", ".sgdmix-run.json", "class 0/000.png"],
}
NO_FILES = {
    "pipe": os.mkfifo,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "huge": lambda path: sparse(path, 2**30 + 1),
    "one long line": lambda path: path.write_bytes(b" " * 2**21),
    "deep": lambda path: path.write_bytes(b"[" * 100_000),
}


def sparse(path: Path, size: int) -> None:
    """A file of zeros that takes no room."""
    with path.open("wb") as file:
        file.truncate(size)


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize(("name", "victim"), [(name, file) for name, files in STATE.items() for file in files])
def test_a_state_file_that_is_no_such_file(
    run_in: Callable[[str], Path], photographs: Path, name: str, victim: str, kind: str
) -> None:
    """Every command either does what it is for or says which file is at fault; none waits, or reads for ever."""
    out = run_in(name)
    (out / victim).unlink(missing_ok=True)
    NO_FILES[kind](out / victim)
    with little_memory():
        for command in (check, take_up, pool, anew):
            with contextlib.suppress(DataError):
                command(out, photographs, name)
                if command is anew:
                    assert verify(out, progress=QUIET).good


def check(out: Path, photographs: Path, name: str) -> None:
    verify(out, progress=QUIET)


def take_up(out: Path, photographs: Path, name: str, **options: Any) -> None:
    if name == "mixed":
        options = {"saliency": "spectral_residual", "mask": "otsu", "workers": 1, **options}
        mix_folder(photographs, out, progress=QUIET, **options)
        return
    settings = SHARDS if name == "shards" else FILES
    generate(photographs, out, settings=settings, workers=1, progress=QUIET, **options)


def pool(out: Path, photographs: Path, name: str) -> None:
    images = SyntheticPool(out)
    for place in range(len(images)):
        images.image(place)


def anew(out: Path, photographs: Path, name: str) -> None:
    take_up(out, photographs, name, overwrite=True)


@contextlib.contextmanager
def little_memory(most: int = 200_000_000) -> Iterator[None]:
    """Python's own memory, where contents of files are; a bomb of any kind has gigabytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


# Files whose sums are right: whoever can write one can write its sum


def sign(out: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what a run's file says, under a new sum."""
    path = out / ".sgdmix-run.json"
    about = json.loads(path.read_bytes())
    del about["sha256"]
    change(about)
    path.write_text(json.dumps({**about, "sha256": sum_of(about)}))


def plan_with(out: Path, **fields: Any) -> None:
    """A plan whose first line says something else, and a run that agrees; what was done is forgotten."""
    path = out / ".sgdmix-plan.jsonl"
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(json.dumps({**json.loads(first), **fields}).encode() + b"\n" + b"".join(others))
    sign(out, lambda about: about["plan"].update(sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    shutil.rmtree(out / ".sgdmix" / "done", ignore_errors=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        *[
            ({"name": name}, "it is the name of a file that is kept here")
            for name in ("metadata.jsonl", ".sgdmix-run.json", ".sgdmix/done/000001.jsonl", "metadata.jsonl/1.png")
        ],
        *[
            ({"name": name}, "no name of an output")
            for name in ("class 0/run.sh", "class 0/1.html", "shard-000000.tar", "class 0/1", "class 0/1.png/.")
        ],
        *[({field: "../x.png"}, "leads out of its folder") for field in ("name", "source", "target")],
        *[({field: -1}, "a whole number from 0") for field in ("seed", "source_place", "label_index")],
        *[({"seed": seed}, "expected a whole number") for seed in (10**400, 0.5, True, "1", None)],
        *[({"strength": strength}, "strength") for strength in (0, 1.5, 10**400, "0.7")],
        ({"source_place": 10**12}, "part-"),
        ({"target": None}, "half a target"),
        ({"unmixed": "not_drawn"}, "half a target"),
        ({"unmixed": "just so"}, "unmixed"),
        ({"refused": -1}, "a whole number from 0"),
        ({"further": 1}, "'further' is no field"),
        ({"prompt": "x" * 10**5}, "at most 10000 characters"),
    ],
)
def test_a_plan_made_to_harm(
    run_in: Callable[[str], Path], photographs: Path, fields: dict[str, Any], message: str
) -> None:
    out = run_in("begun")
    plan_with(out, **fields)
    before = (out / ".sgdmix-run.json").read_bytes()
    with pytest.raises(DataError, match=message):
        take_up(out, photographs, "begun")
    assert (out / ".sgdmix-run.json").read_bytes() == before
    assert not (out / "metadata.jsonl").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about["plan"].update(rows=-1),
        lambda about: about["plan"].update(rows=10**400),
        lambda about: about["plan"].update(left_out={"flat_saliency": "many"}),
        lambda about: about["plan"].update(left_out={"of no reason": 1}),
        lambda about: about["plan"].update(unusable=[["a"]]),
        lambda about: about["plan"].update(unusable=[[1, 2]]),
        lambda about: about.update(manifest={"rows": 1, "sha256": "x" * 64, "chunks": []}),
        lambda about: about.update(manifest={"rows": 1, "sha256": "0" * 64, "chunks": [1]}),
        lambda about: about.update(manifest={"rows": 1, "sha256": "0" * 64, "chunks": [], "unmixed": {"so": 1}}),
        lambda about: about.update(settings=[]),
        lambda about: about.update(schema=True),
        lambda about: about.update(schema="2"),
        lambda about: about.update(plan="none"),
    ],
)
def test_a_runs_file_made_to_harm(
    run_in: Callable[[str], Path], photographs: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    out = run_in("begun")
    sign(out, change)
    with pytest.raises(DataError, match=r"sgdmix-run\.json is damaged \(.*\); pass --overwrite to start over"):
        take_up(out, photographs, "begun")
    take_up(out, photographs, "begun", overwrite=True)
    assert verify(out, progress=QUIET).good


@pytest.mark.parametrize("name", ["begun", "finished", "mixed"])
def test_a_class_folder_that_is_a_link(
    run_in: Callable[[str], Path], photographs: Path, tmp_path: Path, name: str
) -> None:
    """Nothing is written, replaced or removed behind it."""
    out = run_in(name)
    shutil.rmtree(out / "class 0", ignore_errors=True)
    (tmp_path / "mine").mkdir()
    names = {path.name for path in (out / "class 1").iterdir()} | {"000-00.png", "000.png"}
    for one in names:
        (tmp_path / "mine" / one).write_bytes(b"precious")
    (out / "class 0").symlink_to(tmp_path / "mine")
    for command in (take_up, anew):
        with pytest.raises(DataError, match="link leads out|others"):
            command(out, photographs, name)
    assert {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()} == dict.fromkeys(names, b"precious")


def test_hidden_folders_that_are_links(run_in: Callable[[str], Path], photographs: Path, tmp_path: Path) -> None:
    out = run_in("begun")
    shutil.move(out / ".sgdmix", tmp_path / "elsewhere")
    (out / ".sgdmix").symlink_to(tmp_path / "elsewhere")
    before = sorted(path.name for path in (tmp_path / "elsewhere").rglob("*"))
    with pytest.raises(DataError, match="link leads out"):
        take_up(out, photographs, "begun")
    assert sorted(path.name for path in (tmp_path / "elsewhere").rglob("*")) == before


# Bombs


def test_a_mask_that_unpacks_to_gigabytes() -> None:
    bomb = zlib.compress(bytes(200_000_000), 9)  # 200 kB; ten times as large as any test should need
    with little_memory(20_000_000), pytest.raises(UnsoundError, match="for 40 x 48 pixels"):
        unpacked(bomb, (40, 48))
    whole = zlib.compress(bytes(240))
    assert not unpacked(whole, (40, 48)).any()
    with pytest.raises(UnsoundError, match="for 40 x 48 pixels"):
        unpacked(whole[:-1], (40, 48))
    with pytest.raises(UnsoundError, match="incorrect header"):
        unpacked(whole[1:], (40, 48))


HARM: dict[str, dict[str, Any]] = {
    "half a row": {"content": lambda rows: rows.tobytes()[:-1]},
    "more rows than a part has": {"content": lambda rows: bytes(600 * ROW.itemsize)},
    "gigabytes of rows": {"content": lambda rows: bytes(2**30)},
    "maps of 10**12 bytes": {"about": {"shape": [10**6, 10**6]}},
    "maps that do not fit the file": {"about": {"shape": [8192, 8192]}},
    "maps of another shape": {"about": {"shape": [32, 128]}},
    "a million images left out": {"about": {"skipped": [["owl/1.png", ""]] * 10**6}},
    "a reason of 10**5 letters": {"about": {"skipped": [["owl/1.png", "x" * 10**5]]}},
    "a field more": {"about": {"objects": ["os.system"]}},
    "sizes of 10**9": {"size": 10**9},
    "sizes below 0": {"size": -1},
    "ends fall": {"mask_end": [600, 500, 400, 300, 200, 100]},
    "ends below 0": {"mask_end": [-6, -5, -4, -3, -2, -1]},
    "places": {"place": [10**6, 10**6 + 1, 10**6 + 2, 10**6 + 3, 10**6 + 4, 10**6 + 5]},
    "a place twice": {"place": [0, 1, 1, 3, 4, 5]},
}


def rewritten(bank: Path, *, about: Any = (), content: Callable[[np.ndarray], bytes] = bytes, **fields: Any) -> None:
    """As somebody would change a part who knows its sums."""
    rows = np.fromfile(bank / "part-000000.rows", ROW)
    assert len(rows) == 6
    for name, values in fields.items():
        rows[name] = values
    known = {**json.loads((bank / "part-000000.json").read_bytes()), **dict(about)}
    changed = content(rows)
    (bank / "part-000000.rows").write_bytes(changed)
    (bank / "part-000000.json").write_text(json.dumps({**known, "crc32": _sum(known["shape"], changed)}))


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM.keys())
def test_a_bank_made_to_harm(run_in: Callable[[str], Path], photographs: Path, harm: dict[str, Any]) -> None:
    out = run_in("begun")
    rewritten(out / ".sgdmix" / "bank", **harm)
    damaged = r"part-000000\.(json|rows|maps) is damaged: .*; remove"
    with little_memory(100_000_000), pytest.raises(DataError, match=damaged):
        take_up(out, photographs, "begun")


def test_masks_that_end_far_away(run_in: Callable[[str], Path], photographs: Path) -> None:
    """In a file that is long enough for it, of zeros that take no room."""
    out = run_in("begun")
    bank = out / ".sgdmix" / "bank"
    rewritten(bank, mask_end=2**32 * np.arange(1, 7))
    sparse(bank / "part-000000.masks", 2**36)
    with little_memory(100_000_000), pytest.raises(DataError, match=r"part-000000\.rows is damaged: .*; remove"):
        take_up(out, photographs, "begun")


@pytest.mark.parametrize("kind", NO_FILES)
def test_a_plan_that_cannot_be_read_is_no_hindrance_to_begin_anew(
    run_in: Callable[[str], Path], photographs: Path, kind: str
) -> None:
    out = run_in("finished")
    (out / ".sgdmix-plan.jsonl").unlink()
    NO_FILES[kind](out / ".sgdmix-plan.jsonl")
    anew(out, photographs, "finished")
    assert verify(out, progress=QUIET).good


def test_a_note_in_the_place_of_another(run_in: Callable[[str], Path], photographs: Path) -> None:
    """Whole, and of as many images, all of which are there."""
    out = run_in("begun")
    done = out / ".sgdmix" / "done"
    shutil.copy(done / "000000.jsonl", done / "000001.jsonl")
    take_up(out, photographs, "begun")
    assert verify(out, progress=QUIET).good


def test_a_note_larger_than_any(monkeypatch: pytest.MonkeyPatch) -> None:
    content = done_file.done_bytes([{"file_name": "owl/1.png", "skipped": "owl/1.jpg", "reason": "it is empty"}])
    monkeypatch.setattr(done_file, "_LARGEST", len(content))
    assert done_file.read_done(content) is not None
    monkeypatch.setattr(done_file, "_LARGEST", len(content) - 1)
    assert done_file.read_done(content) is None


def test_two_outputs_in_one_line_of_a_plan(run_in: Callable[[str], Path], photographs: Path) -> None:
    out = run_in("begun")
    path = out / ".sgdmix-plan.jsonl"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r", 1))
    sign(out, lambda about: about["plan"].update(sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    with pytest.raises(DataError, match="not a line of a plan"):
        take_up(out, photographs, "begun")
    take_up(out, photographs, "begun", overwrite=True)
    assert verify(out, progress=QUIET).good


def test_a_thousand_folders_in_each_other(run_in: Callable[[str], Path], photographs: Path) -> None:
    """Beside the images they hinder nothing; where a run has its own, they are refused."""
    out = run_in("finished")
    deep = "a/" * 1100
    try:
        subprocess.run(["mkdir", "-p", out / deep], check=True)  # Python's functions for it call themselves
        (out / deep / "kept.txt").touch()
        pool(out, photographs, "finished")
        anew(out, photographs, "finished")
        assert verify(out, progress=QUIET).good
        assert (out / deep / "kept.txt").exists()
        (out / ".sgdmix").mkdir()
        (out / "a").rename(out / ".sgdmix" / "a")
        with pytest.raises(DataError, match=r"cannot remove .*sgdmix: maximum recursion depth"):
            take_up(out, photographs, "finished")
    finally:
        subprocess.run(["rm", "-r", out], check=True)  # pytest could not either


def test_an_image_in_a_thousand_folders(photographs: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(photographs, tmp_path / "data"))
    deep = data / "class 0" / ("a/" * 1100)
    try:
        subprocess.run(["mkdir", "-p", deep], check=True)
        shutil.copy(data / "class 0" / "000.png", deep)
        take_up(tmp_path / "made", data, "made")
        mix_folder(data, tmp_path / "mixed", saliency="spectral_residual", mask="otsu", workers=1, progress=QUIET)
        assert [verify(tmp_path / name, progress=QUIET).right for name in ("made", "mixed")] == [14, 7]
    finally:
        subprocess.run(["rm", "-r", *tmp_path.iterdir()], check=True)  # pytest could not


@pytest.mark.parametrize("size", [10**6, 2**40])
def test_a_shard_that_was_made_longer(run_in: Callable[[str], Path], photographs: Path, size: int) -> None:
    """With zeros that take no room; the manifest may say so too."""
    out = run_in("shards")
    with (out / "shard-000000.tar").open("r+b") as file:
        file.truncate(size)
    lines = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    for row in lines:
        if row["shard"] == "shard-000000.tar":
            row["shard_bytes"] = size
    text = "".join(json.dumps(row) + "\n" for row in lines)
    (out / "metadata.jsonl").write_text(text)
    made = {"rows": len(lines), "sha256": hashlib.sha256(text.encode()).hexdigest(), "chunks": []}
    sign(out, lambda about: about.update(manifest=made))
    with little_memory():
        found = verify(out, progress=QUIET)
        assert len(found.wrong) == 4
        assert "labels or metadata in shard-000000.tar were changed" in found.wrong[0]
        pool(out, photographs, "shards")  # the images are where they were


def test_a_manifest_that_claims_an_image_of_exabytes(run_in: Callable[[str], Path], photographs: Path) -> None:
    out = run_in("shards")
    lines = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    for row in lines:
        row["bytes"] = 2**62
    (out / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    with little_memory():
        assert not verify(out, progress=QUIET).good
        with pytest.raises(DataError):
            pool(out, photographs, "shards")
