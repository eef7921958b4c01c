"""Copies of what serves one call at a time, such as a network that is put into another mode while it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from queue import LifoQueue
from typing import Generic, NamedTuple, TypeVar

import torch

T = TypeVar("T")

CPU = torch.device("cpu")


class Lent(NamedTuple, Generic[T]):
    """A copy, and the device that it belongs to."""

    thing: T
    device: torch.device


class Copies(Generic[T]):
    """Lends each caller a copy of his own; whoever comes when all are lent waits.

    Args:
        make: Makes one; called in the thread that needs it, when no other is idle.
        most: How many there may be.
        devices: Where they are made and used, one after the other: a GPU is the current one meanwhile.

    Example:
        >>> copies = Copies(list, most=2)
        >>> with copies.one() as first, copies.one() as second:
        ...     first.thing is second.thing, first.device
        (False, device(type='cpu'))
    """

    def __init__(self, make: Callable[[], T], most: int = 1, devices: Sequence[torch.device] = (CPU,)) -> None:
        self._make = make
        self._idle: LifoQueue[tuple[torch.device, list[T]]] = LifoQueue()  # the last one given back goes out first
        for place in reversed(range(most)):
            self._idle.put((devices[place % len(devices)], []))

    @contextmanager
    def one(self) -> Iterator[Lent[T]]:
        """A copy for as long as it is needed."""
        device, made = self._idle.get()
        try:
            with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
                if not made:
                    made.append(self._make())
                yield Lent(made[0], device)
        finally:
            self._idle.put((device, made))


def gpus(device: str | None = None) -> list[torch.device]:
    """The GPUs of this machine that torch may use: all, or the one that ``device`` names; none for "cpu"."""
    named = torch.device(device or "cuda")
    if named.type != "cuda":
        return []
    there = range(torch.cuda.device_count())
    return [torch.device("cuda", number) for number in there if named.index in (None, number)]
