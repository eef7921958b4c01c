"""Saliency by a small network with weights on board, which learned from a large one what stands out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgdmix_albu.classifiers.weights import read_checkpoint
from sgdmix_albu.errors import DataError
from sgdmix_albu.mixing.colour import Reading, extremes
from sgdmix_albu.mixing.guides import eight_bits
from sgdmix_albu.saliency.base import SaliencyBackend
from sgdmix_albu.saliency.fingerprint import fingerprint
from sgdmix_albu.saliency.network import SIDE, SaliencyNetwork
from sgdmix_albu.saliency.squashing import squashed

EMBEDDED = Path(__file__).parent / "embedded" / "salient_object.safetensors"

_CONTRAST = 1  # level: images of no more have no object


class SalientObject(SaliencyBackend):
    """Object saliency by a small network, which sees the image at 8 bits, scaled to 160 x 160.

    The built-in weights were distilled from U2-Net (Qin et al., Pattern Recognition 106, 2020) on photographs of
    many kinds of things; ``sgdmix distil`` makes weights for your data set. The map of an image of one colour
    is zero.

    Args:
        weights: A file that ``sgdmix distil`` wrote; None for the built-in weights.
        microbatch: The most images worked on at once, about 20 MB each; None for 12 on a CPU and 192 on a GPU.

    Raises:
        DataError: The file cannot be read, or holds weights of another network.

    Example:
        >>> import torch
        >>> image = torch.full((1, 3, 96, 128), 0.2)
        >>> image[..., 30:70, 40:90] = torch.tensor([0.9, 0.5, 0.1])[:, None, None]
        >>> backend = SalientObject()
        >>> backend(image).shape, backend.coarse(image).shape
        (torch.Size([1, 96, 128]), torch.Size([1, 80, 80]))
        >>> bool(backend(image)[0, 50, 65] > 0.9), bool(backend(image)[0, 5, 5] < 0.1)
        (True, True)
    """

    uses_labels = False
    at_once = (12, 192)

    def __init__(self, weights: str | os.PathLike[str] | None = None, *, microbatch: int | None = None) -> None:
        super().__init__(microbatch=microbatch)
        self.weights = None if weights is None else str(weights)
        self.network = open_network(EMBEDDED if weights is None else weights)

    @classmethod
    def of(cls, network: SaliencyNetwork) -> SalientObject:
        """A backend of a network in memory; it is used as it is, in evaluation mode."""
        backend = cls.__new__(cls)
        SaliencyBackend.__init__(backend)
        backend.weights, backend.network = None, network.eval()
        return backend

    def settings(self) -> dict[str, Any]:
        """The weights, wherever they lie."""
        return {"network": self.network}

    def noted(self) -> dict[str, Any]:
        """What weights of a user's own are, wherever they lie."""
        return {} if self.weights is None else {"fingerprint": fingerprint(self.network)}

    def _prepare(self, images: Tensor, reading: Reading | None) -> Tensor:
        return eight_bits(images, reading)

    def _raw(self, images: Tensor, labels: Tensor | None) -> Tensor:
        if self.network.head.weight.device != images.device:
            self.network.to(images.device)
        low, high = extremes(images.flatten(2))
        plain = (high - low).amax(1) <= _CONTRAST
        small = (squashed(images, SIDE) / 255).contiguous(memory_format=torch.channels_last)  # which is faster
        with torch.inference_mode(False), torch.no_grad():
            maps: Tensor = self.network(small).sigmoid()
        return maps.masked_fill_(plain[:, None, None], 0)

    def __repr__(self) -> str:
        return f"SalientObject({'' if self.weights is None else repr(self.weights)})"


def open_network(path: str | os.PathLike[str]) -> SaliencyNetwork:
    """The network in a file, in evaluation mode and frozen.

    Raises:
        DataError: The file cannot be read, or holds weights of another network.
    """
    tensors = read_checkpoint(path).tensors
    network = SaliencyNetwork()
    expected = network.state_dict()
    for name, value in expected.items():
        found = tensors.get(name)
        if found is None or found.shape != value.shape or len(tensors) != len(expected):
            came = "none" if found is None else str(tuple(found.shape))
            raise DataError(
                f"{path} holds no saliency network: expected {len(expected)} tensors as sgdmix distil writes them, got "
                f"{len(tensors)}; for {name}, of shape {tuple(value.shape)}, {came}"
            )
        if not bool(found.isfinite().all()):
            raise DataError(f"{path}: {name} holds NaN or infinite numbers")
    network.load_state_dict({name: value.float() for name, value in tensors.items()})
    return network.requires_grad_(False).eval().to(memory_format=torch.channels_last)
