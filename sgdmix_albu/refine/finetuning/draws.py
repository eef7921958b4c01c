"""All randomness of a step, from (seed, step) alone: the same on any number of processes, and after a restart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sgdmix_albu.refine.finetuning.settings import Settings


@dataclass(frozen=True)
class Draws:
    """Draws of one step for the whole batch.

    Attributes:
        rows: (B,) which images.
        mirrored: (B,) bool.
        dropped: (B,) bool, trained with an empty prompt.
        times: (B,) timesteps.
        noise: (B, C, h, w), added to the latents.
        spread: (B, C, h, w), for the latents within the autoencoder's uncertainty.
    """

    rows: Tensor
    mirrored: Tensor
    dropped: Tensor
    times: Tensor
    noise: Tensor
    spread: Tensor

    def part(self, chosen: slice) -> Draws:
        """Those of some images of the batch."""
        return Draws(**{name: value[chosen] for name, value in vars(self).items()})


def draw(settings: Settings, step: int, labels: Tensor, shape: torch.Size, horizon: int) -> Draws:
    """Draw a step.

    Args:
        settings: Batch size, seed, whether classes or images are drawn evenly.
        step: Number of the step.
        labels: (N,) of all images.
        shape: (C, h, w) of the latents.
        horizon: Number of timesteps of the noise schedule.
    """
    generator = torch.Generator().manual_seed((settings.seed << 31) + step)
    count = settings.batch_size
    return Draws(
        rows=_rows(labels, count, generator, balanced=settings.balanced),
        mirrored=(torch.rand(count, generator=generator) < 0.5) & settings.flip,
        dropped=torch.rand(count, generator=generator) < settings.drop_prompt,
        times=torch.randint(horizon, (count,), generator=generator),
        noise=torch.randn(count, *shape, generator=generator),
        spread=torch.randn(count, *shape, generator=generator),
    )


def _rows(labels: Tensor, count: int, generator: torch.Generator, *, balanced: bool) -> Tensor:
    if not balanced:
        return torch.randint(len(labels), (count,), generator=generator)
    order = labels.argsort(stable=True)
    _, sizes = torch.unique_consecutive(labels[order], return_counts=True)
    starts = sizes.cumsum(0) - sizes
    chosen = torch.randint(len(sizes), (count,), generator=generator)
    within = (torch.rand(count, generator=generator, dtype=torch.float64) * sizes[chosen]).long()
    return order[starts[chosen] + within]
