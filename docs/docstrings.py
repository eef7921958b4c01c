"""Read our docstrings as they are meant: three habits that mkdocstrings does not know by itself."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import griffe

TYPES = Path(__file__).parents[1] / "sgdmix_albu" / "types.py"
ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?([\w.]+)`")


class OurDocstrings(griffe.Extension):
    """``Example:`` is a section of code like ``Examples:``; Sphinx roles are links; a default is its value."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for every module, class, function and attribute that it has read."""
        if obj.docstring:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = ROLE.sub(lambda role: _link(role[1], obj), text)

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Called by griffe for every function that it has read."""
        for parameter in func.parameters:
            parameter.default = _value(parameter.default, func.module)

    def on_attribute(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Called by griffe for every attribute: a dataclass shows its fields in its signature."""
        if isinstance(attr.parent, griffe.Class):
            attr.value = _value(attr.value, attr.module)


def _value(default: str | griffe.Expr | None, module: griffe.Module) -> str | griffe.Expr | None:
    """A default as a reader would type it: ``("guided",)`` for ``(BEST_MASK,)``."""

    def literal(name: re.Match[str]) -> str:
        own = module.members.get(name[0])
        value = str(own.value) if isinstance(own, griffe.Attribute) else _shared().get(name[0], name[0])
        try:
            ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return name[0]
        return value

    value = re.sub(r"\b_?[A-Z][A-Z0-9_]+\b", literal, str(default))
    return default if value == str(default) else value


@cache
def _shared() -> dict[str, str]:
    """The defaults that several rooms share."""
    found = ast.parse(TYPES.read_text()).body
    named = [(ast.unparse(one.target), one.value) for one in found if isinstance(one, ast.AnnAssign)]
    named += [(ast.unparse(one.targets[0]), one.value) for one in found if isinstance(one, ast.Assign)]
    return {name: ast.unparse(value) for name, value in named if isinstance(value, ast.Constant)}


def _link(path: str, obj: griffe.Object) -> str:
    """A link where the reference has the name, its text alone where it has not."""
    name = path.rpartition(".")[2]
    where = path if "." in path else f"{obj.module.path}.{path}"
    return f'<autoref optional identifier="{where}"><code>{name}</code></autoref>'
