"""What a command has to say when it is done: lines for people, or one JSON object for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sgdmix_albu.printable import printable


@dataclass(frozen=True)
class Said:
    """The result of a command.

    Attributes:
        lines: For people.
        facts: For programs: what JSON can say.
        code: The exit code.
        error: Why it was not done after all; it goes to stderr.
    """

    lines: Sequence[str]
    facts: Mapping[str, Any] = field(default_factory=dict)
    code: int = 0
    error: str | None = None

    def show(self, *, as_json: bool, quiet: bool) -> None:
        """Print it on stdout."""
        if as_json:
            print(json.dumps(self.facts, ensure_ascii=False, default=str))
        elif not quiet:
            for line in self.lines:
                print("\n".join(map(printable, line.split("\n"))))
