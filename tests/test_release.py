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


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(repository / name, tmp_path)
    return tmp_path


def _published(repository: Path, folder: Path, tag: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, repository / "make" / "published.py", "https://host.invalid/owner/name", tag]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_published_readme_leans_on_nothing_beside_it(repository: Path, checkout: Path) -> None:
    import sgdmix_albu

    tag = f"v{sgdmix_albu.__version__}"
    assert _published(repository, checkout, tag).returncode == 0
    readme = (checkout / "README.md").read_text()
    links = re.findall(r"\]\(([^)]*)\)", readme)
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    assert f"(https://host.invalid/owner/name/raw/{tag}/docs/assets/" in readme
    kept = (repository / "README.md").read_text()
    assert re.findall(r"\]\((https://[^)]*)\)", kept) == [link for link in links if "host.invalid" not in link]
    with (checkout / "pyproject.toml").open("rb") as file:
        urls = tomllib.load(file)["project"]["urls"]
    assert urls["Source"] == "https://host.invalid/owner/name"
    assert urls["Paper"] == "https://arxiv.org/abs/2505.11813"

    again = _published(repository, checkout, tag)
    assert (again.returncode, "ready already" in again.stderr) == (2, True)
    assert (checkout / "README.md").read_text() == readme


def test_a_tag_that_is_not_the_version_publishes_nothing(repository: Path, checkout: Path) -> None:
    result = _published(repository, checkout, "v99.0")
    assert result.returncode == 2
    assert "the tag must be v" in result.stderr
    assert "got v99.0" in result.stderr
    assert (checkout / "README.md").read_bytes() == (repository / "README.md").read_bytes()


def test_every_extra_is_tried_before_a_release(repository: Path) -> None:
    with (repository / "pyproject.toml").open("rb") as file:
        extras = set(tomllib.load(file)["project"]["optional-dependencies"])
    text = (repository / "make" / "release.py").read_text()
    tried = set(re.findall(r'^    "(\w+)": "', text, re.MULTILINE))
    assert tried == extras - {"all", "dev"}
