"""What a part has found so far, in a file: where it is ended, or ends itself, what it had is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Report:
    """Rows of a part, written with each one that is added.

    Args:
        path: The file, JSON.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, list[dict[str, Any]]()

    def add(self, name: str, **figures: Any) -> None:
        """Add a row: a name, and what is told of it."""
        self.rows.append({"name": name, **figures})
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.rows), "utf-8")
        partial.replace(self.path)

    @staticmethod
    def read(path: Path) -> list[dict[str, Any]]:
        """The rows of a file; none where there is no file."""
        rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []
        return rows
