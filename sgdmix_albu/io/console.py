"""What a command shows beside its result: the log as plain lines on stderr, and warnings without source code."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from sgdmix_albu.io.progress import LOGGER, silent
from sgdmix_albu.printable import printable


class _PlainLines(logging.Handler):
    """Each record as its text, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm  # not before something is told: help is fast

        tqdm.write("\n".join(map(printable, record.getMessage().splitlines())), file=sys.stderr)


@contextmanager
def told(*, quiet: bool = False) -> Iterator[None]:
    """Show the package's log on stderr.

    Args:
        quiet: Show warnings and errors only, and no progress.
    """
    handler, level = _PlainLines(), LOGGER.level
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        if quiet:
            stack.enter_context(silent())
        warnings.showwarning = _show  # until the block ends
        # Of files that can be read all the same: a line for each odd tag of a TIFF, which may have thousands.
        warnings.filterwarnings("ignore", module="PIL")
        LOGGER.addHandler(handler)
        LOGGER.setLevel(logging.WARNING if quiet else logging.INFO)
        stack.callback(LOGGER.setLevel, level)
        stack.callback(LOGGER.removeHandler, handler)
        yield


def _show(message: Warning | str, *_: object, **__: object) -> None:
    """A warning without the line of ours that gives it."""
    LOGGER.warning("sgdmix: warning: %s", message)
