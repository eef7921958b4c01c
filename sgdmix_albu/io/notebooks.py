"""Whether this is a notebook, without importing anything for it."""

from __future__ import annotations

import sys


def in_a_notebook() -> bool:
    """Whether a notebook's kernel runs this process.

    Example:
        >>> in_a_notebook()
        False
    """
    interactive = sys.modules.get("IPython")
    shell = None if interactive is None else interactive.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config
