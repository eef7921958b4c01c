"""Step 2: tokenizer, text encoder and UNet, the last two trained together on latents and captions."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DConditionModel
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from tqdm import trange
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from make.base.pictures import birds, caption

BATCH, LEARNING_RATE, LENGTH = 32, 1e-3, 64
CAPTIONS = 6  # phrasings of each picture, drawn once

# How CLIP cuts text before it looks for pairs of letters to join.
_WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def new_tokenizer(texts: list[str], folder: Path) -> CLIPTokenizer:
    """A byte-pair tokenizer in CLIP's format that knows the words of ``texts``, and every letter."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        initial_alphabet=letters,
        special_tokens=["<|startoftext|>", "<|endoftext|>", *sorted(f"{letter}</w>" for letter in letters)],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.model.save(str(folder))
    return CLIPTokenizer.from_pretrained(folder, model_max_length=LENGTH)


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained text encoder of CLIP's architecture."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            projection_dim=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_unet() -> UNet2DConditionModel:
    """An untrained UNet of Stable Diffusion's architecture."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=8,
        out_channels=8,
        block_out_channels=(64, 128, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule; v-prediction, as in Stable Diffusion 2."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def captions(per_species: int, seed: int = 0) -> list[list[str]]:
    """``CAPTIONS`` phrasings of every picture."""
    source, chance = birds(per_species), np.random.default_rng(seed)
    return [[caption(source, i, chance) for _ in range(CAPTIONS)] for i in range(len(source))]


def train_denoiser(
    latents: Tensor, words: Tensor, vocabulary: CLIPTokenizer, steps: int, cache: Path, seed: int = 0
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Train on scaled latents (N, 8, 16, 16) and token ids (N, ``CAPTIONS``, ``LENGTH``); returns the averages."""
    torch.manual_seed(seed)
    scheduler = new_scheduler()
    both = torch.nn.ModuleDict({"unet": new_unet(), "text": new_text_encoder(vocabulary)})
    both.to(memory_format=torch.channels_last)
    average = copy.deepcopy(both).requires_grad_(False)
    optimizer = torch.optim.AdamW(both.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 200, 1.0, max(0.02, 2 * (1 - step / steps)))
    )
    running = 1.0
    bar = trange(1, steps + 1, desc="denoiser", mininterval=10)
    for step in bar:
        picked = torch.randint(len(latents), (BATCH,))
        ids = words[picked, torch.randint(CAPTIONS, (BATCH,))].long()
        clean, noise = latents[picked].float(), torch.randn(BATCH, *latents.shape[1:])
        when = torch.randint(1000, (BATCH,))
        noisy = scheduler.add_noise(clean, noise, when)
        with torch.autocast("cpu", torch.bfloat16):
            said = both["text"](ids).last_hidden_state
            guess = both["unet"](noisy, when, said).sample
        loss = F.mse_loss(guess.float(), scheduler.get_velocity(clean, noise, when))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        weight = min(0.999, step / (step + 20))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(both.parameters()), 1 - weight)
        running = 0.99 * running + 0.01 * loss.item()
        if step % 100 == 0:
            bar.set_postfix(loss=f"{running:.4f}")
        if step % 500 == 0:  # something to look at while it learns
            torch.save(average.state_dict(), cache / "denoiser.part.pt")
    average.eval()
    return average["unet"], average["text"]
