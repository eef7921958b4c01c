"""Image-to-image with a strength, a prompt and a seed for each image of a batch (SDEdit, Meng et al., 2022).

The stock pipeline gives a batch one strength. Here an image joins the loop at its own step. All images in the loop
are at the same timestep, so one call of the UNet serves them all; those that joined together share a scheduler,
because multistep schedulers remember. For one strength the result is the stock pipeline's.

Nothing in the loop makes the host wait for a GPU: schedulers stay on the CPU, where they read their timesteps and
tables, and images lie in the order in which they join, so that those in the loop are always the first ones.
"""

from __future__ import annotations

import bisect
import copy
import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgdmix_albu.devices import has_float64
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.refine.components import Components
from sgdmix_albu.refine.condition import Condition
from sgdmix_albu.refine.prompts import Prompts
from sgdmix_albu.refine.transfers import Unblocked
from sgdmix_albu.tensors import sent

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

    rows: slice
    latents: Tensor  # its own: schedulers remember what they were given
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
    unprompted: Tensor | None = None,
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
        holes: (B, h, w) in [0, 1], how much of each latent is a hole.
        hole_strength: Strength that holes are raised to; None for the image's own.
        unprompted: (B, h, w) in [0, 1], how far each latent follows the empty prompt instead of the image's own, which
            would put a second object there; None for the holes.

    Returns:
        Images and first timesteps.

    Raises:
        InvalidInputError: The scheduler cannot do with so few steps.
    """
    texts = texts or Prompts(components)
    device = components.device
    scheduler = copy.deepcopy(components.scheduler)
    try:
        scheduler.set_timesteps(steps)
    except ValueError as error:
        raise InvalidInputError(f"{type(scheduler).__name__} cannot take {steps} steps: {error}") from error
    starts = [first_step(strength, steps) * scheduler.order for strength in strengths]
    joins, turns = starts, None
    if holes is not None and hole_strength is not None:
        own = sent(torch.tensor(strengths, dtype=torch.float64), holes.device)[:, None, None]
        usual = own if strength_map is None else strength_map
        strength_map = usual + (hole_strength - usual).clamp(min=0) * holes
        first, holed = first_step(hole_strength, steps) * scheduler.order, holes.flatten(1).any(1).tolist()
        joins = [min(start, first) if hole else start for hole, start in zip(holed, starts, strict=True)]

    order = sorted(range(len(joins)), key=joins.__getitem__)
    ordered = sent(torch.tensor(order), device)
    if strength_map is not None:
        turns = (steps - (steps * strength_map).floor().clamp(0, steps)).long() * scheduler.order
        turns = sent(turns, device)[ordered, None]
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    clean = _encode(components, images, draws)
    noise = _normal(clean, draws)[ordered]
    clean = clean[ordered]
    said = [prompts[row] for row in order]
    unprompted = holes if unprompted is None else unprompted
    unprompted = None if unprompted is None else sent(unprompted, device)[ordered]
    condition = Condition(components, texts, said, guidance, size=images.shape[-2:], unprompted=unprompted)
    latents = _loop(
        scheduler, condition, clean, noise, [draws[row] for row in order], [joins[row] for row in order], turns
    )
    pixels = _decode(components, latents[ordered.argsort()])
    finite = latents.isfinite().flatten(1).all(1)[ordered.argsort()] & pixels.isfinite().flatten(1).all(1)
    times = scheduler.timesteps.tolist()
    return Denoised(
        (pixels / 2 + 0.5).clamp(0, 1),
        tuple(int(times[start]) if start < len(times) else None for start in starts),
        tuple(finite.tolist()),
    )


def _loop(
    scheduler: Any,
    condition: Condition,
    clean: Tensor,
    noise: Tensor,
    draws: list[torch.Generator],
    joins: list[int],
    turns: Tensor | None,
) -> Tensor:
    """The latents (B, C, h, w) denoised: images join at their steps, in order; latents at their turns (B, 1, h, w)."""
    groups: list[_Group] = []
    inside, on_gpu = 0, clean.device.type == "cuda"
    wide = scheduler.timesteps.dtype == torch.float64 and not has_float64(clean.device)
    times = sent(scheduler.timesteps.float() if wide else scheduler.timesteps, clean.device)
    for step, time in enumerate(scheduler.timesteps):
        joining = slice(inside, bisect.bisect_right(joins, step))
        if joining.stop > inside:
            theirs = copy.deepcopy(scheduler)
            if hasattr(theirs, "set_begin_index"):
                theirs.set_begin_index(step)
            noised = _noised(theirs, clean[joining], noise[joining], time)
            groups.append(_Group(joining, noised, theirs, _step_options(theirs, draws[joining])))
            inside = joining.stop
        if not groups:
            continue
        if turns is not None:  # latents whose turn has not come stay on the image's noised self
            for group in groups:
                noised = _noised(group.scheduler, clean[group.rows], noise[group.rows], time)
                group.latents = torch.where(turns[group.rows] >= step, noised, group.latents)
        scaled = torch.cat([group.scheduler.scale_model_input(group.latents, time) for group in groups])
        guess = condition.predict(scaled, times[step])
        for group in groups:
            with Unblocked() if on_gpu else nullcontext():
                group.latents = group.scheduler.step(
                    guess[group.rows], time, group.latents, return_dict=False, **group.extra
                )[0]
    latents = clean.clone()
    for group in groups:
        latents[group.rows] = group.latents
    # Latents whose turn never came.
    return latents if turns is None else torch.where(turns >= len(times), clean, latents)


def _noised(scheduler: Any, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """The scheduler's own ``add_noise``: it is asked for the shares of image and noise, and the sum is formed here.

    Asked for the sum, it would take its tables to the device of the images, and read them from there step by step.
    """
    asked = torch.eye(2, dtype=clean.dtype)
    of_clean, of_noise = scheduler.add_noise(asked[0], asked[1], time.repeat(2))
    noised: Tensor = of_clean * clean + of_noise * noise
    return noised


def _step_options(scheduler: Any, draws: list[torch.Generator]) -> dict[str, Any]:
    """What the stock pipelines hand to a step: their own generators, and no noise beyond the schedule's (eta)."""
    known = inspect.signature(scheduler.step).parameters
    return {name: value for name, value in (("generator", draws), ("eta", 0.0)) if name in known}


def _normal(like: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
    """Noise drawn on the CPU, the same for any device."""
    return sent(
        torch.stack([torch.randn(like.shape[1:], generator=draw, dtype=like.dtype) for draw in draws]), like.device
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
