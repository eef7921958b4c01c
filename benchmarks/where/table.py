"""The results of a run as Markdown."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.speed.about import machine
from benchmarks.speed.table import grid, number


def page_of(results: dict[str, Any]) -> str:
    """The table of one run, and where it was made."""
    cost = [statistics.median(run["worker_ms"] + run["main_ms"] for run in row["runs"]) for row in results["rows"]]
    workers = [f"{count} worker{'s' * (count > 1)}" for count in results["workers"]]
    head = ["images a second at", *workers, "CPU ms an image, workers", "main", "all, above no mixing"]
    lines = []
    for row, total in zip(results["rows"], cost, strict=True):
        parts = [statistics.median(run[which] for run in row["runs"]) for which in ("worker_ms", "main_ms")]
        rates = [f"{run['images_per_s']:.0f}" for run in row["runs"]]
        lines.append([row["name"], *rates, *map(number, parts), number(max(0.0, total - cost[0]))])
    consumer = f"Batches of {results['batch']}; the consumer is {results['consumer']}."
    return f"{machine(results)} {consumer}\n\n{grid(head, lines)}"
