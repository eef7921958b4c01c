"""Print where a Python of one version is, ``3.13``; exit with 1 where there is none: on PATH first, then pyenv's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def main(version: str) -> int:
    """The newest of the version that runs."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    released = [
        path for path in root.glob(f"versions/{version}.*/bin/python") if path.parts[-3].replace(".", "").isdigit()
    ]
    newest = sorted(released, key=lambda path: int(path.parts[-3].rpartition(".")[2]), reverse=True)
    for python in filter(None, (shutil.which(f"python{version}"), *map(str, newest))):
        if subprocess.run([python, "-c", "import venv"], capture_output=True).returncode == 0:  # pyenv's shims may not
            print(python)
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
