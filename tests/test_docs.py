"""The documentation itself: every example is run, files find each other; the built site: test_site.py.

The examples are collected by conftest.py in the root folder; here is what makes sure of it.
"""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

import pytest

from sgdmix_albu.datasets import get_dataset
from sgdmix_albu.datasets.tree import write_tree
from sgdmix_albu.expand import Settings, generate
from sgdmix_albu.refine.catalogue import download_command

LANGUAGES = {"python", "py", "bash", "console", "text", "toml", "yaml", "json", "bibtex"}
FENCE = re.compile(r"^( *)(```+)(.*)$", re.MULTILINE)


def _pages(repository: Path) -> list[Path]:
    return [repository / name for name in ("README.md", "CONTRIBUTING.md")] + sorted(
        (repository / "docs").rglob("*.md")
    )


def _pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_every_block_names_its_language(repository: Path) -> None:
    """A block without one would look like an example and would not be run."""
    unnamed = []
    for page in _pages(repository):
        opening = True
        for match in FENCE.finditer(page.read_text()):
            if opening and match[3].split(" ")[0] not in LANGUAGES:
                unnamed.append(f"{page.relative_to(repository)}: {match[0].strip()}")
            opening = not opening
    assert unnamed == []


def test_every_python_block_is_collected(repository: Path) -> None:
    written = {
        page.relative_to(repository).as_posix(): page.read_text().count("```python")
        for page in _pages(repository)
        if page.name != "CONTRIBUTING.md"
    }
    listing = _pytest(repository, "--collect-only", "README.md", "docs").stdout
    collected = {page: listing.count(f"{page}::line:") for page in written}
    assert collected == written
    assert sum(written.values()) >= 15


def test_no_python_in_the_pages_that_are_not_collected(repository: Path) -> None:
    assert "```python" not in (repository / "CONTRIBUTING.md").read_text()


UNWANTED = (  # other copies of the same weights, as the repositories of Stable Diffusion have them
    "v1-5-pruned.ckpt",
    "v1-5-pruned-emaonly.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "safety_checker/model.safetensors",
)
WRONG = {
    "false": ("assert 1 == 2", "AssertionError"),
    "warns": ("import warnings; warnings.warn('old')", "UserWarning: old"),
    "fetches": ("import socket; socket.create_connection(('192.0.2.1', 80))", "tests stay offline"),
}
WRITES_THEN_READS = """
```python
open("file", "w").close()
```

```python
open("file").close()
```
"""


def test_wrong_examples_turn_the_tests_red_and_right_ones_do_not(repository: Path, tmp_path: Path) -> None:
    """The test settings of this checkout around pages and modules of the test's own."""
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(repository / name, tmp_path)
    for folder in ("docs", "sgdmix_albu"):
        (tmp_path / folder).mkdir()
    for name, (line, _) in WRONG.items():
        (tmp_path / "docs" / f"{name}.md").write_text(f"```python\n{line}\n```\n")
        (tmp_path / "sgdmix_albu" / f"{name}.py").write_text(f'"""Title.\n\nExample:\n    >>> {line}\n"""\n')
    (tmp_path / "docs" / "right.md").write_text(WRITES_THEN_READS)
    (tmp_path / "README.md").write_text("```python\nassert __import__('os').listdir() == []\n```\n")

    output = _pytest(tmp_path, "docs", "sgdmix_albu", "README.md").stdout
    assert "6 failed, 3 passed" in output, output
    for name, (_, message) in WRONG.items():
        assert re.search(rf"FAILED docs/{name}\.md\S+ - .*{message.split(':')[0]}", output), output
        assert f"FAILED sgdmix_albu/{name}.py::{name}" in output
        assert output.count(message) >= 2
    assert not (tmp_path / "file").exists()


def test_links_between_files_lead_somewhere(repository: Path) -> None:
    """mkdocs checks the pages under docs/; these are read on their own."""
    broken = [
        f"{page.name}: {link}"
        for page in (repository / "README.md", repository / "CONTRIBUTING.md", repository / "CHANGELOG.md")
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text())
        if "://" not in link and not (repository / link).exists()
    ]
    assert broken == []


def test_every_promise_names_a_test_that_is_there(repository: Path) -> None:
    """A file of tests, or a test in it; and every line of the tables that claims something has one."""
    page = (repository / "docs" / "promises.md").read_text()
    named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", page)
    assert len(named) >= 30
    for file, test in named:
        text = (repository / "tests" / file).read_text()
        assert not test or f"def {test}(" in text, f"{file}::{test}"


