"""Ctrl-C: the first ends the work in good order, a second at once.

Python raises :class:`KeyboardInterrupt` wherever the main thread happens to be, and a second one while the first is
dealt with: inside a lock, or while a thread is waited for, which can leave the interpreter waiting for ever when it
ends (CPython's issue 89437, bpo-45274). So who lets others work holds Ctrl-C back, and looks for it where it is safe.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

INTERRUPTED = 130  # what shells report: 128 and SIGINT


class Interrupts:
    """Counts Ctrl-C instead of raising it, inside a ``with`` statement.

    Where Python would not raise :class:`KeyboardInterrupt` either (in another thread than the main one, or since the
    caller has a handler of his own) nothing is changed, and nothing is counted.

    Args:
        raising: Raise :class:`KeyboardInterrupt` at the first, and end the process at the second; also at the second
            within another ``with`` of this kind, since what is waited for there may not end.

    Attributes:
        count: How often it was pressed.

    Example:
        >>> with Interrupts() as interrupts:
        ...     signal.raise_signal(signal.SIGINT)
        ...     interrupts.count
        1
    """

    def __init__(self, *, raising: bool = False) -> None:
        self.raising = raising
        self.count = 0
        self._before: Any = None
        self._ending = raising

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            outer = _owner(before)
            if before is signal.default_int_handler or outer is not None:
                self._before = before
                self._ending = self.raising or (outer is not None and outer._ending)
                signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            return
        signal.signal(signal.SIGINT, self._before)
        outer = _owner(self._before)
        if outer is not None:
            outer.count += self.count

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self._ending and self.count > 1:
            # Nothing is half-written: files appear whole. Locks and workers end with their process.
            os.write(2, b"\nsgdmix: stopped\n")  # not print(), which may be what was interrupted
            os._exit(INTERRUPTED)
        if self.raising:
            raise KeyboardInterrupt


def _owner(handler: Any) -> Interrupts | None:
    """Whose handler it is."""
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, Interrupts) else None
