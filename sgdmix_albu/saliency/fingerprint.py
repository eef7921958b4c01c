"""A digest that changes when what a backend computes changes."""

from __future__ import annotations

import functools
import hashlib
import types
from typing import Any

import numpy as np
import torch
from torch import nn


def fingerprint(value: Any) -> str:
    """SHA-256 over an object's type and everything it holds.

    Of a model that is its architecture (types and settings of its modules, as printed) and its weights and
    buffers; of a function, its byte code, constants, defaults and what it closes over. Not seen are changes
    in the source of the classes themselves.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> before = fingerprint(model)
        >>> with torch.no_grad():
        ...     _ = model.bias.add_(1)
        >>> fingerprint(model) == before
        False
    """
    digest = hashlib.sha256()
    _feed(digest, value, set())
    return digest.hexdigest()


def _feed(digest: hashlib._Hash, value: Any, above: set[int]) -> None:
    digest.update(f"<{type(value).__module__}.{type(value).__qualname__}>".encode())
    if isinstance(value, str | bytes | int | float | complex | slice | None | torch.dtype | torch.device):
        digest.update(repr(value).encode())
    elif isinstance(value, np.ndarray | torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        if isinstance(value, torch.Tensor):
            flat = value.detach().cpu().contiguous().reshape(-1)
            value = (flat.view(torch.uint8) if len(flat) else flat).numpy()  # as bytes, since numpy has no bfloat16
        digest.update(value.tobytes())
    elif isinstance(value, type):
        digest.update(f"{value.__module__}.{value.__qualname__}".encode())
    elif id(value) in above:
        digest.update(b"(above)")
    else:
        for part in parts_of(value):
            _feed(digest, part, above | {id(value)})


def parts_of(value: Any) -> list[Any]:
    """What makes up an object, in an order that does not depend on the run."""
    if isinstance(value, dict):
        return [part for item in value.items() for part in item]
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, nn.Module):
        return [str(value), dict(value.state_dict())]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return [value.__module__, value.__qualname__, value.__code__, value.__defaults__, cells]
    if isinstance(value, types.CodeType):
        return [value.co_code, value.co_names, value.co_consts]
    if isinstance(value, types.BuiltinFunctionType):
        return [value.__qualname__]
    return sorted(getattr(value, "__dict__", {}).items())
