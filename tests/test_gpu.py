"""``benchmarks/gpu``: rehearsed on the CPU to its end; a part that fails or hangs is told, and the others run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import contracts
from benchmarks.gpu.clock import measured
from benchmarks.gpu.contracts import TESTS, _counted
from benchmarks.gpu.report import Report
from benchmarks.gpu.sizes import SIZES
from benchmarks.gpu.table import page_of

CPU = ["--device", "cpu", "--size", "toy"]


def test_a_rehearsal_without_a_gpu(tmp_path: Path, repository: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}
    parts = ["strict", "mixing", "gradcam", "refining"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *CPU, "--together", "--only", *parts, "--out", tmp_path],
        capture_output=True, text=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["parts"]) == ["machine", *parts]
    assert {part["status"] for part in results["parts"].values()} == {"done"}
    assert (tmp_path / "results.md").read_text() == page_of(results)

    rows = {name: {row["name"]: row for row in part["rows"]} for name, part in results["parts"].items()}
    assert rows["strict"]["single precision"]["within"] is True
    assert rows["strict"]["single precision"]["core_exact"] is True
    mixing, step = rows["mixing"], rows["mixing"]["ResNet-50, a training step, batch 4"]
    ours = mixing["mixing-float32, batch 4: `SGDMix()`"]
    assert ours["of_step"] == pytest.approx(ours["wall_ms"] / step["ms"])
    assert ours["x_cutmix"] == pytest.approx(ours["ms"] / mixing["mixing-float32, batch 4: torchvision CutMix"]["ms"])
    assert {"forward pass alone, batch 1", "ours, batch 1"} <= set(rows["gradcam"])
    assert len(rows["refining"]) == 7
    for name, row in rows["refining"].items():
        assert row["finite"], name
        assert row["broken"] == 0, name
        shares = [row[f"share_{part}"] for part in ("UNet", "VAE", "text", "rest")]
        assert sum(shares) == pytest.approx(1)
        assert shares[0] > 0, name  # the UNet was seen at work
        assert shares[1] > 0, name


def test_each_part_in_a_process_of_its_own(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(repository))
    monkeypatch.chdir(tmp_path)
    assert command.main([*CPU, "--only", "machine", "--out", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["parts"]["machine"]["rows"][0]["torch"] == torch.__version__


def test_a_part_that_fails_is_told_and_the_next_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def part(name: str) -> Any:
        def run(report: Report, size: Any, device: torch.device) -> None:
            seen.append((name, device.type, size.pixels))
            report.add(f"what {name} had", ms=2.0)
            if name == "strict":
                raise ImportError("No module named 'diffusers'")

        return type("Part", (), {"run": staticmethod(run)})

    monkeypatch.setattr(command.importlib, "import_module", lambda name: part(name.rpartition(".")[2]))
    code = command.main([*CPU, "--together", "--only", "strict", "gradcam", "--out", str(tmp_path)])
    assert code == 1
    assert seen == [("machine", "cpu", 48), ("strict", "cpu", 48), ("gradcam", "cpu", 48)]
    page, parts = (tmp_path / "results.md").read_text(), json.loads((tmp_path / "results.json").read_text())["parts"]
    assert [parts[name]["status"] for name in ("machine", "strict", "gradcam")] == ["done", "failed", "done"]
    assert parts["strict"]["error"] == "ImportError: No module named 'diffusers'"
    assert parts["strict"]["rows"] == [{"name": "what strict had", "ms": 2.0}]
    assert "s: ImportError: No module named 'diffusers'." in page
    assert "| what strict had | 2.00 |" in page


def test_a_part_that_hangs_is_ended_and_what_it_had_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(arguments: list[str], seconds: float) -> int | None:
        Report(Path(arguments[arguments.index("--out") + 1])).add("before", ms=1.0)
        return command_limited([sys.executable, "-c", "import time; time.sleep(60)"], 0.2)

    command_limited = command.run_limited
    monkeypatch.setattr(command, "run_limited", hang)
    assert command.main([*CPU, "--only", "machine", "--out", str(tmp_path)]) == 1
    part = json.loads((tmp_path / "results.json").read_text())["parts"]["machine"]
    assert part["status"] == "out of time"
    assert part["error"] == "it was ended after 300 s"
    assert part["rows"] == [{"name": "before", "ms": 1.0}]


def test_an_end_by_time_ends_the_children_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = tmp_path / "child"
    script = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(number)!r}).write_text(str(child.pid))\n"
        "time.sleep(600)"
    )
    start = subprocess.Popen

    def started(*args: Any, **options: Any) -> Any:
        child = start(*args, **options)
        for _ in range(1200):  # the limit counts from when the child's child is there, however busy the machine
            if number.exists() and number.read_text():
                break
            time.sleep(0.05)
        return child

    monkeypatch.setattr(subprocess, "Popen", started)
    assert command.run_limited([sys.executable, "-c", script], 0.1) is None
    child = int(number.read_text())
    for _ in range(100):
        if not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the child's child lives on")
    assert command.run_limited([sys.executable, "-c", "raise SystemExit(3)"], 60) == 3


def test_all_of_it_takes_less_than_eight_minutes() -> None:
    for size in SIZES.values():
        assert set(size.seconds) == set(command.PARTS)
    assert sum(SIZES["full"].seconds.values()) < 480


def test_the_tests_that_need_a_gpu_are_there(repository: Path) -> None:
    for tests in TESTS:
        path, _, name = tests.partition("::")
        assert f"def {name}" in (repository / path).read_text()


def test_without_a_gpu_they_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contracts, "TESTS", TESTS[:1])
    report = Report(tmp_path / "rows.json")
    contracts.run(report, SIZES["toy"], torch.device("cpu"))
    (row,) = Report.read(report.path)
    assert (row["passed"] + row["skipped"] > 10, row["failed"], row["names"]) == (True, 0, "")


def test_tests_are_counted(tmp_path: Path) -> None:
    result = tmp_path / "result.xml"
    result.write_text(
        """<testsuites><testsuite>
        <testcase name="a"/><testcase name="b"><skipped message="needs a GPU"/></testcase>
        <testcase name="c"><failure message="AssertionError: 1&#10;2"/></testcase>
        <testcase name="d"><error message="collection failure">line 3&#10;E  No module named 'timm'</error></testcase>
        <testcase name="e"/>
        </testsuite></testsuites>"""
    )
    assert _counted(result) == (2, 1, ["c: AssertionError: 1", "d: collection failure; E  No module named 'timm'"])


def test_the_clock_warms_up_and_takes_turns() -> None:
    order: list[str] = []
    found = measured({name: lambda name=name: order.append(name) for name in "ab"}, torch.device("cpu"), rounds=2)
    assert order == list("ab") * 3
    assert set(found["a"]) == {"ms", "wall_ms"}
    slept = measured({"a": lambda: time.sleep(0.02)}, torch.device("cpu"), rounds=1)["a"]
    assert min(slept.values()) >= 20  # milliseconds: a sleep is never shorter


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_waits_and_memory_on_a_gpu() -> None:
    values = torch.ones(2**20, device="cuda")
    calls = {"none": lambda: values + 1, "two": lambda: (float(values[0]), float(values[1]))}
    found = measured(calls, values.device, rounds=2)
    assert found["none"]["waits"] == 0
    assert found["two"]["waits"] == 2
    assert found["none"]["peak_mib"] == pytest.approx(4)
