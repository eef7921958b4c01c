"""Real CLIPSeg and SAM 3 folders of a few thousand random weights, as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_diffusion import letter_tokenizer
from transformers import (
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    Sam3Config,
    Sam3ImageProcessor,
    Sam3Model,
    Sam3Processor,
    ViTImageProcessor,
)

_SPREAD = 0.2
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def tiny_clipseg(folder: Path, *, seed: int = 0) -> Path:
    """Images of 32 x 32 in patches of 8; prompts of 24 letters."""
    tokenizer = letter_tokenizer(folder / ".vocabulary")
    part = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    words = {"vocab_size": len(tokenizer), "max_position_embeddings": 24, **_marks(tokenizer)}
    config = CLIPSegConfig(
        text_config={**part, **words},
        vision_config={**part, "image_size": 32, "patch_size": 8},
        projection_dim=16,
        extract_layers=[0, 1, 2],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    pixels = ViTImageProcessor(size={"height": 48, "width": 48}, resample=3, image_mean=MEAN, image_std=STD)
    return _saved(CLIPSegForImageSegmentation, config, CLIPSegProcessor(pixels, tokenizer), folder, seed)


def tiny_sam3(folder: Path, *, seed: int = 0) -> Path:
    """Images of 56 x 56 in patches of 14; prompts of 24 letters at most."""
    tokenizer = letter_tokenizer(folder / ".vocabulary", longest=32)
    part = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    detr = {**part, "num_layers": 1, "dropout": 0.0}
    config = Sam3Config(
        vision_config={
            "backbone_config": {
                **part,
                "model_type": "sam3_vit_model",
                "num_hidden_layers": 2,
                "image_size": 56,
                "patch_size": 14,
                "window_size": 2,
                "global_attn_indexes": [1],
                "pretrain_image_size": 28,
            },
            "fpn_hidden_size": 16,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        text_config={
            **part,
            "model_type": "clip_text_model",
            "num_hidden_layers": 1,
            "projection_dim": 16,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 32,
            **_marks(tokenizer),
        },
        geometry_encoder_config=detr,
        detr_encoder_config=detr,
        detr_decoder_config={**detr, "num_queries": 5},
        mask_decoder_config={"hidden_size": 16, "num_attention_heads": 2},
    )
    pixels = Sam3ImageProcessor(size={"height": 56, "width": 56})
    return _saved(Sam3Model, config, Sam3Processor(pixels, tokenizer), folder, seed)


def _marks(tokenizer: Any) -> dict[str, int]:
    return {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


def _saved(kind: Any, config: Any, processor: Any, folder: Path, seed: int) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
        for name, value in model.named_parameters():
            if value.ndim > 1 or "norm" not in name:  # as they are initialised, prompts would hardly matter
                torch.nn.init.normal_(value, std=_SPREAD)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
