"""What makes every report's page: Jinja2 templates, which escape all text of others, and pictures inside the page."""

from __future__ import annotations

import base64
import html
import io
import json
from functools import cache, partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from sgdmix_albu.audit import panels
from sgdmix_albu.audit.panels import Pixels
from sgdmix_albu.printable import printable

SIDE = 176  # of pictures, in pixels


def page(template: str, **content: Any) -> str:
    """A whole HTML page.

    Args:
        template: File in ``templates``.
        **content: What it shows.
    """
    return _templates().get_template(template).render(content)


def escape(text: str) -> str:
    """Text of others as HTML and SVG show it, and do nothing else with it."""
    return html.escape(printable(text))


def data_uri(picture: Image.Image, kind: str, **how: Any) -> str:
    """A picture inside a page, as the address of an image.

    Args:
        picture: The picture.
        kind: Pillow's name of a format, "JPEG" or "PNG".
        **how: Pillow's options for it.
    """
    content = io.BytesIO()
    picture.save(content, kind, **how)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"


@cache
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("sgdmix_albu.audit"),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"json": partial(json.dumps, ensure_ascii=False), "number": _number, "percent": _percent}
    found.globals |= {"picture": _picture, "zip": partial(zip, strict=True)}
    return found


def _picture(pixels: Pixels, words: str) -> Markup:
    """A picture inside the page, with words for those who cannot see it."""
    address = data_uri(Image.fromarray(panels.scaled(pixels, SIDE)), "JPEG", quality=84)
    return Markup('<img src="{}" alt="{}" width={} height={}>').format(address, printable(words), SIDE, SIDE)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
