"""Step 1: the autoencoder. 64 pixels to 16 x 16 latents of eight channels.

Stable Diffusion has four channels at a factor of eight. Four at a factor of four lost the fine bars on the wings,
which are the label here; eight keep them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import trange

BATCH, LEARNING_RATE, KL = 16, 2e-3, 1e-6


def new_vae() -> AutoencoderKL:
    """An untrained autoencoder."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def train_vae(pictures: Tensor, steps: int, seed: int = 0) -> AutoencoderKL:
    """Train on (N, 3, 64, 64) uint8; sets the factor that brings latents to unit deviation."""
    torch.manual_seed(seed)
    vae = new_vae().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.05)
    with trange(steps, desc="autoencoder", mininterval=10) as bar:
        for step in bar:
            picked = pictures[torch.randint(len(pictures), (BATCH,))]
            picked = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, picked.flip(-1), picked)
            images = (picked.float() / 127.5 - 1).to(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                posterior = vae.encode(images).latent_dist
                decoded = vae.decode(posterior.sample()).sample
            loss = _distance(decoded.float(), images) + KL * posterior.kl().float().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if step % 100 == 0:
                bar.set_postfix(L1=f"{(decoded.float() - images).abs().mean():.4f}")
    vae.eval()
    latents = encoded(vae, pictures[torch.randperm(len(pictures))[:2048]])
    vae.register_to_config(scaling_factor=round(float(1 / latents.std()), 4))
    return vae


def _distance(decoded: Tensor, images: Tensor) -> Tensor:
    """Pixels, and their differences to the neighbours: thin bars are small in area and large in meaning."""
    error = decoded - images
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return F.l1_loss(decoded, images) + error.square().mean() + edges


@torch.no_grad()
def encoded(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Latent means of (N, 3, 64, 64) uint8, not scaled."""
    with torch.autocast("cpu", torch.bfloat16):
        parts = [vae.encode(part.float() / 127.5 - 1).latent_dist.mean for part in pictures.split(64)]
    return torch.cat(parts).float()


@torch.no_grad()
def decoded(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """(N, 3, 64, 64) uint8 of latents that are not scaled."""
    with torch.autocast("cpu", torch.bfloat16):
        parts = [vae.decode(part).sample for part in latents.split(64)]
    return ((torch.cat(parts).float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
