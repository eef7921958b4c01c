"""A base model of Stable Diffusion 1.5's size with random weights: the architecture is what takes the time."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from sgdmix_albu.refine.components import base_folder

WIDTH, LONGEST = 768, 77  # of the text encoder, and of a prompt


def stable_diffusion_sized(folder: Path, device: torch.device, dtype: torch.dtype) -> Path:
    """Write a base in diffusers' layout: UNet, autoencoder and text encoder of Stable Diffusion 1.5's configuration.

    The tokenizer and the scheduler's settings are the embedded base's; nothing is fetched. Weights are torch's own
    random ones, made on the device: a UNet of 860 million takes a minute on a CPU.
    """
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    small = StableDiffusionPipeline.from_pretrained(base_folder("embedded:aviary"), local_files_only=True)
    tokenizer = small.tokenizer
    tokenizer.model_max_length = LONGEST
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=4 * WIDTH, projection_dim=WIDTH,
        num_hidden_layers=12, num_attention_heads=12, max_position_embeddings=LONGEST, hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    with device:
        unet = UNet2DConditionModel(
            sample_size=64, cross_attention_dim=WIDTH, attention_head_dim=8, block_out_channels=(320, 640, 1280, 1280)
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512, latent_channels=4,
        )  # fmt: skip
        encoder = CLIPTextModel(text)
    pipeline = StableDiffusionPipeline(
        unet=unet.to(dtype), vae=vae.to(dtype), text_encoder=encoder.to(dtype), tokenizer=tokenizer,
        scheduler=small.scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


def tiny_autoencoder(folder: Path, base: Path) -> Path:
    """Write TAESD's autoencoder with random weights, for the latents of a base."""
    from diffusers import AutoencoderTiny

    config = json.loads((base / "vae" / "config.json").read_text("utf-8"))
    torch.manual_seed(0)
    AutoencoderTiny(latent_channels=config["latent_channels"]).save_pretrained(folder)
    return folder
