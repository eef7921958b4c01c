"""The two steps of ``make base``, each kept in ``.base/`` once it is done, and the folder that is shipped."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from make.base.denoiser import captions, new_tokenizer, train_denoiser
from make.base.pictures import drawn
from make.base.ship import ship
from make.base.vae import encoded, train_vae

CACHE = Path(".base")


def main() -> None:
    """Train what is missing and write the folder."""
    parser = argparse.ArgumentParser(prog="python -m make.base", description=main.__doc__)
    parser.add_argument("--per-species", type=int, default=100, help="training pictures of each of 192 species")
    parser.add_argument("--vae-steps", type=int, default=3200)
    parser.add_argument("--unet-steps", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=Path("sgdmix_albu/refine/embedded/aviary"))
    arguments = parser.parse_args()
    CACHE.mkdir(exist_ok=True)

    pictures = drawn(arguments.per_species, CACHE)
    if not (CACHE / "vae").exists():
        train_vae(pictures, arguments.vae_steps).save_pretrained(CACHE / "vae")
    vae = AutoencoderKL.from_pretrained(CACHE / "vae", local_files_only=True)

    said = captions(arguments.per_species)
    tokenizer = new_tokenizer(sorted({text for texts in said for text in texts}), CACHE / "tokenizer")
    longest = max(len(tokenizer(text).input_ids) for texts in said[::50] for text in texts)
    print(f"{len(tokenizer)} tokens; the longest of the captions looked at has {longest}", flush=True)
    words = torch.tensor(
        np.array([tokenizer(texts, padding="max_length", truncation=True).input_ids for texts in said], np.int16)
    )
    latents = (encoded(vae, pictures) * vae.config.scaling_factor).half()
    unet, text_encoder = train_denoiser(latents, words, tokenizer, arguments.unet_steps, CACHE)
    ship(arguments.out, vae, unet, text_encoder, tokenizer, CACHE / "tokenizer")


if __name__ == "__main__":
    main()
