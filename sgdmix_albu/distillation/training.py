"""Training the network: the views of photographs it is shown, the loss, the schedule, and the weights' running mean."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.saliency.network import SaliencyNetwork

_WINDOW = 15  # of the surroundings in which a pixel is called near an edge, in pixels of the map
_EDGE = 4.0  # how much more such a pixel counts
_DECAY = 1e-2
_PASTED = 0.3  # share of the views that get another photograph's object
_SHOWN = 0.3  # the least share of the teacher's map that must lie within a view; else the whole photograph is taken
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
        share = 1 - min(0.999, (1 + step) / (10 + step))
        with torch.no_grad():
            for kept, value in zip(mean.parameters(), network.parameters(), strict=True):
                kept.lerp_(value, share)
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


@dataclass(frozen=True)
class Examples:
    """Photographs and what the teacher sees in each, all squashed to one square.

    Attributes:
        images: (N, 3, S, S) uint8 RGB.
        maps: (N, S, S) uint8, the teacher's saliency in 256 steps.
        weights: (N,) float, how often each is drawn.
    """

    images: Tensor
    maps: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.images)


def draw_views(examples: Examples, count: int, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """``count`` augmented views (count, 3, side, side) in [0, 1] and their maps (count, side, side) in [0, 1].

    Crops of half to all of the photograph, mirrored and turned a little; some with the object of another photograph
    pasted on, so that an object is not known by its usual background; then colours, blur and noise.
    """
    rows = torch.multinomial(examples.weights, count, replacement=True, generator=generator)
    images, maps = _cropped(examples, rows, side, generator)
    chosen = (torch.rand(count, generator=generator) < _PASTED).nonzero()[:, 0]
    if len(chosen):
        others = torch.multinomial(examples.weights, len(chosen), replacement=True, generator=generator)
        pasted, cut = _cropped(examples, others, side, generator)
        # A teacher's soft halo is no part of the object: the cut is steeper than its map.
        alpha = torch.sigmoid((cut - 0.5) * 12)
        images[chosen] = torch.lerp(images[chosen], pasted, alpha[:, None])
        maps[chosen] = torch.maximum(maps[chosen], alpha)
    return _recoloured(images, generator), maps


def _cropped(examples: Examples, rows: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    count = len(rows)
    both = torch.cat([examples.images[rows], examples.maps[rows, None]], 1).float().div_(255)

    def drawn(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    scale, aspect = drawn(0.4, 1.0).sqrt(), (drawn(-1, 1) * math.log(4 / 3)).exp().sqrt()
    width, height = (scale * aspect).clamp_max(1), (scale / aspect).clamp_max(1)
    angle = drawn(-1, 1) * math.radians(12) * (drawn(0, 1) < 0.5)
    mirrored = torch.where(drawn(0, 1) < 0.5, -1.0, 1.0)
    x, y = drawn(-1, 1) * (1 - width), drawn(-1, 1) * (1 - height)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack([width * mirrored * cos, -height * sin, x, width * mirrored * sin, height * cos, y], 1)
    views = _sampled(both, theta.view(-1, 2, 3), side)
    # A view that holds too little of the object would be called empty, though the teacher might see another in it.
    seen = views[:, 3].mean((1, 2)) * width * height
    lost = (seen < _SHOWN * both[:, 3].mean((1, 2))).nonzero()[:, 0]
    if len(lost):
        whole = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).repeat(len(lost), 1, 1)
        whole[:, 0, 0] = mirrored[lost]
        views[lost] = _sampled(both[lost], whole, side)
    return views[:, :3], views[:, 3]


def _sampled(both: Tensor, theta: Tensor, side: int) -> Tensor:
    grid = F.affine_grid(theta, [len(theta), 4, side, side], align_corners=False)
    return F.grid_sample(both, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _recoloured(images: Tensor, generator: torch.Generator) -> Tensor:
    count = len(images)

    def drawn(low: float, high: float, *, share: float = 1.0, still: float = 0.0) -> Tensor:
        values = torch.rand(count, generator=generator) * (high - low) + low
        kept = torch.rand(count, generator=generator) >= share
        return values.masked_fill(kept, still)[:, None, None, None]

    grey = images.mean(1, keepdim=True)
    images = torch.lerp(grey, images, drawn(0.3, 1.7, share=0.8, still=1.0))  # saturation
    images = torch.lerp(images, grey.expand_as(images), drawn(1.0, 1.0, share=0.08))
    casts = 1 + 0.15 * (torch.rand(count, 3, 1, 1, generator=generator) * 2 - 1)
    images = images * casts
    middle = images.mean((1, 2, 3), keepdim=True)
    images = torch.lerp(middle, images, drawn(0.5, 1.5, share=0.8, still=1.0))  # contrast
    images = (images * drawn(0.6, 1.4, share=0.8, still=1.0)).clamp(0, 1)  # brightness
    images = images.clamp_min(1e-4) ** drawn(0.7, 1.4, share=0.3, still=1.0)
    blurred = F.avg_pool2d(images, 5, 1, 2, count_include_pad=False)
    images = torch.lerp(images, blurred, drawn(0.0, 1.0, share=0.2))
    noise = torch.randn(images.shape, generator=generator)
    return (images + noise * drawn(0.0, 0.06, share=0.3)).clamp_(0, 1)
