"""A pretrained classifier that is fine-tuned again and again from the same weights; on a GPU its step is one graph."""

from __future__ import annotations

import math
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BODY, _HEAD, _DECAY = 3e-4, 3e-3, 0.05
_WARM_UP = 0.1


def load(encoder: Path, network: str) -> nn.Module:
    """A network with pretrained weights, from a state dict in timm's order under other names."""
    model: nn.Module = timm.create_model(network)
    weights = torch.load(encoder, map_location="cpu", weights_only=True)
    own = model.state_dict()
    model.load_state_dict({name: value.to(own[name].dtype) for name, value in zip(own, weights.values(), strict=True)})
    return model


class Learner:
    """Network, optimiser and, on a GPU, the captured step.

    Args:
        encoder: File of the pretrained weights.
        network: Its name in timm.
        classes: Outputs of the new head.
        batch: Images of a step.
        size: Their side in pixels.
        device: "cpu" or "cuda".
    """

    def __init__(self, encoder: Path, network: str, classes: int, batch: int, size: int, device: str) -> None:
        model = load(encoder, network)
        model.reset_classifier(classes)
        self.model = model.to(device, memory_format=torch.channels_last).train()
        self.classes, self.device = classes, device
        self._start = {name: value.clone() for name, value in model.state_dict().items()}
        head = [*model.get_classifier().parameters()]
        body = [p for p in model.parameters() if not any(p is own for own in head)]
        on_gpu = device != "cpu"
        self._rates = [torch.tensor(0.0, device=device) for _ in range(2)] if on_gpu else [0.0, 0.0]
        groups = [{"params": body, "lr": self._rates[0]}, {"params": head, "lr": self._rates[1]}]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=_DECAY, fused=on_gpu, capturable=on_gpu)
        self._images = torch.zeros(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
        self._targets = torch.full((batch, classes), 1 / classes, device=device)
        self._graph = self._captured() if on_gpu else None

    def reset(self, seed: int) -> None:
        """Back to the pretrained weights, a fresh head, and an optimiser that remembers nothing."""
        torch.manual_seed(seed)
        fresh = nn.Linear(self.model.get_classifier().in_features, self.classes)
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                value.copy_(self._start[name])
            self.model.get_classifier().weight.copy_(fresh.weight)
            self.model.get_classifier().bias.copy_(fresh.bias)
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()
        self.model.train()

    def step(self, images: Tensor, targets: Tensor, share: float) -> None:
        """One step on uint8 images (B, 3, S, S) and soft targets (B, C), when ``share`` of the training is over."""
        part = share / _WARM_UP if share < _WARM_UP else _cosine((share - _WARM_UP) / (1 - _WARM_UP))
        for group, rate in zip(self.optimizer.param_groups, (_BODY * part, _HEAD * part), strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._images.copy_(pixels(images))
        self._targets.copy_(targets)
        if self._graph is None:
            self._step()
        else:
            self._graph.replay()

    def logits(self, images: Tensor, batch: int = 270) -> Tensor:
        """(N, C) of uint8 images, as they are."""
        self.model.eval()
        with torch.inference_mode():
            return torch.cat([self.model(pixels(part)) for part in images.split(batch)])

    def _step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(self.model(self._images), self._targets).backward()
        self.optimizer.step()

    def _captured(self) -> torch.cuda.CUDAGraph:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self._step()
        torch.cuda.current_stream().wait_stream(aside)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            F.cross_entropy(self.model(self._images), self._targets).backward()
            self.optimizer.step()
        return graph


def pixels(images: Tensor) -> Tensor:
    """uint8 images as EfficientNet-Lite was trained on them."""
    return ((images.float() - 127) / 128).contiguous(memory_format=torch.channels_last)


def _cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
