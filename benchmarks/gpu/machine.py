"""Part nought: which device it is, and what is installed."""

from __future__ import annotations

import platform
from importlib import metadata

import torch

from benchmarks.gpu.report import Report
from benchmarks.gpu.sizes import Size

_SHOWN = ("torchvision", "transformers", "diffusers", "peft", "captum", "albumentations", "timm")


def run(report: Report, size: Size, device: torch.device) -> None:
    """One row."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in _SHOWN:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        name = about.name
        found |= {"memory": f"{about.total_memory / 2**30:.0f} GiB", "capability": f"{about.major}.{about.minor}"}
        found |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    report.add(name, **found)
