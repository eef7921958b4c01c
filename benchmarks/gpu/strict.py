"""Part five: ``preserve="strict"`` on the device is what it is on the CPU, with the small embedded base."""

from __future__ import annotations

import torch

from benchmarks.gpu.report import Report
from benchmarks.gpu.scenes import scenes
from benchmarks.gpu.sizes import Size
from sgdmix_albu.refine import RefinerSpec
from sgdmix_albu.refine.refiner import Refiner

SIDE, LIMIT = 64, 1e-3


def run(report: Report, size: Size, device: torch.device) -> None:
    """The largest difference of a pixel, in single precision with and without what a GPU may round by itself.

    Raises:
        RuntimeError: They differ by more than 1e-3 where nothing is rounded.
    """
    images = scenes(size.strict, SIDE).float() / 255
    masks = torch.zeros(size.strict, SIDE, SIDE, dtype=torch.bool)
    masks[:, 16:48, 16:48] = True
    expected = _refined(images, masks, torch.device("cpu"), size)
    worst = 0.0
    for name, rounding in (("single precision", False), ("TF32, torch's own setting for convolutions", True)):
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = rounding
        found = _refined(images.to(device), masks.to(device), device, size).cpu()
        difference = float((found - expected).abs().max())
        core = bool(torch.equal(found[:, :, 24:40, 24:40], images[:, :, 24:40, 24:40]))
        report.add(name, largest_difference=difference, within=difference <= LIMIT, core_exact=core)
        worst = worst if rounding else difference
    if worst > LIMIT:
        raise RuntimeError(f"expected at most {LIMIT} between the device and the CPU, got {worst:.2g}")


def _refined(images: torch.Tensor, masks: torch.Tensor, device: torch.device, size: Size) -> torch.Tensor:
    spec = RefinerSpec("speed", "bird", resolution=SIDE, base="embedded:aviary", revision=None, steps=size.steps)
    refiner = Refiner(spec, finetuned=False, device=device, dtype=torch.float32)
    prompts = ["a photo of a bird"] * len(images)
    done = refiner.refine(
        images, prompts=prompts, strength=0.5, seeds=range(len(images)), masks=masks, preserve="strict"
    )
    return done.images
