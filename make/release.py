"""Use what ``make dist`` built as its users will: ``python make/release.py dist``.

The wheel goes into a bare environment, then with each extra into one of its own. The source distribution builds its
documentation and runs its tests, from its own files, in the environment that calls this.

Each environment holds several gigabytes of torch. They are made once; the extras' start as hard links to the bare one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
WORK = REPOSITORY / ".venv-release"
STEP = [sys.executable, str(Path(__file__).with_name("step.py"))]

# What shows that an extra is whole. The bare wheel must do its work without any of them.
BARE = "sgdmix mix mixed --dataset aviary --limit 8 && sgdmix audit report --dataset aviary --pairs 4 --samples 2"
EXTRAS = {
    "diffusion": "sgdmix finetune refiner --dataset aviary --key aviary --steps 1 && sgdmix refiners",
    "ray": "sgdmix generate grown --dataset aviary --limit 4 --refiner none --engine ray",
    "rembg": "python -c 'import onnxruntime, rembg'",
    "text": "python -c 'from transformers import CLIPSegForImageSegmentation'",
    "hub": "python -c 'import huggingface_hub' && sgdmix push --help",
    "docs": "mkdocs --version",
    "explore": "python -c 'import gradio' && sgdmix explore --help",
}


def main(dist: str) -> int:
    """Every part in turn; the exit status of the first that fails, or 0."""
    (wheel,), (sdist,) = Path(dist).glob("*.whl"), Path(dist).glob("*.tar.gz")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB; {sdist.name}: {sdist.stat().st_size / 1e6:.1f} MB")
    shutil.rmtree(WORK, ignore_errors=True)
    bare = _environment("bare", str(wheel))
    _used(bare, BARE)
    for extra, use in EXTRAS.items():
        _used(_environment(extra, f"{wheel}[{extra}]", base=bare), use)
    _source(sdist)
    return 0


def _environment(name: str, requirement: str, base: Path | None = None) -> Path:
    """A new one with the wheel in it."""
    environment = WORK / name
    create = [sys.executable, "-m", "venv", "--clear", str(environment)]
    _run(f"Create {name}", *create, *(() if base is None else ["--without-pip"]))
    if base is not None:
        (here,), (there,) = (list(where.glob("lib/python*/site-packages")) for where in (environment, base))
        shutil.copytree(there, here, copy_function=os.link, dirs_exist_ok=True)
        # The wheel comes once more, with its command and its extra.
        shutil.rmtree(next(here.glob("sgdmix_albu-*.dist-info")))
        shutil.rmtree(here / "sgdmix_albu")
    install = ["install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off", "-c"]
    pip = [str(environment / "bin" / "python"), "-m", "pip"]
    _run(f"Install {name}", *pip, *install, str(REPOSITORY / "constraints.txt"), requirement)
    _run(f"Check {name}", *pip, "check")
    return environment


def _used(environment: Path, commands: str) -> None:
    """In an empty folder, far from this checkout."""
    folder = environment / "used"
    folder.mkdir()
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    _run(f"Use {environment.name}: {commands}", "sh", "-ec", commands, cwd=folder, PATH=path)


def _source(sdist: Path) -> None:
    """Its documentation and its tests."""
    with tarfile.open(sdist) as archive:
        archive.extractall(WORK, filter="data")
    source = WORK / sdist.name.removesuffix(".tar.gz")
    own = {"PYTHONPATH": str(source), "NO_MKDOCS_2_WARNING": "1"}
    _run("Build the docs of the source", sys.executable, "-m", "mkdocs", "build", "--strict", cwd=source, **own)
    tests = ["-m", "pytest", "--numprocesses", "auto", "--maxprocesses", "4", "--dist", "loadfile"]
    _run("Run the tests of the source", sys.executable, *tests, cwd=source, **own)


def _run(label: str, *command: str, cwd: Path = REPOSITORY, **environment: str) -> None:
    subprocess.run([*STEP, label, *command], cwd=cwd, env=os.environ | environment, check=True)


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
