"""What is published: the wheel, the source distribution, README where nothing lies beside it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def dist(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--target", "sdist"]
    subprocess.run([*command, "--directory", folder], cwd=repository, check=True, capture_output=True)
    return folder


def test_the_wheel_holds_every_file_of_the_package(repository: Path, dist: Path) -> None:
    """Weights and templates too, and nothing else."""
    (wheel,) = dist.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("sgdmix_albu/")}
    files = (path for path in (repository / "sgdmix_albu").rglob("*") if path.is_file())
    assert packed == {path.relative_to(repository).as_posix() for path in files if "__pycache__" not in path.parts}
    assert {"sgdmix_albu/py.typed", "sgdmix_albu/audit/templates/report.css"} <= packed


def test_the_source_distribution_holds_what_git_holds(repository: Path, dist: Path) -> None:
    """So it builds its docs and runs its tests; `make test-release` does both."""
    if not (repository / ".git").exists():
        pytest.skip("not a checkout of git")
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True).stdout.splitlines()
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        packed = {name.partition("/")[2] for name in opened.getnames()}
    ours = {name for name in listed if not name.startswith((".ci/", ".github/"))}
    assert packed - {"PKG-INFO"} == {name for name in ours if (repository / name).exists()}
    assert {"CONTRIBUTING.md", "conftest.py", "Makefile", "constraints.txt", "make/step.py", "docs/index.md"} <= packed


def _published(repository: Path, folder: Path, tag: str) -> subprocess.CompletedProcess[str]:
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(repository / name, folder)
    command = [sys.executable, repository / "make" / "published.py", "https://host.invalid/owner/name", tag]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_published_readme_leans_on_nothing_beside_it(repository: Path, tmp_path: Path) -> None:
    import sgdmix_albu

    assert _published(repository, tmp_path, f"v{sgdmix_albu.__version__}").returncode == 0
    readme = (tmp_path / "README.md").read_text()
    links = re.findall(r"\]\(([^)]*)\)", readme)
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    assert f"(https://host.invalid/owner/name/raw/v{sgdmix_albu.__version__}/docs/assets/" in readme
    kept = (repository / "README.md").read_text()
    assert re.findall(r"\]\((https://[^)]*)\)", kept) == [link for link in links if "host.invalid" not in link]
    with (tmp_path / "pyproject.toml").open("rb") as file:
        urls = tomllib.load(file)["project"]["urls"]
    assert urls["Source"] == "https://host.invalid/owner/name"
    assert urls["Paper"] == "https://arxiv.org/abs/2505.11813"


def test_a_tag_that_is_not_the_version_publishes_nothing(repository: Path, tmp_path: Path) -> None:
    result = _published(repository, tmp_path, "v99.0")
    assert result.returncode == 2
    assert "the tag must be v" in result.stderr
    assert "got v99.0" in result.stderr
    assert (tmp_path / "README.md").read_bytes() == (repository / "README.md").read_bytes()
