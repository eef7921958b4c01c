"""Step 3: the folder that is shipped, in half precision."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from make.base.denoiser import new_scheduler


def ship(
    out: Path,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    words: Path,
) -> None:
    """Write a folder that ``StableDiffusionImg2ImgPipeline.from_pretrained`` reads; ``words`` holds the vocabulary."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(out, safe_serialization=True)
    # transformers 5 writes tokenizer.json alone; version 4 reads only the pair.
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(words / name, out / "tokenizer" / name)
    # transformers 5 drops a prefix that version 4, and every published checkpoint, has.
    weights = out / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    size = sum(path.stat().st_size for path in out.rglob("*.safetensors"))
    print(f"{out}: {size / 1e6:.1f} MB of weights")
