"""Everything that a run reads back from disk, damaged: one clear error, or the work is done again; never nonsense."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from expand_helpers import write_tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgdmix_albu.errors import DataError
from sgdmix_albu.expand import Settings, generate, verify
from sgdmix_albu.expand.plan.rows import Row, read_rows, row_line
from sgdmix_albu.io.progress import Progress

QUIET = Progress(quiet=True)
SETTINGS = Settings(saliency="spectral_residual", mask="otsu", multiplier=2)
many = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
junk = st.binary(max_size=120) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
).map(lambda value: json.dumps(value).encode())
ROW = Row("a/1.png", "a", 0, "a/1.jpg", "b/2.jpg", "b", 0, 7, 0.1, 5, 0.7, "a bird")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("photographs"), classes=2, images=3)


class Stop(Progress):
    """Ctrl-C as soon as something was made."""

    def over(self, items: Any, label: str, total: int, **_: Any) -> Any:
        for item in items:
            yield item
            if label == "expanding":
                raise KeyboardInterrupt


@pytest.fixture(scope="module")
def begun(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted."""
    out = tmp_path_factory.mktemp("out") / "run"
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(Settings, "chunk", property(lambda self: 4))
        generate(photographs, out, settings=SETTINGS, workers=1, progress=Stop())
    assert not (out / "metadata.jsonl").exists()
    return out


VICTIMS = {
    "run": ".sgdmix-run.json",
    "images": ".sgdmix-images.jsonl",
    "plan": ".sgdmix-plan.jsonl",
    "note": ".sgdmix/done/000000.jsonl",
    "bank": ".sgdmix/bank/part-000000.json",
    "descriptors": ".sgdmix/bank/part-000000.rows",
    "maps": ".sgdmix/bank/part-000000.maps",
    "masks": ".sgdmix/bank/part-000000.masks",
}


def damage(file: Path, how: str, where: float, bits: int, instead: bytes) -> None:
    content = file.read_bytes()
    place = min(int(where * len(content)), max(len(content) - 1, 0))
    changed = content[:place] + bytes([content[place] ^ bits if content else bits]) + content[place + 1 :]
    file.write_bytes({"replace": instead, "cut": content[:place], "change": changed}[how])


@pytest.mark.parametrize("victim", VICTIMS.values(), ids=VICTIMS.keys())
@many
@given(how=st.sampled_from(["replace", "cut", "change"]), where=st.floats(0, 1), bits=st.integers(1, 255), instead=junk)
def test_a_damaged_run(
    begun: Path, photographs: Path, tmp_path_factory: pytest.TempPathFactory, victim: str, how: str, where: float,
    bits: int, instead: bytes,
) -> None:  # fmt: skip
    out = tmp_path_factory.mktemp("damaged") / "run"
    shutil.copytree(begun, out)
    damage(out / victim, how, where, bits, instead)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Settings, "chunk", property(lambda self: 4))
        try:
            generate(photographs, out, settings=SETTINGS, workers=1, progress=QUIET)
        except DataError as error:
            finished_looking = (out / "metadata.jsonl").exists()
            follow(str(error), photographs, out)
            assert not finished_looking
    assert verify(out, progress=QUIET).good
    names = [json.loads(line)["file_name"] for line in (out / "metadata.jsonl").read_bytes().splitlines()]
    assert len(names) == len(set(names)) == 12
    shutil.rmtree(out)


def follow(advice: str, photographs: Path, out: Path) -> None:
    """Do what the error says, in its one line."""
    assert "\n" not in advice
    found = re.search(r"; remove (.*) to rebuild (it|both)$", advice)
    if found:
        shutil.rmtree(found[1]) if Path(found[1]).is_dir() else Path(found[1]).unlink()
    else:
        assert advice.endswith("pass --overwrite to start over")
    generate(photographs, out, settings=SETTINGS, workers=1, progress=QUIET, overwrite=not found)


