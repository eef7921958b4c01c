"""Refusals that depend on numbers: read at once on a CPU; on a GPU all of a batch together, when it is done.

Each number that a program reads from a GPU makes it wait until the GPU has caught up. Inside :func:`read_together` what
is refused is therefore only written down, and read in one go at the end, before the result is handed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class _Held:
    """What waits for the end of a block."""

    refusals: list[tuple[Tensor, Callable[[], Exception | None]]] = field(default_factory=list)
    actions: list[Callable[[], object]] = field(default_factory=list)

    def read(self) -> None:
        held, self.refusals = self.refusals, []
        if not held:
            return
        home = held[0][0].device
        for found, (_, error) in zip(torch.stack([bad.to(home) for bad, _ in held]).tolist(), held, strict=True):
            if found:
                _raise(error())


_HELD: ContextVar[_Held | None] = ContextVar("refusals", default=None)


def refuse_if(bad: Tensor, error: Callable[[], Exception | None]) -> None:
    """Raise an error if any of ``bad`` is true: now, or on a GPU at the end of :func:`read_together`.

    Args:
        bad: Bool, any shape.
        error: Makes the error; it may read what it likes. None where a closer look finds nothing to refuse.

    Example:
        >>> refuse_if(torch.tensor([False, True]), lambda: ValueError("expected no such image"))
        Traceback (most recent call last):
        ...
        ValueError: expected no such image
    """
    held = _HELD.get()
    if held is None or bad.device.type == "cpu":
        if bool(bad.any()):
            _raise(error())
    else:
        held.refusals.append((bad.any(), error))


def once_read(action: Callable[[], object]) -> None:
    """Do what would outlast a refusal: now, or at the end of :func:`read_together`, if nothing was refused."""
    held = _HELD.get()
    if held is None:
        action()
    else:
        held.actions.append(action)


def read_now() -> None:
    """Read what is held back so far, before something dear is begun."""
    held = _HELD.get()
    if held is not None:
        held.read()


@contextmanager
def read_together() -> Iterator[None]:
    """Hold the refusals of a block back, as far as they are on a GPU, and read them in one go at its end.

    Blocks may be nested; the outermost reads. Where the block fails by itself, its own error is told.
    """
    if _HELD.get() is not None:
        yield
        return
    held = _Held()
    token = _HELD.set(held)
    try:
        yield
    finally:
        _HELD.reset(token)
    held.read()
    for action in held.actions:
        action()


def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error
