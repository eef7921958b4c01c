"""The training loop that all recipes share: validation chooses the epoch, the test images are not seen here."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.mixing.colour import Normalization
from sgdmix_albu.recipes.measures import Measures
from sgdmix_albu.recipes.settings import Settings
from sgdmix_albu.synthetic import SyntheticMix

__all__ = ["Machine", "crops", "fit", "predict", "resized_crops", "standardised"]


@dataclass(frozen=True)
class Machine:
    """Where and how the work is done.

    Attributes:
        device: "cpu", "cuda", ...
        workers: Processes that load images.
        amp: Compute in bfloat16 where that is sound (autocast).
    """

    device: torch.device
    workers: int = 0
    amp: bool = False

    def autocast(self) -> torch.autocast:
        """Lower precision, where asked for."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.amp)

    def loader(self, images: Dataset[Any], batch_size: int, **options: Any) -> DataLoader[Any]:
        """Batches of images; its processes stay from epoch to epoch."""
        return DataLoader(
            images,
            batch_size,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=self.device.type == "cuda",
            **options,
        )


def crops(size: int) -> tuple[v2.Transform, v2.Transform]:
    """Transforms to train and to judge, for fine-grained sets: the whole picture made square, then a crop of 7/8."""
    side = round(size * 8 / 7)
    return (
        v2.Compose([v2.Resize((side, side)), v2.RandomCrop(size, padding=8), v2.RandomHorizontalFlip()]),
        v2.Compose([v2.Resize((side, side)), v2.CenterCrop(size)]),
    )


def resized_crops(size: int) -> tuple[v2.Transform, v2.Transform]:
    """Transforms to train and to judge, for long tails: crops of any size, and other colours."""
    jitter = v2.ColorJitter(0.4, 0.4, 0.4)
    return (
        v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), jitter]),
        v2.Compose([v2.Resize(round(size * 8 / 7)), v2.CenterCrop(size)]),
    )


def standardised(view: v2.Transform, pixels: Normalization) -> v2.Transform:
    """A transform of PIL images, followed by what makes them a network's pixels: float32, mean off, over deviation."""
    return v2.Compose([view, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*pixels)])


def fit(
    model: nn.Module,
    train: Dataset[Any],
    val: Dataset[Any],
    settings: Settings,
    judge: Callable[[NDArray[np.int64]], Measures],
    choose: str,
    *,
    machine: Machine,
    seed: int,
    keep: Callable[[nn.Module], object] | None = None,
) -> list[Measures]:
    """Train a classifier; afterwards it has the weights of the epoch that validation put first.

    Args:
        model: On the machine's device.
        train: Tensors and labels; the epoch is told to a :class:`SyntheticMix`.
        val: Tensors and labels.
        settings: Hyper-parameters.
        judge: Validation predictions to measures.
        choose: The measure that chooses the epoch; the first of equals wins.
        machine: Where.
        seed: Of the order of the images and, with the number of workers, of their crops.
        keep: Called with the model after each epoch that validation puts first, so that no interruption loses it.

    Returns:
        Of each epoch: "epoch" from 1, the mean "loss", and the validation's measures.

    Raises:
        InvalidInputError: The loss is no longer a number.
    """
    # A last batch of one image has no variance to normalise by, so batches are whole.
    batch_size = min(settings.batch_size, len(train))  # type: ignore[arg-type]
    order = torch.Generator().manual_seed(seed)
    loader = machine.loader(train, batch_size, shuffle=True, drop_last=True, generator=order)
    val_loader = machine.loader(val, batch_size)
    optimizer = torch.optim.SGD(
        model.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay
    )
    schedule = _warm_then_cosine(optimizer, settings.epochs * len(loader), settings.warmup)
    history: list[Measures] = []
    best = -1.0
    weights = model.state_dict()
    for epoch in range(1, settings.epochs + 1):
        if isinstance(train, SyntheticMix):
            train.set_epoch(epoch)
        loss = _epoch(model, loader, optimizer, schedule, settings.label_smoothing, machine)
        if not math.isfinite(loss):
            raise InvalidInputError(f"the loss is {loss} in epoch {epoch}; a smaller --learning-rate may help")
        found = judge(_predicted(model, val_loader, machine))
        history.append({"epoch": epoch, "loss": loss, **found})
        print(f"epoch {epoch:3d} of {settings.epochs}   loss {loss:.3f}   validation {choose} {found[choose]:.1%}")
        if found[choose] > best:
            best, weights = found[choose], copy.deepcopy(model.state_dict())
            if keep is not None:
                keep(model)
    model.load_state_dict(weights)
    return history


def predict(model: nn.Module, images: Dataset[Any], batch_size: int, machine: Machine) -> NDArray[np.int64]:
    """Predicted label of each image."""
    return _predicted(model, machine.loader(images, batch_size), machine)


def _predicted(model: nn.Module, loader: DataLoader[Any], machine: Machine) -> NDArray[np.int64]:
    model.eval()
    found = []
    with torch.inference_mode(), machine.autocast():
        for batch, _ in Progress().over(loader, "judging", len(loader), unit="batch"):
            found.append(model(batch.to(machine.device, non_blocking=True)).argmax(1).cpu())
    return torch.cat(found).numpy()


def _epoch(
    model: nn.Module,
    loader: DataLoader[Any],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    label_smoothing: float,
    machine: Machine,
) -> float:
    model.train()
    total = torch.zeros((), device=machine.device)
    for images, labels in Progress().over(loader, "training", len(loader), unit="batch"):
        with machine.autocast():
            scores = model(images.to(machine.device, non_blocking=True))
            loss = F.cross_entropy(
                scores, labels.to(machine.device, non_blocking=True), label_smoothing=label_smoothing
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        total += loss.detach()
    return float(total) / len(loader)


def _warm_then_cosine(
    optimizer: torch.optim.Optimizer, steps: int, warmup: float
) -> torch.optim.lr_scheduler.LRScheduler:
    rising = max(round(warmup * steps), 1)

    def share(step: int) -> float:
        return min((step + 1) / rising, 1.0) * (1 + math.cos(math.pi * step / steps)) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)
