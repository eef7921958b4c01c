"""What the UNet is told of a batch besides its latents, and how its guesses with and without a prompt become one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.refine.components import Components
from sgdmix_albu.refine.prompts import Embedded, Prompts
from sgdmix_albu.tensors import sent


class Condition:
    """The prompts of a batch, ready for the UNet, and the guidance that they are followed with."""

    def __init__(
        self,
        components: Components,
        texts: Prompts,
        prompts: Sequence[str],
        guidance: float,
        *,
        size: Sequence[int],
        unprompted: Tensor | None,
    ) -> None:
        self._unet = components.unet
        words, pooled = _cast(texts.embed(prompts), components.dtype)
        self._sides = [(words, pooled)]
        # A UNet distilled for few steps (LCM) takes the scale as a number instead of a second pass.
        width = components.unet.config.time_cond_proj_dim
        self._scale = None if width is None else sent(_embedded_scale(guidance - 1, width), words.device).to(words)
        self._guidance = guidance if guidance > 1 and width is None else 1.0
        # Of no guidance at all is left the guess of the empty prompt.
        self._followed = None if unprompted is None else 1 - unprompted[:, None].to(words)
        if self._guidance > 1 or unprompted is not None:
            self._sides.insert(0, _cast(texts.unconditional(len(prompts)), components.dtype))
        # Stable Diffusion XL is told the size of the original, the crop's corner and the size wanted.
        height, width = size
        sizes = torch.tensor([height, width, 0, 0, height, width], dtype=words.dtype)
        self._sizes = sent(sizes, words.device)

    def predict(self, latents: Tensor, time: Tensor) -> Tensor:
        """The UNet's guess (n, C, h, w) for the first n images."""
        count = len(latents)
        words = torch.cat([words[:count] for words, _ in self._sides])
        pooled = [pooled[:count] for _, pooled in self._sides if pooled is not None]
        added = None
        if pooled:
            pooled = [torch.cat(pooled)]
            added = {"text_embeds": pooled[0], "time_ids": self._sizes.expand(len(words), -1)}
        shown = torch.cat([latents] * len(self._sides))
        # Compiled: once for batches of any length, since images join and parts end.
        if hasattr(self._unet, "_orig_mod"):
            for batch in (shown, words, *pooled):
                torch._dynamo.maybe_mark_dynamic(batch, 0)
        guess: Tensor = self._unet(
            shown,
            time,
            encoder_hidden_states=words,
            timestep_cond=None if self._scale is None else self._scale.expand(len(words), -1),
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        if len(self._sides) == 1:
            return guess
        empty, wanted = guess.chunk(2)
        scale = self._guidance if self._followed is None else self._guidance * self._followed[:count]
        return empty + scale * (wanted - empty)


def _cast(embedded: Embedded, dtype: torch.dtype) -> Embedded:
    words, pooled = embedded
    return words.to(dtype), None if pooled is None else pooled.to(dtype)


def _embedded_scale(scale: float, width: int) -> Tensor:
    """Guidance as sines and cosines, (1, width), as UNets of latent consistency models are trained on it."""
    half = width // 2
    steps = torch.exp(-math.log(10000.0) / (half - 1) * torch.arange(half))
    waves = 1000.0 * scale * steps
    return F.pad(torch.cat([waves.sin(), waves.cos()]), (0, width % 2))[None]
