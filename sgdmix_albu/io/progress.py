"""How far a run is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TextIO, TypeVar

from tqdm import tqdm

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

    def tell(self, text: str) -> None:
        """A line of its own, above the bar where there is one."""
        if not self.quiet:
            tqdm.write(f"sgdmix: {text}", file=self.stream)
            self.stream.flush()

    def over(
        self, items: Iterable[T], label: str, total: int, *, images: Callable[[T], int] = lambda _: 1
    ) -> Iterator[T]:
        """The items, reported on as they pass.

        Args:
            items: What passes.
            label: What is being done.
            total: Images in all of them.
            images: Images in one of them.
        """
        if self.quiet:
            return iter(items)
        if self.stream.isatty():
            return self._bar(items, label, total, images)
        return self._lines(items, label, total, images)

    def _bar(self, items: Iterable[T], label: str, total: int, images: Callable[[T], int]) -> Iterator[T]:
        with tqdm(desc=label, total=total, unit="image", file=self.stream, leave=False, dynamic_ncols=True) as bar:
            for item in items:
                yield item
                bar.update(images(item))

    def _lines(self, items: Iterable[T], label: str, total: int, images: Callable[[T], int]) -> Iterator[T]:
        began = said = time.monotonic()
        done = 0
        for item in items:
            yield item
            done += images(item)
            now = time.monotonic()
            if now - said >= self.interval:
                said = now
                rate = done / (now - began)
                left = f", {(total - done) / rate:.0f} s left" if rate else ""
                print(f"{label}: {done} of {total} images, {rate:.1f} a second{left}", file=self.stream, flush=True)


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
