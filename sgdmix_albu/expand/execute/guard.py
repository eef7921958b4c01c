"""A script without ``if __name__ == "__main__":`` would begin its work again in each worker process: refused at once.

Processes are spawned, and a spawned process imports the main script before it is given work. This process can tell what
will happen there by the line of the script that it is executing itself.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import FrameType, ModuleType
from typing import TypeVar

from sgdmix_albu.errors import InvalidInputError

E = TypeVar("E", bound=Exception)

_TESTED = {"__name__", "current_process"}  # what a guard may look at

_GUARD = """
    def main():
        ...  # what the script does

    if __name__ == "__main__":
        main()
"""


def with_guard(error: E) -> E:
    """The same error; the lines to write stand below it."""
    error.add_note(_GUARD)
    return error


def check_guarded() -> None:
    """Refuse to begin worker processes from the main script's top level, outside of a guard.

    Raises:
        InvalidInputError: The script, the line, and how a guard is written.
    """
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if main is None or path is None or not _imported_again(main):
        return
    frame = _top_level(main)
    if frame is not None and _unguarded(Path(path), frame):
        raise with_guard(
            InvalidInputError(
                f"this run starts worker processes, and Python imports {path} again in each of them: line "
                f"{frame.f_lineno} would begin the run again there. Put what the script does into a function, and call "
                "it under 'if __name__ == \"__main__\":'; or pass workers=1, to work in this process alone"
            )
        )


def _imported_again(main: ModuleType) -> bool:
    """As :mod:`multiprocessing.spawn` decides it: ``python -m package`` is not, nor is what has no file."""
    spec = main.__spec__
    return spec is None or not (spec.name == "__main__" or spec.name.endswith(".__main__"))


def _top_level(main: ModuleType) -> FrameType | None:
    """Where the main script's own lines are being executed; None where they have ended, or in another thread."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and not (frame.f_globals is vars(main) and frame.f_code.co_name == "<module>"):
        frame = frame.f_back
    return frame


def _unguarded(path: Path, frame: FrameType) -> bool:
    """Whether the line stands under no guard, as far as the file on disk is what is being executed."""
    try:
        source = path.read_bytes()
        same = compile(source, frame.f_code.co_filename, "exec", dont_inherit=True).co_code == frame.f_code.co_code
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError):  # compiled elsewhere, or edited meanwhile
        return False
    ifs = (node for node in ast.walk(tree) if isinstance(node, ast.If))
    return same and not any(_holds(node, frame.f_lineno) and _looks(node.test) for node in ifs)


def _holds(node: ast.If, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)


def _looks(test: ast.expr) -> bool:
    """Whether a condition tells the process that was started from one that it started."""
    names = {getattr(node, "id", None) or getattr(node, "attr", None) for node in ast.walk(test)}
    return bool(names & _TESTED)
