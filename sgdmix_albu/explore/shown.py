"""A look as HTML: the pictures side by side, and below them what they cost. All text of others is escaped."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup
from PIL import Image

from sgdmix_albu.audit.page import data_uri
from sgdmix_albu.audit.panels import Pixels
from sgdmix_albu.explore.explorer import Look
from sgdmix_albu.printable import printable

_TOLD = 5  # images that cannot be used are told by name, as long as they are few

STYLE = """
.looks { display: grid; grid-template-columns: repeat(auto-fit, minmax(120px, 1fr)); gap: 12px; }
.looks figure { margin: 0; }
.looks img { width: 100%; display: block; border-radius: 4px; }
.looks figcaption { font-weight: 600; padding-top: 4px; }
.looks small { font-weight: 400; display: block; overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 4px 24px; margin: 12px 0; }
.facts div { display: flex; justify-content: space-between; gap: 8px; border-bottom: 1px solid #8884; }
.facts dt, .facts dd { margin: 0; }
.facts dd { white-space: nowrap; }
.told { border-left: 3px solid #d55e00; padding: 4px 10px; margin: 8px 0; overflow-wrap: anywhere; }
"""


def shown(look: Look, unusable: Mapping[str, str]) -> str:
    """The pictures, the figures, and what there is to tell.

    Args:
        look: What to show.
        unusable: Key and reason of each image that cannot be used.
    """
    names = {"image": look.key, "target": look.target or ""}
    figures = Markup("").join(_figure(title, pixels, names.get(title, "")) for title, pixels in look.panels.items())
    facts = Markup("").join(
        Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(name, value) for name, value in look.facts.items()
    )
    alone = "" if look.unmixed is None else told(f"This image stays as it is: {look.unmixed}.")
    return Markup('{}<div class="looks">{}</div><dl class="facts">{}</dl>{}').format(
        Markup(alone), figures, facts, Markup(_unusable(unusable))
    )


def told(text: str) -> str:
    """A line of plain text that stands out."""
    return Markup('<p class="told" role="status">{}</p>').format(printable(text))


def _unusable(unusable: Mapping[str, str]) -> str:
    if not unusable:
        return ""
    some = [f"{key}: {reason}" for key, reason in list(unusable.items())[:_TOLD]]
    more = f"; and {len(unusable) - _TOLD} more" if len(unusable) > _TOLD else ""
    return told(f"Left out, because they cannot be used: {'; '.join(some)}{more}.")


def _figure(title: str, pixels: Pixels, name: str) -> Markup:
    address = data_uri(Image.fromarray(pixels), "PNG", compress_level=1)
    picture = Markup('<img alt="{}" src="{}">').format(title, address)
    caption = Markup("<figcaption>{}<small>{}</small></figcaption>").format(title, printable(name))
    return Markup("<figure>{}{}</figure>").format(picture, caption)