@pytest.fixture(scope="module")
def finished(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    generate(photographs, out, settings=SETTINGS, workers=1, progress=QUIET)
    return out


FINISHED = (
    "metadata.jsonl",
    ".sgdmix-run.json",
    ".sgdmix-images.jsonl",
    ".sgdmix-plan.jsonl",
    ".sgdmix-quarantine.jsonl",
)


@pytest.mark.parametrize("victim", FINISHED)
@many
@given(how=st.sampled_from(["replace", "cut", "change"]), where=st.floats(0, 1), bits=st.integers(1, 255), instead=junk)
def test_a_damaged_finished_run(
    finished: Path, photographs: Path, tmp_path_factory: pytest.TempPathFactory, victim: str, how: str, where: float,
    bits: int, instead: bytes,
) -> None:  # fmt: skip
    """The same command mends it, or says how; what was made stays the same."""
    out = tmp_path_factory.mktemp("damaged") / "run"
    shutil.copytree(finished, out)
    damage(out / victim, how, where, bits, instead)
    with contextlib.suppress(DataError):
        same = (out / "metadata.jsonl").read_bytes() == (finished / "metadata.jsonl").read_bytes()
        assert verify(out, progress=QUIET).good == same
    try:
        generate(photographs, out, settings=SETTINGS, workers=1, progress=QUIET)
    except DataError as error:
        follow(str(error), photographs, out)
    assert verify(out, progress=QUIET).good
    assert (out / "metadata.jsonl").read_bytes() == (finished / "metadata.jsonl").read_bytes()
    shutil.rmtree(out)


def test_killed_between_the_manifest_and_the_end(photographs: Path, tmp_path: Path) -> None:
    """Found by killing: what a run needs was left behind, where ImageFolder takes it for a class."""
    generate(photographs, tmp_path, settings=SETTINGS, progress=QUIET)
    (tmp_path / ".sgdmix" / "done").mkdir(parents=True)
    (tmp_path / ".sgdmix" / "done" / "000000.jsonl").touch()
    generate(photographs, tmp_path, settings=SETTINGS, progress=QUIET)
    assert not (tmp_path / ".sgdmix").exists()


@many
@given(line=junk)
def test_a_plan_line_that_is_none(line: bytes) -> None:
    for one in filter(None, line.splitlines()):
        with pytest.raises(DataError):
            read_rows(one)


def test_a_plan_line_of_a_version_that_mixed_all() -> None:
    line = json.loads(row_line(ROW))
    del line["unmixed"], line["refused"], line["placed"]
    (planned,) = read_rows(json.dumps(line).encode())
    assert planned == ROW
    assert (planned.unmixed, planned.refused, planned.placed) == (None, None, None)


@many
@given(field=st.sampled_from(Row.__slots__), value=junk)
def test_a_plan_line_with_a_wrong_field(field: str, value: bytes) -> None:
    row = json.loads(row_line(ROW))
    try:
        row[field] = json.loads(value)
    except ValueError:
        return
    try:
        (planned,) = read_rows(json.dumps(row).encode())
    except DataError:
        return
    assert (planned.target is None) == (planned.unmixed is not None)
    for name in (planned.name, *(key for _, key in planned.images)):
        assert name
        assert ".." not in name.split("/")
        assert not name.startswith("/")
    assert planned.strength is None or 0 < planned.strength <= 1
    assert planned.placed is None or (len(planned.placed) == 3 and all(0 <= one <= 1 for one in planned.placed))


@pytest.mark.parametrize("placed", [[0.1, 0.2], [0.1] * 4, [0.1, 0.2, 1.5], [0.1, 0.2, None], "abc"])
def test_a_place_that_is_none(placed: Any) -> None:
    with pytest.raises(DataError, match="'placed'"):
        read_rows(json.dumps({**json.loads(row_line(ROW)), "placed": placed}).encode())


def test_a_place_survives_being_written() -> None:
    row = dataclasses.replace(ROW, placed=(0.1, 1 / 3, 0.999999999999999))
    assert read_rows(row_line(row)) == [row]
    alone = dataclasses.replace(
        row, target=None, target_label=None, target_place=None, distance=None, unmixed="not_drawn"
    )
    with pytest.raises(DataError, match="a place and no target"):
        read_rows(row_line(alone))


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "a/../../x", "", "a\0b"])
def test_names_that_lead_out(name: str) -> None:
    for field in ("name", "source", "target"):
        row = {**json.loads(row_line(ROW)), field: name}
        with pytest.raises(DataError, match="leads out of its folder"):
            read_rows(json.dumps(row).encode())


def test_a_run_of_another_time(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr("sgdmix_albu.expand.store.run_file._SCHEMA", 99)
        generate(photographs, tmp_path, settings=SETTINGS, progress=QUIET)
    with pytest.raises(DataError, match="has schema 99, this version reads 2"):
        generate(photographs, tmp_path, settings=SETTINGS, progress=QUIET)
