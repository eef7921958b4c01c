"""The results of a run as Markdown."""

from __future__ import annotations

from typing import Any

from benchmarks.speed.table import grid, number

TITLES = {
    "machine": "The machine",
    "contracts": "Tests that need a GPU",
    "mixing": "Mixing and saliency",
    "gradcam": "Grad-CAM, ResNet-50",
    "refining": "Image-to-image",
    "strict": "Strict refining against the CPU's",
}
_WORDS = {
    "ms": "device ms", "wall_ms": "wall ms", "peak_mib": "peak MiB", "x_cutmix": "x CutMix", "of_step": "of a step",
    "x_forward": "x forward pass", "images_per_s": "images/s", "x_stock": "x stock",
    "peak_gib": "peak GiB beside the weights",
    "share_UNet": "UNet, its launches included", "share_VAE": "VAE, likewise", "share_text": "text, likewise",
    "share_rest": "between networks",
    "largest_difference": "largest difference", "within": "within 1e-3", "core_exact": "core exact",
}  # fmt: skip
_SHARES = ("of_step", "share_")


def page_of(results: dict[str, Any]) -> str:
    """All parts of one run, each with how it ended."""
    card = next((row["name"] for row in results["parts"]["machine"]["rows"]), "unknown")
    lines = [f"# {card}: {results['device']}, size {results['size']}, {results['seconds']:.0f} s, {results['date']}"]
    for name, part in results["parts"].items():
        why = "" if part["error"] is None else f": {part['error']}"
        lines += [f"## {TITLES[name]}", f"{part['status'].capitalize()} after {part['seconds']:.0f} s{why}."]
        if part["rows"]:
            lines.append(_table(part["rows"]))
    return "\n\n".join(lines) + "\n"


def _table(rows: list[dict[str, Any]]) -> str:
    keys = list(dict.fromkeys(key for row in rows for key in row if key != "name"))
    head = ["", *(_WORDS.get(key, key) for key in keys)]
    return grid(head, [[row["name"], *(_cell(key, row.get(key)) for key in keys)] for row in rows])


def _cell(key: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return (
            f"{value:.1%}"
            if key.startswith(_SHARES)
            else f"{value:.1e}"
            if key.startswith("largest")
            else number(value)
        )
    return str(value).replace("|", "/").replace("\n", " ")
