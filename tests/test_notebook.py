"""The notebook is small and plain Python, its page shows it, and a Jupyter kernel runs it as the page says.

The page's blocks are run with those of all pages; the kernel is that of ``make test-ecosystem``.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from make.notebook import NOTEBOOK, executed, page_of

PAGE = NOTEBOOK.with_suffix(".md").read_text()
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    return [text.strip() for kind, text in BLOCK.findall(page) if kind == language]


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    return json.loads(NOTEBOOK.read_text())["cells"]


def test_it_has_no_outputs_and_is_small(cells: list[dict[str, Any]]) -> None:
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert NOTEBOOK.stat().st_size < 20_000
    assert len({cell["id"] for cell in cells}) == len(cells)


def test_its_page_shows_it(cells: list[dict[str, Any]]) -> None:
    """Written by ``make notebook``; a cell that was changed since is told here."""
    code = ["".join(cell["source"]).strip() for cell in cells if cell["cell_type"] == "code"]
    assert blocks(PAGE, "python") == code
    for cell in cells:
        assert "".join(cell["source"]).strip() in PAGE
    assert len(re.findall(r"!\[[^\]]+\]\(\.\./assets/notebook-\d\.webp\)", PAGE)) == 5
    for source in code:
        ast.parse(source)  # no magics: it runs outside Jupyter too


# Jupyter's own.
@pytest.mark.filterwarnings("default")
def test_a_kernel_runs_it_as_the_page_says(tmp_path: Path) -> None:
    for package in ("nbclient", "ipykernel"):
        pytest.importorskip(package, reason=f"{package} is not installed; see make test-ecosystem")
    text, pictures = page_of(executed(NOTEBOOK, str(tmp_path)))
    assert len(pictures) == 5
    assert all(10_000 < len(content) < 150_000 for content in pictures.values())
    said = [re.sub(r"loss \d\.\d\d", "loss", block) for block in blocks(text, "text")]
    assert said == [re.sub(r"loss \d\.\d\d", "loss", block) for block in blocks(PAGE, "text")]
    assert sum(path.suffix == ".png" for path in (tmp_path / "expanded").rglob("*")) == 12
