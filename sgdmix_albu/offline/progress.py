"""How far a run is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

from tqdm import tqdm

__all__ = ["Progress"]

T = TypeVar("T")


class Progress:
    """Reports on stderr, or where told.

    Args:
        stream: Where to write; None for stderr.
        interval: Seconds between two lines where the stream is no terminal.
        quiet: Say nothing.
    """

    def __init__(self, stream: TextIO | None = None, *, interval: float = 10, quiet: bool = False) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.interval, self.quiet = interval, quiet

    def over(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        """The items, reported on as they pass."""
        if self.quiet:
            return iter(items)
        if self.stream.isatty():
            return iter(
                tqdm(items, desc=label, total=total, unit="image", file=self.stream, leave=False, dynamic_ncols=True)
            )
        return self._lines(items, label, total)

    def _lines(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        began = said = time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if now - said >= self.interval:
                said = now
                rate = done / (now - began)
                print(
                    f"{label}: {done} of {total} images, {rate:.1f} a second, {(total - done) / rate:.0f} s left",
                    file=self.stream,
                    flush=True,
                )
