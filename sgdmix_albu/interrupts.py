"""Ctrl-C: the first ends the work in good order, a second at once.

Python raises :class:`KeyboardInterrupt` wherever the main thread happens to be, and a second one while the first is
dealt with: inside a lock, or while a thread is waited for, which can leave the interpreter waiting for ever when it
ends (CPython's issue 89437, bpo-45274). So who lets others work holds Ctrl-C back, and looks for it where it is safe.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupts"]

_INTERRUPTED = 130  # what shells report: 128 and SIGINT


class Interrupts:
    """Counts Ctrl-C instead of raising it, inside a ``with`` statement.

    Where Python would not raise :class:`KeyboardInterrupt` either (in another thread than the main one, or since the
    caller has a handler of his own) nothing is changed, and nothing is counted.

    Args:
        raising: Raise :class:`KeyboardInterrupt` at the first, and end the process at the second.

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

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            if before is signal.default_int_handler or isinstance(getattr(before, "__self__", None), Interrupts):
                self._before = before
                signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._before is None:
            return
        signal.signal(signal.SIGINT, self._before)
        outer = getattr(self._before, "__self__", None)
        if isinstance(outer, Interrupts):
            outer.count += self.count

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.raising:
            if self.count > 1:
                # Nothing is half-written: files appear whole. Locks and workers end with their process.
                os.write(2, b"\nsgdmix: stopped\n")  # not print(), which may be what was interrupted
                os._exit(_INTERRUPTED)
            raise KeyboardInterrupt
