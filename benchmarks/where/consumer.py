"""What takes the batches: a ResNet-50 in training where there is a GPU, else a sleep that stands for one."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

Consume = Callable[[Tensor, Tensor], None]


def sleeper(rate: float) -> Consume:
    """A GPU that trains on so many images a second, as the processor sees it: it is not there."""
    return lambda images, labels: time.sleep(len(images) / rate)


def trainer(device: torch.device, classes: int = 1000) -> Consume:
    """Steps of ResNet-50 in half precision, channels last; waits for each, so that times are the step's own."""
    model = torchvision.models.resnet50(weights=None, num_classes=classes).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step(images: Tensor, labels: Tensor) -> None:
        pixels = images.to(device, torch.float32, memory_format=torch.channels_last) / 255
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16):
            loss = F.cross_entropy(model(pixels), labels.to(device))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step
