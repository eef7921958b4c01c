"""Part three: Grad-CAM on ResNet-50 beside its forward pass."""

from __future__ import annotations

import torch

from benchmarks.gpu.clock import measured
from benchmarks.gpu.report import Report
from benchmarks.gpu.scenes import scenes
from benchmarks.gpu.sizes import Size
from benchmarks.speed.groups import gradcam


def run(report: Report, size: Size, device: torch.device) -> None:
    """A row for the forward pass, one for ours, and one for pytorch-grad-cam's where it is installed."""
    torch.backends.cudnn.benchmark = True
    group = gradcam(scenes(size.gradcam, size.pixels).to(device))
    rows = measured({row.name: row.call for row in group.rows}, device, rounds=size.rounds)
    forward = rows["forward pass alone"]["ms"]
    for name, found in rows.items():
        report.add(f"{name}, batch {size.gradcam}", **found, x_forward=found["ms"] / forward)
