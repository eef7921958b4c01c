"""What every report's page is made of: the frame, pictures, and lists of words and their meaning."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from importlib import resources

from PIL import Image

from sgdmix_albu.audit import panels
from sgdmix_albu.audit.panels import Pixels
from sgdmix_albu.printable import printable

__all__ = ["definitions", "escape", "page", "picture", "pictures"]

_SIDE = 176


def page(title: str, body: str) -> str:
    """A whole HTML page: no scripts, no other files, light and dark, works from a disk."""
    style = resources.files("sgdmix_albu.audit").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        # The browser itself is told that nothing but this page's own pictures and styles may load or run.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>{body}</main></body></html>\n"
    )


def escape(text: str) -> str:
    """Text of others as HTML shows it, and does nothing else with it."""
    return html.escape(printable(text))


def definitions(rows: Iterable[tuple[str, str]]) -> str:
    """Rows of a ``<dl>``: a word and what it means."""
    return "".join(f"<dt>{escape(name)}<dd>{escape(text)}" for name, text in rows)


def picture(pixels: Pixels, words: str) -> str:
    """A picture inside the page, with words for those who cannot see it."""
    data = io.BytesIO()
    Image.fromarray(panels.scaled(pixels, _SIDE)).save(data, "JPEG", quality=84)
    encoded = base64.b64encode(data.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{encoded}" alt="{escape(words)}" width={_SIDE} height={_SIDE}>'


def pictures(columns: Sequence[str], rows: str) -> str:
    """A table of pictures under its headings; the rows are HTML already."""
    heads = "".join(f"<th scope=col>{escape(column)}" for column in columns)
    style = f'style="--columns:{len(columns)}"'
    return f"<div class=scroll><table class=pictures {style}><tr>{heads}{rows}</table></div>"
