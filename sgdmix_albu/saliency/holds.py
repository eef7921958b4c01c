"""Which networks a function or object looks through: what it computes changes when their weights do."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable
from typing import Any

from torch import nn

from sgdmix_albu.saliency.fingerprint import parts_of

_MOST = 100_000  # things looked through; whoever holds more holds a data set
_PLAIN = (str, bytes, int, float, complex, type, types.ModuleType, type(None))


def modules_in(thing: Any) -> list[nn.Module]:
    """The torch modules that a function or object can reach, without calling it.

    Looked through are attributes, items, closures, defaults, arguments of partials, and the globals that a function
    names, also those of functions that it names. A module reached in another way (by a registry, say) is not found.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> modules_in(lambda images: model(images)) == [model]
        True
        >>> modules_in(lambda images: images.mean(1))
        []
    """
    found: list[nn.Module] = []
    seen: dict[int, Any] = {}  # holds what was seen, so that no id is used again meanwhile
    waiting = [thing]
    while waiting and len(seen) < _MOST:
        one = waiting.pop()
        if isinstance(one, _PLAIN) or id(one) in seen:
            continue
        seen[id(one)] = one
        if isinstance(one, nn.Module):
            found.append(one)
        else:
            waiting.extend(_parts(one))
    return found


def _parts(one: Any) -> Iterable[Any]:
    if isinstance(one, set | frozenset):
        return one
    if isinstance(one, dict | list | tuple | functools.partial | types.MethodType):
        return parts_of(one)
    if isinstance(one, types.FunctionType):
        return [*_cells(one), one.__defaults__, one.__kwdefaults__, *_globals(one.__code__, one.__globals__)]
    if type(one).__module__.split(".")[0] in ("builtins", "torch", "numpy"):
        return []
    own = [part for kind in type(one).__mro__ for part in vars(kind).values() if isinstance(part, types.FunctionType)]
    return [*getattr(one, "__dict__", {}).values(), *own]


def _cells(function: types.FunctionType) -> list[Any]:
    filled = []
    for cell in function.__closure__ or ():
        try:
            filled.append(cell.cell_contents)
        except ValueError:  # not filled yet
            continue
    return filled


def _globals(code: types.CodeType, known: dict[str, Any]) -> list[Any]:
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    named = [known[name] for name in code.co_names if name in known]
    return [*named, *(part for nested in inner for part in _globals(nested, known))]
