"""What Grad-CAM costs beside a plain forward pass of the same model: time and peak memory, in one run.

    python benchmarks/gradcam.py [--model resnet50] [--batch 16] [--size 224] [--repeats 15]

Times are medians over interleaved calls, in seconds of the wall clock and of the processor (the second does not
suffer from other work on the machine). Memory is the growth of a fresh process's peak during one call, above the
model and the images. "graph kept" is Grad-CAM as it is commonly written, with every layer's graph kept.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import Tensor

from sgdmix_albu.saliency import get_backend

Call = Callable[[Tensor], object]


def calls(name: str) -> dict[str, Call]:
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    backend = get_backend("gradcam", model=model, target="predicted")
    seen: list[Tensor] = []

    def plain(images: Tensor) -> object:
        with torch.no_grad():
            return model(images)

    def graph_kept(images: Tensor) -> object:
        seen.clear()
        layer = model.get_submodule(next(iter(backend._found.values())))
        handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
        score = model(images).max(1).values.sum()
        handle.remove()
        gradient = torch.autograd.grad(score, seen[0])[0]
        return (gradient.mean((2, 3), keepdim=True) * seen[0]).sum(1).clamp_min(0)

    backend.coarse(torch.rand(1, 3, 224, 224))  # finds the layer
    return {"plain forward": plain, "gradcam": backend.coarse, "graph kept": graph_kept}


def growth(name: str, which: str, batch: int, size: int) -> float:
    """MiB by which one call raises the memory of this process at its highest (Linux)."""
    call = calls(name)[which]
    images = torch.rand(batch, 3, size, size)
    call(images[:1])
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = peak_mib()
    call(images)
    return peak_mib() - before


def peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(growth(options.model, options.memory_of, options.batch, options.size))
        return

    made = calls(options.model)
    images = torch.rand(options.batch, 3, options.size, options.size)
    wall: dict[str, list[float]] = {which: [] for which in made}
    processor: dict[str, list[float]] = {which: [] for which in made}
    for _ in range(options.repeats + 1):
        for which, call in made.items():
            start, start_processor = time.perf_counter(), time.process_time()
            call(images)
            wall[which].append(time.perf_counter() - start)
            processor[which].append(time.process_time() - start_processor)
    memory = {
        which: float(subprocess.check_output([sys.executable, *sys.argv, "--memory-of", which], text=True))
        for which in made
    }
    print(f"{options.model}, {options.batch} x 3 x {options.size} x {options.size}, {torch.get_num_threads()} threads")
    print(f"{'':16}{'wall s':>9}{'ratio':>8}{'cpu s':>9}{'ratio':>8}{'peak MiB':>10}{'ratio':>8}")
    # The first round is for warming up.
    base = [statistics.median(times["plain forward"][1:]) for times in (wall, processor)]
    for which in made:
        ours = [statistics.median(times[which][1:]) for times in (wall, processor)]
        print(
            f"{which:16}{ours[0]:9.3f}{ours[0] / base[0]:8.2f}{ours[1]:9.3f}{ours[1] / base[1]:8.2f}"
            f"{memory[which]:10.0f}{memory[which] / memory['plain forward']:8.2f}"
        )


if __name__ == "__main__":
    main()
