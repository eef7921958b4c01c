"""Public names that are imported when they are first asked for (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["lazy"]


def lazy(package: str, homes: Mapping[str, Iterable[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's ``__getattr__`` and ``__dir__``: importing it costs nothing, a name costs what its module costs.

    Args:
        package: The package's ``__name__``.
        homes: Modules, those of the package with a dot before them, and the public names of each.

    Example:
        >>> resolve, _ = lazy("collections", {".abc": ["Sized"], "json": ["loads"]})
        >>> resolve("loads")("[1]"), resolve("Sized").__name__
        ([1], 'Sized')
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def resolve(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(home_of[name], package), name)

    return resolve, lambda: sorted({*vars(sys.modules[package]), *home_of})
