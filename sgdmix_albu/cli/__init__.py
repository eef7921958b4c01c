"""The command ``sgdmix``: arguments in, a call, an exit code out. No logic lives here.

Exit codes: 0 done; 1 done, but read the summary; 2 not done, one line on stderr says why; 130 interrupted;
141 nobody read the output to its end.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from sgdmix_albu.cli.commands import parser
from sgdmix_albu.cli.said import Said
from sgdmix_albu.errors import DataError, SGDMixError
from sgdmix_albu.io.console import told
from sgdmix_albu.io.interrupts import INTERRUPTED, Interrupts

__all__ = ["main", "parser", "run"]

_PIPE = 141  # what shells report of a command that nobody reads any more: 128 and SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = vars(parser().parse_args(argv))
    command: Callable[..., Said] = arguments.pop("command")
    in_its_words: Callable[[str], str] = arguments.pop("in_its_words")
    as_json, quiet = arguments.pop("json"), arguments.pop("quiet")
    try:
        with Interrupts(raising=True), told(quiet=quiet):
            said = command(**arguments)
            _show(said, as_json=as_json, quiet=quiet)
            if said.error is not None:
                raise SGDMixError(said.error)
            return said.code
    except BrokenPipeError:
        # Whoever read us, such as head, has read enough. Python would complain of it when it ends.
        _close_output()
        return _PIPE
    except SGDMixError as error:
        print("sgdmix: error:", in_its_words(str(error)), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sgdmix: interrupted", file=sys.stderr)
        return INTERRUPTED


def _show(said: Said, *, as_json: bool, quiet: bool) -> None:
    try:
        said.show(as_json=as_json, quiet=quiet)
        if sys.stdout is not None:  # which a shell closes by >&-
            sys.stdout.flush()  # here, where it can be told, and not when Python ends
    except BrokenPipeError:
        raise
    except OSError as error:
        _close_output()
        raise DataError(f"the work is done, but its summary cannot be printed: {error.strerror}") from error


def _close_output() -> None:
    """Python would complain of what it cannot print any more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run() -> NoReturn:
    """The command as a process: Ctrl-C while Python ends is no reason for a traceback."""
    code = INTERRUPTED
    with suppress(KeyboardInterrupt):  # one in the moment when the command has just ended
        code = main()
    signal.signal(signal.SIGINT, lambda *_: os._exit(code))
    sys.exit(code)
