"""Part one: the tests that need a GPU, run where there is one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import torch

from benchmarks.gpu.report import Report
from benchmarks.gpu.sizes import Size

_ROOT = Path(__file__).parents[2]
TESTS = (
    "tests/test_gpu_mixing.py",
    "tests/test_saliency_contract.py::test_gpu_equals_cpu",
    "tests/test_gpu.py::test_waits_and_memory_on_a_gpu",
)


def run(report: Report, size: Size, device: torch.device) -> None:
    """A row for each file of tests: how many passed, failed, were skipped; and the names of those that failed.

    Raises:
        RuntimeError: One failed, or none of a file passed on a GPU; all are told before.
    """
    failed = []
    for tests in TESTS:
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.xml"
            # Without the repository's conftest, whose packages need not be on a machine that is lent.
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "--noconftest",
                "-p",
                "no:cacheprovider",
                "-W",
                "ignore",
                tests,
            ]
            done = subprocess.run(
                [*command, f"--junitxml={result}"], cwd=_ROOT, capture_output=True, text=True, check=False
            )
            if not result.exists():
                report.add(tests, passed=0, failed=0, skipped=0, names=(done.stdout + done.stderr)[-600:].strip())
                failed.append(tests)
                continue
            passed, skipped, names = _counted(result)
        report.add(tests, passed=passed, failed=len(names), skipped=skipped, names="; ".join(names)[:2000])
        failed += names
        if device.type == "cuda" and not passed:
            failed.append(f"{tests}: none passed")
    if failed:
        raise RuntimeError(f"{len(failed)} failed: {', '.join(failed)[:300]}")


def _counted(result: Path) -> tuple[int, int, list[str]]:
    passed, skipped, names = 0, 0, []
    for case in ElementTree.parse(result).iter("testcase"):
        wrong = case.find("failure") if case.find("failure") is not None else case.find("error")
        if wrong is not None:
            told = [str(wrong.get("message")), *(wrong.text or "").strip().splitlines()[-1:]]
            names.append(f"{case.get('name')}: {'; '.join(line.splitlines()[0][:200] for line in told)}")
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return passed, skipped, names
