"""Run a notebook and write it as a page of the documentation: ``python -m make.notebook``, see ``make notebook``.

The notebook itself is kept without outputs, so that it stays small; the page shows them. The page's blocks are run by
``make test`` as those of any other page, and ``tests/test_notebook.py`` holds the two together.
"""

from __future__ import annotations

import base64
import io
import json
import tempfile
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOK = DOCS / "notebooks" / "photographs.ipynb"
NOTE = (
    "This page is a notebook: [download it]({name}) and open it in Jupyter, or on Colab with **File, Upload notebook**."
)


def main() -> None:
    """Run the notebook in a fresh folder; write the page, the pictures and the notebook without outputs."""
    notebook = json.loads(NOTEBOOK.read_text())
    for cell in notebook["cells"]:
        cell.update({"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {})
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        cells = executed(NOTEBOOK, folder)
    text, pictures = page_of(cells)
    NOTEBOOK.with_suffix(".md").write_text(text)
    for name, content in pictures.items():
        (DOCS / "assets" / name).write_bytes(content)


def executed(notebook: Path, folder: str) -> list[dict[str, Any]]:
    """The notebook's cells with their outputs, run by a Jupyter kernel that starts in ``folder``."""
    import nbclient
    import nbformat

    content = nbformat.read(notebook, as_version=4)
    nbclient.NotebookClient(content, timeout=300, resources={"metadata": {"path": folder}}).execute()
    cells: list[dict[str, Any]] = content["cells"]
    return cells


def page_of(cells: list[dict[str, Any]]) -> tuple[str, dict[str, bytes]]:
    """The Markdown of a page, and its pictures by their names in ``docs/assets``."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for number, cell in enumerate(cells):
        source = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            parts.append(source)
            if number == 0:
                parts.append(NOTE.format(name=NOTEBOOK.name))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"notebook-{len(pictures) + 1}.webp"
                pictures[name] = _webp(data["image/png"])
                parts.append(f"![{cell['metadata']['alt']}](../assets/{name})")
        printed = "".join(map(_text, cell["outputs"])).strip()
        parts.extend([f"```text\n{printed}\n```"] if printed else [])
    return "\n\n".join(parts) + "\n", pictures


def _text(output: dict[str, Any]) -> str:
    """What an output says in words: not pictures, and not progress, which is on stderr or a widget."""
    data = output.get("data", {})
    if output.get("name") == "stderr" or any("image/" in kind or "widget" in kind for kind in data):
        return ""
    return "".join(output.get("text", data.get("text/plain", "")))


def _webp(png: str) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(png))).save(content, "WEBP", quality=80, method=6)
    return content.getvalue()


if __name__ == "__main__":
    main()
