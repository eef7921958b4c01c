"""How long the steps of a run take."""

from __future__ import annotations

import time


class Clock:
    """Seconds of named steps.

    Example:
        >>> clock = Clock()
        >>> with clock("plan"):
        ...     pass
        >>> list(clock.seconds)
        ['plan']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name = ""

    def __call__(self, name: str) -> Clock:
        """The step that begins; steps of one name add up."""
        self._name = name
        return self

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self._name] = self.seconds.get(self._name, 0) + time.perf_counter() - self._began
