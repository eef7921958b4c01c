"""Training the network: the loss, the schedule, and the weights' running mean."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.distillation.views import Examples, draw_views
from sgdmix_albu.saliency.network import SaliencyNetwork

_WINDOW = 15  # of the surroundings in which a pixel is called near an edge, in pixels of the map
_EDGE = 4.0  # how much more such a pixel counts
_DECAY = 1e-2
_WARM_UP = 0.03  # share of the steps


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps: Gradient steps.
        batch: Views in each.
        side: Their size in pixels; in the first half of the steps, which need not be exact, 4/5 of it.
        rate: The greatest learning rate, of AdamW.
        encoder_rate: The encoder's, as a share of it.
        seed: Of all draws.
    """

    steps: int
    batch: int = 32
    side: int = 160
    rate: float = 1e-3
    encoder_rate: float = 0.3
    seed: int = 0


def saliency_loss(logits: Tensor, maps: Tensor) -> Tensor:
    """Cross entropy and soft IoU, both with more weight near edges (Wei et al., "F3Net", AAAI 2020, equations 5-8).

    Args:
        logits: (B, h, w).
        maps: (B, h, w) in [0, 1], the teacher's.
    """
    near = F.avg_pool2d(maps[:, None], _WINDOW, 1, _WINDOW // 2, count_include_pad=False)[:, 0]
    weight = 1 + _EDGE * (near - maps).abs()
    entropy = F.binary_cross_entropy_with_logits(logits, maps, reduction="none")
    entropy = (weight * entropy).sum((1, 2)) / weight.sum((1, 2))
    found = logits.sigmoid()
    both = (weight * torch.minimum(found, maps)).sum((1, 2))
    either = (weight * torch.maximum(found, maps)).sum((1, 2))
    return (entropy + 1 - (both + 1) / (either + 1)).mean()


def train(
    network: SaliencyNetwork,
    batches: Iterable[tuple[Tensor, Tensor]],
    schedule: Schedule,
    *,
    device: torch.device,
    said: Callable[[int, float, SaliencyNetwork], None] = lambda *_: None,
) -> SaliencyNetwork:
    """Train in place; return the running mean of the weights, which does better than the last of them.

    Args:
        network: Parameters that are frozen stay as they are.
        batches: ``schedule.steps`` pairs of views and maps, from :func:`batches_of`.
        schedule: How fast.
        device: Where to train.
        said: Told of each step: its number, its loss, and the mean so far.
    """
    network = network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    mean = copy.deepcopy(network).eval()
    encoder = [p for part in (network.stem, network.stages) for p in part.parameters() if p.requires_grad]
    known = {id(parameter) for parameter in encoder}
    decoder = [p for p in network.parameters() if id(p) not in known and p.requires_grad]
    rates = [schedule.rate * schedule.encoder_rate, schedule.rate]
    optimizer = torch.optim.AdamW(
        [{"params": encoder, "lr": rates[0]}, {"params": decoder, "lr": rates[1]}], weight_decay=_DECAY
    )
    for step, (images, maps) in enumerate(batches):
        pace = _pace(step / schedule.steps)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * pace
        shown = images.to(device, memory_format=torch.channels_last)
        logits = network(shown)
        wanted = F.interpolate(maps[:, None].to(device), size=logits.shape[1:], mode="area")[:, 0]
        loss = saliency_loss(logits, wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        # Slower as training goes on: the first weights are soon forgotten.
        _towards(mean, network, 1 - min(0.999, (1 + step) / (10 + step)))
        said(step, float(loss.detach()), mean)
    return mean.requires_grad_(False)


def batches_of(examples: Examples, schedule: Schedule) -> Iterator[tuple[Tensor, Tensor]]:
    """The views of each step; the same schedule gives the same."""
    generator = torch.Generator().manual_seed(schedule.seed)
    for step in range(schedule.steps):
        coarse = step < schedule.steps // 2
        side = 32 * round(schedule.side / 32 * (0.8 if coarse else 1.0))
        yield draw_views(examples, schedule.batch, side, generator)


def _pace(done: float) -> float:
    """Of the learning rate: a short rise, then half a cosine."""
    return min(1.0, done / _WARM_UP + 1e-3) * (1 + math.cos(math.pi * done)) / 2


@torch.no_grad()
def _towards(mean: SaliencyNetwork, network: SaliencyNetwork, share: float) -> None:
    for kept, value in zip(mean.parameters(), network.parameters(), strict=True):
        kept.lerp_(value, share)