def test_the_picture_of_the_architecture_shows_every_package(repository: Path) -> None:
    """It is drawn from the import rules: ``python docs/make_pictures.py architecture``."""
    package, picture = repository / "sgdmix_albu", (repository / "docs" / "assets" / "architecture.svg").read_text()
    rooms = {path.parent.name for path in package.glob("*/__init__.py")} | {"demo", "masks"}
    assert set(re.findall(r'class="name">(\w+)<', picture)) == rooms
    page = (repository / "docs" / "architecture.md").read_text()
    named = {name for name in re.findall(r"`(\w+)\.\w+`", page) if name in rooms}
    for room, file in re.findall(r"`(\w+)\.(\w+)`", page):
        found = package / room / f"{file}.py", package / room / file
        public = room in named and file in (package / room / "__init__.py").read_text()
        assert room not in rooms or public or any(path.exists() for path in found), f"{room}.{file}"


def test_every_picture_has_a_licence(repository: Path) -> None:
    """A row in the credits for each file; a pattern may stand for a folder of plots."""
    assets = repository / "docs" / "assets"
    listed = re.findall(r"^\| `([^`]+)` \|", (repository / "docs" / "credits.md").read_text(), re.MULTILINE)
    pictures = {path for path in assets.rglob("*") if path.suffix in {".png", ".jpg", ".webp", ".svg", ".gif"}}
    assert {path for name in listed for path in assets.glob(name)} == pictures
    assert all(list(assets.glob(name)) for name in listed)


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def test_the_scripts_from_photographs_to_a_classifier(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both run as the page has them, but on drawn birds, for one epoch, small, and without downloaded weights."""
    page = repository / "docs/how-to/your-photographs.md"
    monkeypatch.chdir(tmp_path)
    write_tree(get_dataset("aviary", species=2, per_species=10, size=32), "photos")
    (split,), (train,) = _blocks(page, "python"), _blocks(page, "py")
    exec(compile(split, "split.py", "exec"), {"__name__": "__main__"})
    for folder in Path("photos").iterdir():
        of_class = {
            part: {file.name for file in Path("data", part, folder.name).iterdir()} for part in ("train", "test")
        }
        assert {part: len(names) for part, names in of_class.items()} == {"train": 8, "test": 2}
        assert of_class["train"] | of_class["test"] == {file.name for file in folder.iterdir()}

    shutil.copytree("data/train", "tree")
    generate("tree", "expanded", settings=Settings(size=32, multiplier=1, saliency="spectral_residual"))
    for written, small in (("= 20, 32, 4", "= 1, 4, 0"), ('weights="DEFAULT"', "weights=None"), ("224", "32")):
        assert written in train
        train = train.replace(written, small)
    exec(compile(train, "train.py", "exec"), {"__name__": "__main__"})
    assert re.search(r"test accuracy \d+\.\d%", capsys.readouterr().out)
    assert Path("model.pt").is_file()


def test_the_pages_fetch_what_the_messages_fetch(repository: Path) -> None:
    """The command for Stable Diffusion's files, without the repository's other copies of them."""
    expected = shlex.split(download_command("sd15"))
    for name in ("finetune", "refiners", "your-photographs"):
        text = (repository / f"docs/how-to/{name}.md").read_text().replace("\\\n", " ")
        (command,) = re.findall(r"^hf download stable.*$", text, re.MULTILINE)
        assert shlex.split(command) == expected, name
    patterns = [word for flag, word in pairwise(expected) if flag == "--include"]
    assert not any(fnmatch(name, pattern) for pattern in patterns for name in UNWANTED)


def test_whole_files_become_pages_whose_links_lead_somewhere(repository: Path) -> None:
    """CHANGELOG.md and CONTRIBUTING.md, by the hook that mkdocs calls for each page."""
    hook = runpy.run_path(str(repository / "docs/links.py"))["on_page_markdown"]
    assert hook("A page with [a link](docs/speed.md).") == "A page with [a link](docs/speed.md)."
    for name in ("changelog", "contributing"):
        page = hook((repository / f"docs/{name}.md").read_text())
        assert page.startswith("# ")
        links = re.findall(r"\]\((?!https?:)([^)#]+)", page)
        assert links
        assert [link for link in links if not (repository / "docs" / link).is_file()] == []
