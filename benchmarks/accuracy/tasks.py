"""What is learnt: which of the training images, for how many steps, and what the test says."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BATCH = 25


@dataclass(frozen=True)
class Task:
    """A way to take training images.

    Attributes:
        shots: Images of each class; None for all.
        imbalance: Images of the rarest class against those of the commonest; 1 for balance.
        epochs: Passes over what is taken; the last one counts.
        data: Name of the data set.
    """

    shots: int | None
    epochs: int
    imbalance: float = 1.0
    data: str = "photographs"

    def chosen(self, labels: Tensor, seed: int) -> Tensor:
        """Indices of the training images; the tail's order of classes is drawn with the images."""
        generator = torch.Generator().manual_seed(seed)
        classes = int(labels.max()) + 1
        counts = self.counts(classes, int(labels.bincount().max()))
        order = torch.randperm(classes, generator=generator).tolist() if self.imbalance < 1 else range(classes)
        taken = []
        for label, count in zip(order, counts, strict=True):
            own = (labels == label).nonzero()[:, 0]
            taken.append(own[torch.randperm(len(own), generator=generator)[:count]])
        return torch.cat(taken)

    def counts(self, classes: int, most: int) -> list[int]:
        """Images of each class, the commonest first (the exponential tail of Cui et al., CVPR 2019)."""
        most = most if self.shots is None else self.shots
        return [max(1, round(most * self.imbalance ** (i / max(1, classes - 1)))) for i in range(classes)]


TASKS = {
    "shots-5": Task(shots=5, epochs=36),
    "shots-10": Task(shots=10, epochs=24),
    "all": Task(shots=None, epochs=12),
    "tail": Task(shots=None, epochs=24, imbalance=0.1),
    "aviary": Task(shots=None, epochs=18, data="aviary"),
}


def by_share(right: Tensor, truth: Tensor, counts: Tensor) -> dict[str, float]:
    """Accuracy over the third of the classes with the most training images, the middle third and the last."""
    order = counts.argsort(descending=True, stable=True)
    thirds = zip(("many", "medium", "few"), order.tensor_split(3), strict=True)
    return {name: float(right[torch.isin(truth, part)].float().mean()) for name, part in thirds}
