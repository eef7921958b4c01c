"""Scripts without a guard are refused before work; what a guard keeps from happening, multiprocessing itself says."""

from __future__ import annotations

import runpy
import subprocess
import sys
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision
from expand_helpers import expand

from sgdmix_albu.errors import InvalidInputError, SGDMixError
from sgdmix_albu.expand import Settings
from sgdmix_albu.expand.execute.guard import check_guarded
from sgdmix_albu.expand.execute.pools import Processes
from sgdmix_albu.settings import SaliencySettings

CALL = "from sgdmix_albu.expand.execute.guard import check_guarded as begin"
# Each with whether a spawned process, which runs the script under the name __mp_main__, would begin again.
SCRIPTS = {
    "plain": ("begin()", True),
    "several lines": ("print(\n    begin(),\n)", True),
    "in a function that is called": ("def main():\n    begin()\nmain()", True),
    "under another condition": ("import sys\nif sys.argv:\n    begin()", True),
    "guard elsewhere": ('if __name__ == "__main__":\n    pass\nbegin()', True),
    "guard": ('if __name__ == "__main__":\n    begin()', False),
    "guard in a line": ('if __name__ == "__main__": begin()', False),
    "guard, in a function": ('def main():\n    begin()\nif __name__ == "__main__":\n    main()', False),
    "guard within": ('try:\n    if __name__ == "__main__":\n        begin()\nfinally:\n    pass', False),
    "by its name": ("import multiprocessing as m\nif m.current_process().name[0] == 'M':\n    begin()", False),
    "by the parent, not known yet": ("import multiprocessing as m\nif m.parent_process() is None:\n    begin()", True),
    "nothing begins": ("", False),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_a_guard_is(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, again = SCRIPTS[name]
    script = tmp_path / "script.py"
    script.write_text(f"{CALL}\n{text}\n")
    if again:
        with pytest.raises(InvalidInputError, match=r"script\.py again .* line \d+ .*or pass workers=1") as caught:
            runpy.run_path(str(script), run_name="__main__")
        assert 'if __name__ == "__main__":\n        main()' in caught.value.__notes__[0]
    else:
        runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("name", ["plain", "guard", "by its name", "by the parent, not known yet"])
def test_the_oracle_is_pythons_own(name: str, tmp_path: Path) -> None:
    """A script that starts a process where ours would: does the process come back to the line?"""
    text, again = SCRIPTS[name]
    begin = (
        "import multiprocessing, pathlib\n"
        "def begin():\n"
        "    with pathlib.Path('count').open('a') as file: file.write('x')\n"
        "    if multiprocessing.current_process().name == 'MainProcess':\n"
        "        process = multiprocessing.get_context('spawn').Process(target=print)\n"
        "        process.start(); process.join()"
    )
    (tmp_path / "script.py").write_text(f"{begin}\n{text}\n")
    subprocess.run([sys.executable, "script.py"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "count").read_text() == ("xx" if again else "x")


def test_an_expansion_is_refused_before_it_begins(photographs: Path, tmp_path: Path) -> None:
    """Grad-CAM on a CPU works in processes; so does every refiner. One worker needs none."""
    script = tmp_path / "script.py"
    script.write_text("run()\n")
    weights = tmp_path / "model.pt"
    torch.save(torchvision.models.squeezenet1_1(num_classes=3).state_dict(), weights)
    how: dict[str, Any] = {"workers": 2, "settings": _gradcam(weights)}
    with pytest.raises(InvalidInputError, match=r"script\.py again in each of them: line 1 "):
        runpy.run_path(str(script), {"run": lambda: expand(photographs, tmp_path / "out", **how)}, run_name="__main__")
    assert not (tmp_path / "out").exists()
    how["workers"] = 1
    runpy.run_path(str(script), {"run": lambda: expand(photographs, tmp_path / "out", **how)}, run_name="__main__")
    assert (tmp_path / "out" / "metadata.jsonl").is_file()


def _gradcam(weights: Path) -> Settings:
    looks = SaliencySettings("gradcam", model=weights, arch="squeezenet1_1")
    return Settings(saliency=looks, mask="otsu", multiplier=1, size=64)


def test_what_python_runs_without_a_file_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook, or -c: nothing is imported again."""
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(check=check_guarded, __spec__=None))  # type: ignore[arg-type]
    check_guarded()


@pytest.mark.parametrize(
    ("code", "message"), [(1, "could not start.*its own error stands above"), (3, "died"), (-9, "died"), (None, "died")]
)
def test_how_a_worker_ended(code: int | None, message: str) -> None:
    """1 is Python's own, of an error that nobody caught: in a worker, only before it has begun."""
    ours, theirs = Pipe()
    theirs.close()
    workers = Processes.__new__(Processes)
    workers._processes = {ours: SimpleNamespace(join=lambda seconds: None, exitcode=code)}
    workers._idle, workers._busy = [], [ours]
    with pytest.raises(SGDMixError, match=message):
        list(workers.results(1))
