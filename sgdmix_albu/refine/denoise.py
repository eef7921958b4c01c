"""Image-to-image with a strength, a prompt and a seed for each image of a batch (SDEdit, Meng et al., 2022).

The stock pipeline gives a batch one strength. Here an image joins the loop at its own step. All images in the loop
are at the same timestep, so one call of the UNet serves them all; those that joined together share a scheduler,
because multistep schedulers remember. For one strength the result is the stock pipeline's.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.refine.components import Components
from sgdmix_albu.refine.prompts import Embedded, Prompts

__all__ = ["Denoised", "denoise", "first_step"]


@dataclass(frozen=True)
class Denoised:
    """What came out.

    Attributes:
        images: (B, 3, H, W) float in [0, 1].
        timesteps: The first timestep of each image's own strength; None where that left no step.
        finite: False where the model gave NaN or infinite numbers; such an image is of no use.
    """

    images: Tensor
    timesteps: tuple[int | None, ...]
    finite: tuple[bool, ...]


@dataclass
class _Group:
    """Images that joined the loop at the same step."""

    rows: list[int]
    scheduler: Any
    extra: dict[str, Any]


def first_step(strength: float, steps: int) -> int:
    """The step at which an image of this strength joins ``steps`` steps, as in diffusers' image-to-image pipelines.

    Example:
        >>> first_step(0.5, 25), first_step(1.0, 25), first_step(0.03, 25)
        (13, 0, 25)
    """
    return max(steps - min(int(steps * strength), steps), 0)


@torch.inference_mode()
def denoise(
    components: Components,
    images: Tensor,
    prompts: Sequence[str],
    *,
    strengths: Sequence[float],
    seeds: Sequence[int],
    steps: int,
    guidance: float,
    texts: Prompts | None = None,
    strength_map: Tensor | None = None,
    holes: Tensor | None = None,
    hole_strength: float | None = None,
) -> Denoised:
    """Add noise to each image as its strength says, and take it away again under its prompt.

    Args:
        components: The model.
        images: (B, 3, H, W) float in [0, 1]; H and W are multiples of ``components.multiple``.
        prompts: B prompts.
        strengths: B translation strengths in (0, 1]. One so small that it leaves no step returns the image after a
            pass through the autoencoder; see :func:`first_step`.
        seeds: B seeds. An image's randomness is its seed's alone, whatever else is in the batch.
        steps: Denoising steps of strength 1.
        guidance: Scale of classifier-free guidance; 1 or less for none.
        texts: Embeddings of earlier prompts, to be used again.
        strength_map: (B, h, w) strengths of the single latents, at most the image's own: each stays on the image's
            noised self until its turn comes (differential diffusion, Levin and Fried, 2023).
        holes: (B, h, w) in [0, 1], how much of each latent is a hole. There the empty prompt is followed: the image's
            own would put a second object there.
        hole_strength: Strength that holes are raised to; None for the image's own.

    Returns:
        Images and first timesteps.

    Raises:
        InvalidInputError: The scheduler cannot do with so few steps.
    """
    texts = texts or Prompts(components)
    scheduler = copy.deepcopy(components.scheduler)
    try:
        scheduler.set_timesteps(steps, device=components.device)
    except ValueError as error:
        raise InvalidInputError(f"{type(scheduler).__name__} cannot take {steps} steps: {error}") from error
    starts = [first_step(strength, steps) * scheduler.order for strength in strengths]
    joins, turns = starts, None
    if holes is not None and hole_strength is not None:
        own = torch.tensor(strengths, dtype=torch.float64, device=holes.device)[:, None, None]
        usual = own if strength_map is None else strength_map
        strength_map = usual + (hole_strength - usual).clamp(min=0) * holes
        first, holed = first_step(hole_strength, steps) * scheduler.order, holes.flatten(1).any(1).tolist()
        joins = [min(start, first) if hole else start for hole, start in zip(holed, starts, strict=True)]
    if strength_map is not None:
        turns = (steps - (steps * strength_map).floor().clamp(0, steps)).long() * scheduler.order

    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    clean = _encode(components, images, draws)
    noise = _normal(clean, draws)
    condition = _Condition(components, texts, prompts, guidance, size=images.shape[-2:], unprompted=holes)

    latents = clean.clone()
    groups: list[_Group] = []
    for step, time in enumerate(scheduler.timesteps):
        joining = [row for row, join in enumerate(joins) if join == step]
        if joining:
            theirs = copy.deepcopy(scheduler)
            if hasattr(theirs, "set_begin_index"):
                theirs.set_begin_index(step)
            groups.append(_Group(joining, theirs, _step_options(theirs, [draws[row] for row in joining])))
            latents[joining] = theirs.add_noise(clean[joining], noise[joining], time.repeat(len(joining)))
        if not groups:
            continue
        if turns is not None:  # latents whose turn has not come stay on the image's noised self
            for group in groups:
                noised = group.scheduler.add_noise(clean[group.rows], noise[group.rows], time.repeat(len(group.rows)))
                held = (turns[group.rows] >= step)[:, None]
                latents[group.rows] = torch.where(held, noised, latents[group.rows])
        rows = [row for group in groups for row in group.rows]
        scaled = torch.cat([group.scheduler.scale_model_input(latents[group.rows], time) for group in groups])
        guess = condition.predict(scaled, time, rows)
        for group, part in zip(groups, torch.split(guess, [len(group.rows) for group in groups]), strict=True):
            latents[group.rows] = group.scheduler.step(
                part, time, latents[group.rows], return_dict=False, **group.extra
            )[0]
    if turns is not None:  # latents whose turn never came
        latents = torch.where((turns >= len(scheduler.timesteps))[:, None], clean, latents)
    times = scheduler.timesteps.tolist()
    pixels = _decode(components, latents)
    finite = latents.isfinite().flatten(1).all(1) & pixels.isfinite().flatten(1).all(1)
    return Denoised(
        (pixels / 2 + 0.5).clamp(0, 1),
        tuple(int(times[start]) if start < len(times) else None for start in starts),
        tuple(finite.tolist()),
    )


class _Condition:
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
        self._scale = None if width is None else _embedded_scale(guidance - 1, width).to(words)
        self._guidance = guidance if guidance > 1 and width is None else 1.0
        # Of no guidance at all is left the guess of the empty prompt.
        self._followed = None if unprompted is None else 1 - unprompted[:, None].to(words)
        if self._guidance > 1 or unprompted is not None:
            self._sides.insert(0, _cast(texts.unconditional(len(prompts)), components.dtype))
        # Stable Diffusion XL is told the size of the original, the crop's corner and the size wanted.
        height, width = size
        self._sizes = torch.tensor([height, width, 0, 0, height, width], dtype=words.dtype, device=words.device)

    def predict(self, latents: Tensor, time: Tensor, rows: list[int]) -> Tensor:
        words = torch.cat([words[rows] for words, _ in self._sides])
        pooled = [pooled[rows] for _, pooled in self._sides if pooled is not None]
        added = None
        if pooled:
            added = {"text_embeds": torch.cat(pooled), "time_ids": self._sizes.expand(len(words), -1)}
        guess: Tensor = self._unet(
            torch.cat([latents] * len(self._sides)),
            time,
            encoder_hidden_states=words,
            timestep_cond=None if self._scale is None else self._scale.expand(len(words), -1),
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        if len(self._sides) == 1:
            return guess
        empty, wanted = guess.chunk(2)
        scale = self._guidance if self._followed is None else self._guidance * self._followed[rows]
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


def _step_options(scheduler: Any, draws: list[torch.Generator]) -> dict[str, Any]:
    """What the stock pipelines hand to a step: their own generators, and no noise beyond the schedule's (eta)."""
    known = inspect.signature(scheduler.step).parameters
    return {name: value for name, value in (("generator", draws), ("eta", 0.0)) if name in known}


def _normal(like: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
    """Noise drawn on the CPU, the same for any device."""
    return torch.stack([torch.randn(like.shape[1:], generator=draw, dtype=like.dtype) for draw in draws]).to(
        like.device
    )


def _encode(components: Components, images: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
    vae = components.vae
    found = vae.encode((2 * images - 1).to(vae.device, vae.dtype))
    if hasattr(found, "latent_dist"):
        spread = found.latent_dist
        latents = spread.mean + spread.std * _normal(spread.mean, draws)
    else:  # the tiny autoencoder (TAESD) has no spread
        latents = found.latents
    return components.scaled(latents).to(components.dtype)


def _decode(components: Components, latents: Tensor) -> Tensor:
    vae = components.vae
    pixels: Tensor = vae.decode(components.unscaled(latents.to(vae.dtype)), return_dict=False)[0]
    return pixels.float()
