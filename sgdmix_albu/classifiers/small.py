"""A small classifier that is trained in seconds: for Grad-CAM to look through, and to judge refined images."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgdmix_albu.classifiers.untouched import seeded
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.io.threads import one_thread_each

_BATCH = 64


def small_cnn(num_classes: int, width: int = 16) -> nn.Sequential:
    """Four convolutions for 64-pixel images: quick to train, with an 8 x 8 map for Grad-CAM to read.

    Args:
        num_classes: Number of outputs.
        width: Channels of the first layer.

    Example:
        >>> small_cnn(5)(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 5])
    """
    layers: list[nn.Module] = []
    sizes = (3, width, 2 * width, 4 * width, 4 * width)
    for place, (channels, outputs) in enumerate(pairwise(sizes)):
        convolution = nn.Conv2d(channels, outputs, 3, stride=2 if place == 0 else 1, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if place in (1, 2) else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes))


def train(images: Tensor, labels: Tensor, *, epochs: int, seed: int = 0, classes: int | None = None) -> nn.Module:
    """Train :func:`small_cnn` with mirrored and shifted images; global random numbers are left alone.

    Args:
        images: (N, 3, H, W) uint8.
        labels: (N,) int64.
        epochs: Passes over the images.
        seed: Of the initial weights, the order and the shifts.
        classes: Number of outputs; None for one more than the largest label.

    Returns:
        The classifier in evaluation mode; it expects uint8 scaled to [0, 1].
    """
    # Sums in the same order on any number of cores, hence the same weights; so small a model loses little time.
    with seeded(seed), one_thread_each():
        model = small_cnn(classes or int(labels.max()) + 1)
        steps = -(-len(images) // _BATCH)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=epochs * steps)
        with Progress().meter("training a classifier", epochs * steps, unit="step") as meter:
            for _ in range(epochs):
                for rows in torch.split(torch.randperm(len(images)), _BATCH):
                    loss = F.cross_entropy(model(_varied(images[rows])), labels[rows], label_smoothing=0.05)
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    schedule.step()
                    meter(loss=f"{loss.item():.2f}")
    return model.eval()


def _varied(images: Tensor) -> Tensor:
    """A batch in [0, 1], mirrored half of the time, and shifted by up to six pixels."""
    pixels = images.float() / 255
    if torch.rand(()) < 0.5:
        pixels = pixels.flip(-1)
    shift = torch.randint(-6, 7, (2,)).tolist()
    return pixels.roll(shift, (-2, -1))
