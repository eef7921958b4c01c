"""The results as Markdown, and the markers of a page that they stand between."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed.about import machine
from sgdmix_albu.errors import DataError


def write_between(page: Path, name: str, text: str) -> None:
    """Put a text between the markers ``<!-- NAME: begin ... -->`` and ``<!-- NAME: end -->`` of a page.

    Raises:
        DataError: The page has no such markers.
    """
    marked = re.compile(rf"(<!-- {name}: begin[^>]*-->\n).*?(<!-- {name}: end -->)", re.DOTALL)
    changed, count = marked.subn(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page.read_text("utf-8"))
    if count != 1:
        raise DataError(f"expected the markers {name!r} once in {page}, found them {count} times")
    page.write_text(changed, "utf-8")


def keep(results: dict[str, Any], figures: Path | None, page: Path | None, name: str, text: str) -> None:
    """Write the figures as JSON, and the text made of them between a page's markers; None leaves one out."""
    if figures:
        figures.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    if page:
        write_between(page, name, text)


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all but the first column are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page_of(results: dict[str, Any]) -> str:
    """All tables of one run, and where it was made."""
    return "\n\n".join(
        [*_in_short(results["groups"]), machine(results), *(_group(group) for group in results["groups"])]
    )


def _in_short(groups: Sequence[dict[str, Any]]) -> list[str]:
    """What one asks first, where it was measured: the default and the cheapest mix of bytes, beside CutMix."""
    found = {group["name"]: group for group in groups}
    if "mixing-uint8" not in found:
        return []
    said = []
    for kind in ("uint8", "float32"):
        group = found.get(f"mixing-{kind}")
        if group is not None:
            medians = {row["name"]: row["cpu_ms"]["median"] for row in group["rows"]}
            cutmix = medians["torchvision CutMix"] / group["images"]
            words = [f"CutMix takes {number(cutmix)} ms"]
            for name in ('`SGDMix("given", mask="otsu", fill="source")`', "`SGDMix()`"):
                words.append(f"{name} {number(medians[name] / group['images'])} ms")
            said.append(f"of an image in {kind}, {', '.join(words)}")
    return [f"In short, on one core: {'; '.join(said)}."]


def _group(group: dict[str, Any]) -> str:
    yardsticks, rows = group["yardsticks"], group["rows"]
    medians = {row["name"]: row["cpu_ms"]["median"] for row in rows}
    memory, output = any(row["peak_mib"] is not None for row in rows), group["output_mib"]
    head = ["", "CPU ms", "quartiles", "wall ms", *([] if group["images"] == 1 else ["CPU ms an image"])]
    head += [f"x {name.removeprefix('torchvision ').strip('`')}" for name in yardsticks]
    head += [*(["peak MiB"] if memory else []), *(["in outputs"] if memory and output else [])]
    lines = []
    for row in rows:
        cpu, peak = row["cpu_ms"], row["peak_mib"]
        line = [row["name"], number(cpu["median"]), f"{number(cpu['low'])} to {number(cpu['high'])}"]
        line.append(number(row["wall_ms"]["median"]))
        line += [] if group["images"] == 1 else [number(cpu["median"] / group["images"])]
        line += [number(cpu["median"] / medians[name]) for name in yardsticks]
        line += [] if not memory else ["" if peak is None else f"{peak:.1f}"]
        line += [] if not (memory and output) else ["" if peak is None else f"{peak / output:.2f}"]
        lines.append(line)
    missing = [f"{name} ({why})" for name, why in group["missing"].items()]
    also = [f"Not measured: {', '.join(missing)}."] if missing else []
    calls = sorted({row["calls"] for row in rows})
    counted = f"{calls[0]} calls of each." if len(calls) == 1 else f"{calls[0]} to {calls[-1]} calls of each."
    return "\n\n".join([f"### {group['title']}", counted, grid(head, lines), *also])


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
