"""Results in a notebook: the answer, a table and a few pictures below the cell; and the whole report."""

from __future__ import annotations

import html
import importlib
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from sgdmix_albu.audit.page import data_uri, escape
from sgdmix_albu.io.notebooks import in_a_notebook

_WIDTH, _HEIGHT = 640, 320  # of the pictures below a cell, and the most of them, in pixels


def in_notebook(answer: str, notes: Sequence[str], *parts: str) -> str:
    """The HTML that a notebook shows of a result.

    Args:
        answer: In large letters.
        notes: Lines below it.
        *parts: HTML below them.
    """
    said = "".join(f"<div>{escape(note)}</div>" for note in notes)
    return f'<div><p style="font-size:1.25em"><b>{escape(answer)}</b></p>{said}{"".join(parts)}</div>'


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows under headings; shares as percentages, "-" for None.

    Example:
        >>> table(["a", "b"], [["x", 0.5]])
        '<table><tr><th>a</th><th>b</th></tr><tr><td>x</td><td>50%</td></tr></table>'
    """

    def cell(value: Any) -> str:
        return "-" if value is None else f"{value:.0%}" if isinstance(value, float) else escape(str(value))

    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{cell(value)}</td>' for value in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def top_of(picture: Path) -> str:
    """The upper part of a panel, small, inside the page; nothing where the file is gone."""
    if not picture.is_file():
        return ""
    with Image.open(picture) as opened:
        whole = opened.convert("RGB")
    small = whole.resize((_WIDTH, max(1, whole.height * _WIDTH // whole.width)), Image.Resampling.LANCZOS)
    top = small.crop((0, 0, _WIDTH, min(_HEIGHT, small.height)))
    return f'<img alt="the first samples" src="{data_uri(top, "JPEG", quality=80)}">'


def show(report: Path) -> None:
    """A report below the cell of a notebook; elsewhere in the browser."""
    if not in_a_notebook():
        webbrowser.open(report.resolve().as_uri())
        return
    notebook = importlib.import_module("IPython.display")
    # The page itself, not its address: the notebook may run on another machine than the browser.
    page = html.escape(report.read_text(encoding="utf-8"))
    notebook.display(notebook.HTML(f'<iframe srcdoc="{page}" style="width:100%;height:800px;border:0"></iframe>'))
