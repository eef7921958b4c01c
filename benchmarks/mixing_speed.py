"""What mixing costs a batch, beside torchvision's CutMix and a bare ``clone()``, interleaved in one run.

    python benchmarks/mixing_speed.py [--batch 64] [--size 224] [--rounds 30] [--threads 2]

Prints medians, quartiles and ratios as a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torchvision.transforms import v2

from sgdmix_albu import SGDMix
from sgdmix_albu.saliency import SaliencyMap


def smooth(batch: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Maps with a few soft blobs each, in [0, 1]."""
    coarse = torch.rand(batch, 1, 8, 8, generator=generator)
    return F.interpolate(coarse, size=(size, size), mode="bilinear")[:, 0].contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    generator = torch.Generator().manual_seed(0)
    maps = smooth(options.batch, options.size, generator)
    images = maps[:, None] * 0.5 + 0.5 * torch.rand(options.batch, 3, options.size, options.size, generator=generator)
    labels = torch.arange(options.batch) % 10
    cutmix = v2.CutMix(num_classes=10)
    spectral, given = SGDMix("spectral_residual", mask="otsu"), SGDMix("given", mask="otsu")
    saliency = SaliencyMap(maps)
    rivals: dict[str, Callable[[], object]] = {
        "clone()": images.clone,
        "torchvision CutMix": lambda: cutmix(images, labels),
        "SGDMix given": lambda: given(images, labels, saliency),
        "SGDMix spectral_residual": lambda: spectral(images, labels),
    }
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(options.rounds + 3):
        for name, run in rivals.items():
            start = time.perf_counter()
            run()
            if turn >= 3:  # the first rounds warm caches up
                times[name].append(1000 * (time.perf_counter() - start))

    print(f"{options.batch} x 3 x {options.size} x {options.size} float32, {options.threads} threads, CPU\n")
    print("| step | median ms | quartiles | x clone | x CutMix |\n|---|---|---|---|---|")
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        low, _, high = statistics.quantiles(values, n=4)
        ratios = [medians[name] / medians[peer] for peer in ("clone()", "torchvision CutMix")]
        print(f"| {name} | {medians[name]:.1f} | {low:.1f} - {high:.1f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")


if __name__ == "__main__":
    main()
