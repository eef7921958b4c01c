"""Real Stable Diffusion folders of a few thousand random weights, in diffusers' layout."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from sgdmix_albu.refine.folder import RefinerCard, class_tokens, write_refiner

WIDTH = 32  # of each text encoder


def tiny_base(
    folder: Path,
    *,
    architecture: str = "sd",
    prediction_type: str = "epsilon",
    latent_channels: int = 4,
    seed: int = 0,
    width: int = WIDTH,
    **unet: object,
) -> Path:
    """Save a folder that the stock pipelines read; images are 32 x 32 or more, latents half of that.

    ``unet`` are further settings of the UNet.
    """
    from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionXLImg2ImgPipeline

    sdxl = architecture == "sdxl"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts = {
            "vae": _vae(latent_channels),
            "unet": _unet(latent_channels, width, sdxl=sdxl, **unet),
            "scheduler": DDIMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                clip_sample=False,
                set_alpha_to_one=False,
                steps_offset=1,
                prediction_type=prediction_type,
            ),
            "tokenizer": letter_tokenizer(folder / ".vocabulary"),
        }
        vocabulary = len(parts["tokenizer"])
        if sdxl:
            parts["tokenizer_2"] = letter_tokenizer(folder / ".vocabulary")
            parts["text_encoder"] = CLIPTextModel(_text_config(vocabulary, width))
            parts["text_encoder_2"] = CLIPTextModelWithProjection(_text_config(vocabulary, width))
            pipeline = StableDiffusionXLImg2ImgPipeline(**parts, add_watermarker=False)
        else:
            parts["text_encoder"] = CLIPTextModel(_text_config(vocabulary, width))
            pipeline = StableDiffusionImg2ImgPipeline(
                **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
            )
        pipeline.save_pretrained(folder)
    return folder


def tiny_refiner(folder: Path, base: Path, classes: tuple[str, ...], *, seed: int = 1) -> Path:
    """Write a refiner folder for a tiny base of one text encoder: random LoRA matrices, random embeddings."""
    unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet", local_files_only=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
        vectors = torch.randn(len(classes), WIDTH)
    card = RefinerCard(
        key="tiny",
        base=str(base),
        revision=None,
        architecture="sd",
        metaclass="x",
        prompt="{token} {metaclass}",
        resolution=32,
        classes=classes,
        tokens=class_tokens("tiny", len(classes)),
        strengths=(0.3, 0.6, 0.9),
        steps=6,
        guidance=3.0,
    )
    lora = {f"unet.{name}": value for name, value in get_peft_model_state_dict(unet).items()}
    write_refiner(folder, card, lora, {"text_encoder": vectors})
    return folder


def _vae(channels: int) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=0.7,
    )


def _unet(channels: int, width: int, *, sdxl: bool, **extra: object) -> UNet2DConditionModel:
    if sdxl:
        extra |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
        extra["projection_class_embeddings_input_dim"] = 6 * 8 + WIDTH
    settings = {"in_channels": channels} | extra
    return UNet2DConditionModel(
        sample_size=16,
        out_channels=channels,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=2 * width if sdxl else width,
        attention_head_dim=4,
        norm_num_groups=8,
        **settings,
    )


def _text_config(vocabulary: int, width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=24,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def letter_tokenizer(folder: Path, *, longest: int = 24) -> CLIPTokenizer:
    """Byte pairs without any merge: one token a letter."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    folder.mkdir(parents=True, exist_ok=True)
    Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, [])).model.save(str(folder))
    return CLIPTokenizer.from_pretrained(folder, model_max_length=longest)
