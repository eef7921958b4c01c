"""``make/step.py``: quiet when all goes well, telling when not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def _step(repository: Path, label: str, code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "make" / "step.py"), label, sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True)


def test_one_line_when_it_works(repository: Path) -> None:
    result = _step(repository, "Wash", "print('much', 'water')")
    assert result.returncode == 0
    assert re.fullmatch(r"Wash: done in \d+ s\n", result.stdout)


def test_the_end_of_the_output_and_the_status_when_it_fails(repository: Path) -> None:
    code = "import sys; [print('line', i) for i in range(100)]; print('no soap', file=sys.stderr); sys.exit(3)"
    result = _step(repository, "Wash", code)
    assert result.returncode == 3
    assert "Wash: FAILED after" in result.stdout
    assert "    line 99\n" in result.stdout
    assert "no soap" in result.stdout
    assert "line 10\n" not in result.stdout
    log = re.search(r"the end of (\S+):", result.stdout)
    assert log is not None
    assert "line 10\n" in Path(log[1]).read_text()
    Path(log[1]).unlink()
