"""What figures are worth depends on: the machine, the versions and the images."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

_SHOWN = ("torch", "torchvision", "timm", "kornia", "albumentations", "grad-cam", "opencv-python-headless")


def about(real: bool, count: int, size: int) -> dict[str, Any]:
    """The machine, the versions and the images: photographs, or the embedded birds."""
    installed = {name: _version(name) for name in _SHOWN}
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit or "unknown",
        "images": f"{count} {'photographs' if real else 'of the embedded birds'} at {size} pixels",
        "versions": {name: version for name, version in installed.items() if version},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def machine(results: dict[str, Any]) -> str:
    """One sentence on the machine, the versions and the images."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return (
        f"{results['processor']}, {results['cores']} cores, one thread, {results['date']}, commit {results['commit']}; "
        f"{results['images']}. {versions}."
    )
