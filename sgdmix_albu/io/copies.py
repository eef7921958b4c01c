"""Copies of what serves one call at a time, such as a network that is put into another mode while it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import LifoQueue
from typing import Generic, NamedTuple, TypeVar

import torch

from sgdmix_albu.devices import CPU, count_of, current, has_float64, working_device

T = TypeVar("T")


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
            with current(device):
                if not made:
                    made.append(self._make())
                yield Lent(made[0], device)
        finally:
            self._idle.put((device, made))


def gpus(device: str | None = None, *, exact: bool = False) -> list[torch.device]:
    """The GPUs of this machine that torch may use: all, or the one that ``device`` names; none for "cpu".

    Of CUDA's several may be used; of another kind one is.

    Args:
        device: What the user said.
        exact: Those only that compute in float64, as saliency and masks need it.

    Raises:
        InvalidInputError: No device has such a name.
    """
    named = working_device(device)
    if named.type == "cpu":
        return []
    there = range(count_of(named.type))
    found = [torch.device(named.type, number) for number in there if named.index in (None, number)]
    found = found if named.type == "cuda" else found[:1]
    return [one for one in found if has_float64(one) or not exact]
