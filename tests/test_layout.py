"""The shape of the house: who imports whom, and that light things stay light."""

from __future__ import annotations

import ast
import re
import resource
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

# Where the packages that are kept to one place are imported.
HOMES = {
    "accelerate": ["refine"],
    "albumentations": ["albumentations"],
    "captum": ["saliency"],
    "diffusers": ["refine"],
    "gradio": ["explore"],
    "huggingface_hub": ["pretrained"],
    "onnxruntime": ["saliency"],
    "peft": ["refine"],
    "ray": ["expand"],
    "rembg": ["saliency"],
    "transformers": ["pretrained", "refine"],
}

HEAVY = {*HOMES, "cv2", "numpy", "torch", "torchvision"}

# One import that breaks each contract: (file, line).
PLANTED = {
    "Rooms, from the roof to the ground": (
        "mixing/selection.py",
        "from sgdmix_albu.saliency.base import SaliencyBackend",
    ),
    "No circles, between rooms or between the files of one": (
        "refine/setup.py",
        "from sgdmix_albu.refine.loading import load",
    ),
    "The way of a mix": ("mixing/colour.py", "from sgdmix_albu.mixing.masks import otsu"),
    "The way of an expansion": ("expand/store/done.py", "from sgdmix_albu.expand.execute.worker import Expander"),
    "Stages 2 to 4 import torch only": ("mixing/masks.py", "import cv2"),
    "Albumentations is imported by its face only": ("mixing/mix.py", "import albumentations"),
    "Captum is imported by its adapter only": ("saliency/base.py", "import captum.attr"),
    "rembg and ONNX Runtime are imported by their adapter only": ("saliency/base.py", "import onnxruntime"),
    "Diffusion packages are imported by stage 5 only": ("io/images.py", "def load():\n    import diffusers"),
    "Ray is imported by its engine only": ("registry.py", "import ray"),
    "The hub's client is imported by its adapter only": ("demo.py", "import huggingface_hub"),
    "gradio is imported by its page only": ("demo.py", "import gradio"),
    "OpenCV is imported where forks are made safe only": ("mixing/blending.py", "import cv2"),
}


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """The package and its settings in a folder of their own."""
    shutil.copytree(repository / "sgdmix_albu", tmp_path / "sgdmix_albu", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / "pyproject.toml", tmp_path)
    return tmp_path


def test_import_rules_are_kept(copy: Path) -> None:
    result = _lint_imports(copy)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_import_rule_can_be_broken(copy: Path, repository: Path) -> None:
    with (repository / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    assert {contract["name"] for contract in contracts} == set(PLANTED)
    for name, line in PLANTED.values():
        with (copy / "sgdmix_albu" / name).open("a") as module:
            module.write(f"\n{line}\n")
    result = _lint_imports(copy)
    assert result.returncode == 1
    assert [name for name in PLANTED if f"{name} BROKEN" not in result.stdout] == []


def test_optional_packages_are_named_in_their_homes_only(repository: Path) -> None:
    """``import_optional("ray")`` is an import too, one that import-linter cannot see."""
    package = repository / "sgdmix_albu"
    strangers = [
        f"{path.relative_to(package)}:{call.lineno} {name}"
        for path in package.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func).rpartition(".")[2] in {"import_optional", "import_module", "__import__"}
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and (name := str(call.args[0].value).partition(".")[0]) in HOMES
        and path.relative_to(package).parts[0].removesuffix(".py") not in HOMES[name]
    ]
    assert strangers == []


def _run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import sgdmix_albu; dir(sgdmix_albu); sgdmix_albu.__version__", id="import sgdmix_albu"),
        pytest.param("import sgdmix_albu.cli", id="import sgdmix_albu.cli"),
        pytest.param(
            "import contextlib, io; from sgdmix_albu.cli import main\n"
            "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main(['--help'])",
            id="sgdmix --help",
        ),
    ],
)
def test_nothing_heavy_is_imported_by(code: str) -> None:
    loaded = _run(code + "\nimport sys; print(*(name for name in sys.modules if '.' not in name))").split()
    assert "sgdmix_albu" in loaded
    assert HEAVY & set(loaded) == set()


def test_the_help_text_costs_less_than_half_a_second() -> None:
    """Processor time, the best of three: the wall clock also counts the neighbours."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times = []
    for _ in range(3):
        before = spent()
        command = [Path(sys.executable).with_name("sgdmix"), "--help"]
        result = subprocess.run(command, capture_output=True, text=True)
        times.append(spent() - before)
        assert result.returncode == 0
        assert "mix" in result.stdout
    assert min(times) < 0.5


def test_public_names_are_found_and_unknown_ones_are_not() -> None:
    import sgdmix_albu

    assert set(sgdmix_albu.__all__) <= set(dir(sgdmix_albu))
    assert all(getattr(sgdmix_albu, name) is not None for name in sgdmix_albu.__all__)
    with pytest.raises(AttributeError, match="no attribute 'SGDMixx'"):
        sgdmix_albu.SGDMixx  # noqa: B018


def test_the_version_is_said_once(repository: Path) -> None:
    import sgdmix_albu

    with (repository / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["version"] == sgdmix_albu.__version__


def test_constraints_pin_every_direct_dependency(repository: Path) -> None:
    """Otherwise ``make`` would install another version every week."""
    with (repository / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["docs"], *extras["dev"]]
    names = {re.split(r"[\[<>=! ]", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    lines = (repository / "constraints.txt").read_text().splitlines()
    pins = {line.partition("==")[0].lower().replace("_", "-") for line in lines if not line.startswith("#")}
    assert names - pins == set()
