"""How far a run is: a bar on a terminal or in a notebook, and elsewhere a line now and then in the log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from sgdmix_albu.io.notebooks import in_a_notebook
from sgdmix_albu.printable import duration

LOGGER = logging.getLogger("sgdmix_albu")
INTERVAL = 30.0  # seconds between two lines

_SILENT: ContextVar[bool] = ContextVar("silent", default=False)

T = TypeVar("T")


class Meter(Protocol):
    """What counts the work that is done."""

    def __call__(self, done: int = 1, **figures: str) -> None:
        """So many more are done; figures, such as a loss, stand beside the count."""


class Progress:
    """Reports how far some work is.

    Args:
        interval: Seconds between two lines where nobody watches a bar.
        quiet: Say nothing.
    """

    def __init__(self, *, interval: float = INTERVAL, quiet: bool = False) -> None:
        self.interval, self.quiet = interval, quiet

    def tell(self, text: str) -> None:
        """A line of its own."""
        if not self.quiet:
            LOGGER.info("%s", text)

    def warn(self, text: str) -> None:
        """The same for what must not be missed: shown in spite of --quiet, and on stderr where no log is kept."""
        if self.quiet:
            return
        LOGGER.warning("%s", text)
        if all(isinstance(one, logging.NullHandler) for one in (*LOGGER.handlers, *logging.getLogger().handlers)):
            print(text, file=sys.stderr)

    def over(
        self,
        items: Iterable[T],
        label: str,
        total: int,
        *,
        unit: str = "image",
        count: Callable[[T], int] = lambda _: 1,
    ) -> Iterator[T]:
        """The items, reported on as they pass.

        Args:
            items: What passes.
            label: What is being done.
            total: Units in all of them.
            unit: What is counted.
            count: Units in one of them.

        Example:
            >>> list(Progress(quiet=True).over("ab", "reading", 2))
            ['a', 'b']
        """
        with self.meter(label, total, unit=unit) as meter:
            for item in items:
                yield item
                meter(count(item))

    @contextmanager
    def meter(self, label: str, total: int, *, unit: str = "image", begun: int = 0) -> Iterator[Meter]:
        """Something to call whenever a part of the work is done.

        Args:
            label: What is being done.
            total: Units in the whole work.
            unit: What is counted.
            begun: Units that an earlier run did.
        """
        if self.quiet or silenced():
            yield lambda done=1, **figures: None
        elif (bar := _bar_class()) is not None:
            with bar(desc=label, total=total, initial=begun, unit=unit, leave=False, dynamic_ncols=True) as shown:

                def update(done: int = 1, **figures: str) -> None:
                    if figures:
                        shown.set_postfix(figures, refresh=False)
                    shown.update(done)

                yield update
        else:
            yield _Lines(label, total, unit, begun, self.interval)


class _Lines:
    """A line in the log every so often."""

    def __init__(self, label: str, total: int, unit: str, begun: int, interval: float) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.begun, self.done, self.interval = begun, begun, interval
        self.start = self.said = time.monotonic()

    def __call__(self, done: int = 1, **figures: str) -> None:
        self.done += done
        now = time.monotonic()
        if now - self.said < self.interval:
            return
        self.said = now
        rate = (self.done - self.begun) / (now - self.start)
        beside = "".join(f", {name} {value}" for name, value in figures.items())
        left = f", {duration((self.total - self.done) / rate)} left" if rate else ""
        pace = f"{rate:.1f} a second" if rate >= 1 or not rate else f"{1 / rate:.1f} s each"
        LOGGER.info("%s", f"{self.label}: {self.done} of {self.total} {self.unit}s, {pace}{beside}{left}")


@contextmanager
def silent() -> Iterator[None]:
    """No progress at all inside: neither bars nor lines."""
    token = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(token)


def _bar_class() -> Any:
    """Tqdm's bar for a terminal or a notebook; None where nobody watches one."""
    if in_a_notebook():
        from tqdm.auto import tqdm as auto

        return auto
    if sys.stderr.isatty():
        from tqdm import tqdm

        return tqdm
    return None


def time_line(seconds: Mapping[str, float], images: int) -> str:
    """What a summary says of a run's steps.

    Example:
        >>> time_line({"plan": 0.5, "mixing": 1.5}, 100)
        'time     2.0 s (plan 0.5, mixing 1.5), 20.0 ms an image'
    """
    total = sum(seconds.values())
    steps = ", ".join(f"{name} {taken:.1f}" for name, taken in seconds.items())
    each = f", {1000 * total / images:.1f} ms an image" if images else ""
    return f"time     {total:.1f} s ({steps}){each}"


def silenced() -> bool:
    """Whether no progress is to be shown: a command's ``--quiet``.

    Example:
        >>> with silent():
        ...     silenced()
        True
    """
    return _SILENT.get()
