"""The fault campaign, in short; and that it sees what it looks for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("psutil")
if not sys.platform.startswith("linux"):
    pytest.skip("the campaign looks into /proc", allow_module_level=True)

from attack import command as module
from attack.command import Command, Ended
from attack.tally import Tally, differences, faults_of


# The seed of the kills is one whose four runs are of four commands.
@pytest.mark.parametrize(
    ("only", "runs", "seed"), [("kills", 4, 4866), ("damage", 6, 3), ("sets", 4, 3), ("rivals", 2, 3)]
)
def test_the_campaign_finds_nothing(repository: Path, only: str, runs: int, seed: int) -> None:
    words = [sys.executable, "-m", "tests.attack", "--short", "--only", only, "--runs", str(runs), "--seed", str(seed)]
    done = subprocess.run(words, cwd=repository, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{runs:8}  runs" in done.stdout


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A result, and another that is the same."""
    right, found = tmp_path / "right", tmp_path / "found"
    (right / "owl").mkdir(parents=True)
    for name in ("1.png", "2.png"):
        (right / "owl" / name).write_bytes(name.encode())
    rows = [json.dumps({"file_name": f"owl/{name}"}) for name in ("1.png", "2.png")]
    (right / "metadata.jsonl").write_text("".join(f"{row}\n" for row in rows))
    shutil.copytree(right, found)
    return right, found


def _name_twice(found: Path) -> None:
    manifest = found / "metadata.jsonl"
    manifest.write_text(manifest.read_text().replace("2.png", "1.png"))


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (lambda found: None, set()),
        (lambda found: (found / ".sgdmix-lock").touch(), set()),
        (lambda found: (found / "owl" / "1.png").unlink(), {"lost"}),
        (lambda found: (found / "owl" / "1.png").write_bytes(b"2.png"), {"differing"}),
        (lambda found: (found / "owl" / "3.png").touch(), {"doubled"}),
        (_name_twice, {"differing", "doubled"}),
    ],
)
def test_a_result_that_is_not_as_it_should_be(
    folders: tuple[Path, Path], change: Callable[[Path], object], kinds: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    right, found = folders
    change(found)
    assert {kind for kind, _ in differences(right, found)} == kinds
    tally = Tally()
    tally.begin("run 1")
    tally.compare(right, found)
    assert {kind for kind, _ in tally.faults} == kinds
    for kind in kinds:
        assert f"  {kind}\n" in str(tally)
        assert f"       0  {kind}\n" not in str(tally)


def _run(folder: Path, code: str, limit: float = 20) -> set[str]:
    command = Command(("-n1", "-r1", code), module="timeit", fresh=True)
    return {kind for kind, _ in faults_of(command.run(folder, limit))}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("raise ValueError", "traceback"),
        ("print('\\x1b[2J')", "unclean"),
        ("import os; os._exit(2)", "silent"),
        ("import os; os.write(2, b'sgdmix: error: a\\nsgdmix: error: b\\n'); os._exit(2)", "silent"),
    ],
)
def test_a_command_that_behaves_badly(tmp_path: Path, code: str, kind: str) -> None:
    assert _run(tmp_path, code) == {kind}


def test_a_command_that_behaves_well(tmp_path: Path) -> None:
    assert _run(tmp_path, "import os; os.write(2, b'sgdmix: error: a\\n'); os._exit(2)") == set()


def test_a_command_that_does_not_end(tmp_path: Path) -> None:
    assert _run(tmp_path, "import time; time.sleep(60)", limit=0.5) == {"hung"}


def test_a_command_that_takes_too_much_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY", 2**27)
    assert _run(tmp_path, "import time; taken = b'x' * 2**28; time.sleep(60)") == {"memory"}


@pytest.mark.parametrize("own", ["env={}", "start_new_session=True"])
def test_a_process_that_outlives_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str) -> None:
    monkeypatch.setattr(module, "_LEFT", 0.5)
    code = f"import os, subprocess; subprocess.Popen(['sleep', '60'], {own}); os._exit(0)"
    assert _run(tmp_path, code) == {"left over"}


def test_a_wrong_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally()
    tally.judge(Ended(Command(("mix",)), 3, "", "", 1.0, False, False, ()), {0, 2})
    assert [kind for kind, _ in tally.faults] == ["wrong code"]
