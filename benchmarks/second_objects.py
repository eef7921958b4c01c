"""How often a refiner draws a second bird where the target's was painted out.

Drawn birds are mixed with ``fill="inpaint"`` by their true masks, the sources moved aside so that holes show, and
refined with ``preserve="strict"``. A small network, trained on other drawn birds, says where birds are; a hole counts
when more than 15% of it, away from the source, is bird. Ten minutes or more on one core.

    python benchmarks/second_objects.py [--pairs 96] [--strengths 0.3 0.5 0.7 0.9]
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgdmix_albu.datasets.aviary import Aviary
from sgdmix_albu.mixing.fill import grown, inpaint
from sgdmix_albu.refine import get_refiner

SIDE, SHARE, MARGIN = 64, 0.15, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=96)
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.3, 0.5, 0.7, 0.9])
    arguments = parser.parse_args()
    finder = trained_finder()
    birds = Aviary("test", per_species=-(-2 * arguments.pairs // 12), size=SIDE, seed=1)
    draws = torch.Generator().manual_seed(1)
    rows = torch.randperm(len(birds), generator=draws)[: 2 * arguments.pairs]
    sources, targets = rows.chunk(2)
    images, masks = moved(*drawn(birds, sources), draws)
    others, theirs = drawn(birds, targets)
    holes = grown(theirs)
    mixed = torch.where(masks[:, None], images, inpaint(others, holes))
    shown = holes & ~masks
    looked_at = shown & ~(F.max_pool2d(masks[:, None].float(), 2 * MARGIN + 1, 1, MARGIN)[:, 0] > 0)

    def share_of(pictures: Tensor) -> str:
        return f"{second(finder, pictures, looked_at):6.0%}"

    print("targets in the holes", share_of(torch.where(masks[:, None], images, others)), "  paint", share_of(mixed))
    for strength in arguments.strengths:
        found = []
        for told, raised in ((None, None), (shown, None), (shown, 1.0)):
            refiner = get_refiner("aviary", finetuned=False, class_names=birds.classes, hole_strength=raised)
            refined = refiner.refine(
                mixed,
                classes=[birds.targets[row] for row in sources.tolist()],
                strength=strength,
                seeds=range(len(mixed)),
                masks=masks,
                holes=told,
                preserve="strict",
            )
            found.append(share_of(refined.images))
        print(
            f"S = {strength:g}   holes not told {found[0]}   told {found[1]}   hole_strength=1 {found[2]}", flush=True
        )


def drawn(birds: Aviary, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) uint8 and true masks (B, H, W) bool."""
    found = [birds.render(row) for row in rows.tolist()]
    images = torch.stack([torch.from_numpy(one.image) for one in found]).permute(0, 3, 1, 2).contiguous()
    return images, torch.stack([torch.from_numpy(one.mask) for one in found])


def moved(images: Tensor, masks: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each image shifted by a sixth to two fifths of its side, to the left or to the right."""
    by = torch.randint(SIDE // 6, 2 * SIDE // 5, (len(images),), generator=draws)
    by *= 2 * torch.randint(0, 2, (len(images),), generator=draws) - 1
    shifts = by.tolist()

    def roll(values: Tensor) -> Tensor:
        return torch.stack([one.roll(shift, -1) for one, shift in zip(values, shifts, strict=True)])

    return roll(images), roll(masks)


def second(finder: nn.Module, pictures: Tensor, looked_at: Tensor) -> float:
    """Share of the pictures in which a bird is found in the hole."""
    with torch.inference_mode():
        bird = finder(pictures.float() / 255) > 0
    part = (bird & looked_at).flatten(1).sum(1) / looked_at.flatten(1).sum(1).clamp_min(1)
    return float((part > SHARE).float().mean())


def trained_finder(epochs: int = 5) -> nn.Module:
    """A network that finds drawn birds wherever they are."""
    birds = Aviary("train", per_species=120, size=SIDE, seed=3)
    images, masks = drawn(birds, torch.arange(len(birds)))
    torch.manual_seed(0)
    finder = Finder()
    optimiser = torch.optim.Adam(finder.parameters(), 2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(32):
            by = tuple(torch.randint(-SIDE // 3, SIDE // 3, (2,)).tolist())
            pixels, wanted = (values[rows].float().roll(by, (-2, -1)) for values in (images, masks))
            loss = F.binary_cross_entropy_with_logits(finder(pixels / 255), wanted)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return finder.eval()


class Finder(nn.Module):
    """A small U-Net (Ronneberger et al., 2015): (B, 3, H, W) in [0, 1] to logits (B, H, W)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        widths = [3, width, 2 * width, 4 * width, 4 * width]
        self.down = nn.ModuleList(block(*pair) for pair in pairwise(widths))
        self.up = nn.ModuleList(
            [block(8 * width, 2 * width), block(4 * width, width), block(2 * width, width), nn.Conv2d(width, 1, 1)]
        )

    def forward(self, values: Tensor) -> Tensor:
        """Down, and up again beside what was seen on the way."""
        seen: list[Tensor] = []
        for level, down in enumerate(self.down):
            values = down(F.max_pool2d(values, 2) if level else values)
            seen.append(values)
        *ups, last = self.up
        for up, finer in zip(ups, reversed(seen[:-1]), strict=True):
            values = up(torch.cat([F.interpolate(values, scale_factor=2.0, mode="bilinear"), finer], 1))
        return last(values)[:, 0]  # type: ignore[no-any-return]


def block(before: int, after: int) -> nn.Sequential:
    layers = [(nn.Conv2d(a, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()) for a in (before, after)]
    return nn.Sequential(*layers[0], *layers[1])


if __name__ == "__main__":
    main()
