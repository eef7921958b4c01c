"""Read our docstrings as they are meant: two habits that mkdocstrings does not know by itself."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?([\w.]+)`")


class OurDocstrings(griffe.Extension):
    """``Example:`` is a section of code like ``Examples:``; Sphinx roles are links."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for every module, class, function and attribute that it has read."""
        if obj.docstring:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = ROLE.sub(lambda role: _link(role[1], obj), text)


def _link(path: str, obj: griffe.Object) -> str:
    """A link where the reference has the name, its text alone where it has not."""
    name = path.rpartition(".")[2]
    where = path if "." in path else f"{obj.module.path}.{path}"
    return f'<autoref optional identifier="{where}"><code>{name}</code></autoref>'
