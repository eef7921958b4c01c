"""A hook of mkdocs: CHANGELOG.md and CONTRIBUTING.md are pages of the site too, and their links lead there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WHOLE = re.compile(r'--8<-- "([A-Z]+\.md)"\n?')
LINK = re.compile(r"\[([^]]*)\]\((?!https?:|#)([^)]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put in the file that a page consists of, with links as seen from docs/; other pages stay as they are."""
    found = WHOLE.fullmatch(markdown)
    return LINK.sub(_from_docs, (ROOT / found[1]).read_text("utf-8")) if found else markdown


def _from_docs(link: re.Match[str]) -> str:
    """A link into docs/ loses that folder; what is not part of the site is only named."""
    text, target = link.groups()
    return f"[{text}]({target.removeprefix('docs/')})" if target.startswith("docs/") else text
