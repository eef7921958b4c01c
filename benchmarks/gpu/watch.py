"""Where the time of refining goes: every call of a network is timed, whoever makes it.

A span reaches from a call's first event on the device to its last: on a GPU that waits for the host, a network's
seconds include the launches of its kernels. What is left is the host between networks, and other kernels.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Watch:
    """Seconds of the device in each network of a diffusion pipeline, its launches included.

    Args:
        device: Where they work.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._spans: list[tuple[str, Any, Any]] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While this is entered, calls are timed; an end of one waits for nothing."""
        from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
        from transformers import CLIPTextModel

        self._spans.clear()
        watched = [
            (UNet2DConditionModel, "forward", "UNet"),
            (CLIPTextModel, "forward", "text"),
            *((kind, name, "VAE") for kind in (AutoencoderKL, AutoencoderTiny) for name in ("encode", "decode")),
        ]
        kept = [(kind, name, kind.__dict__[name]) for kind, name, _ in watched]
        try:
            for kind, name, part in watched:
                setattr(kind, name, self._timed(part, kind.__dict__[name]))
            yield
        finally:
            for kind, name, function in kept:
                setattr(kind, name, function)

    def seconds(self) -> dict[str, float]:
        """Of each network, once the device is idle."""
        found = {"UNet": 0.0, "VAE": 0.0, "text": 0.0}
        for part, first, last in self._spans:
            found[part] += first.elapsed_time(last) / 1000 if self.device.type == "cuda" else last - first
        return found

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            first = self._mark()
            try:
                return function(*args, **kwargs)
            finally:
                self._spans.append((part, first, self._mark()))

        return timed

    def _mark(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
