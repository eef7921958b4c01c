"""From a refiner's settings to the model in memory."""

from __future__ import annotations

import copy
import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgdmix_albu.errors import DataError
from sgdmix_albu.pretrained.configs import check_model
from sgdmix_albu.pretrained.parts import load_model
from sgdmix_albu.refine.components import Components, load_base
from sgdmix_albu.refine.folder import LORA, TOKENS, RefinerCard
from sgdmix_albu.refine.lora import apply_lora
from sgdmix_albu.refine.prompts import Prompts
from sgdmix_albu.refine.setup import RefinerSetup
from sgdmix_albu.refine.tensors import read_safetensors
from sgdmix_albu.refine.tokens import add_tokens, most_bytes, read_embedding
from sgdmix_albu.registry import import_optional


@dataclass(frozen=True)
class Loaded:
    """A refiner in memory: the model with everything merged into it, and the prompts embedded so far."""

    components: Components
    prompts: Prompts

    def in_single_precision(self) -> Loaded:
        """A copy of UNet and autoencoder in float32; threads that share the model do not notice."""
        unet, vae = (
            copy.deepcopy(getattr(part, "_orig_mod", part)).float()  # a compiled module wraps its original
            for part in (self.components.unet, self.components.vae)
        )
        return Loaded(dataclasses.replace(self.components, unet=unet, vae=vae), self.prompts)


def load(refiner: RefinerSetup) -> Loaded:
    """Load the base, merge the refiner's LoRA and tokens, then whatever else the settings name."""
    card = refiner.card
    components = load_base(refiner.base, revision=refiner.revision, dtype=refiner.dtype, device=refiner.device)
    if card is not None:
        _check_architecture(components, card)
        apply_lora(components, refiner.folder / LORA)
        vectors, _ = read_safetensors(refiner.folder / TOKENS, most=most_bytes(components, len(card.tokens)))
        add_tokens(components, card.tokens, vectors)
    for path in refiner.loras:
        apply_lora(components, path)
    spelled = {
        token: _add_embedding(components, token, read_embedding(path, token=inside))
        for token, (path, inside) in refiner.embedded_tokens.items()
    }
    if refiner.scheduler is not None:
        kind = getattr(import_optional("diffusers", extra="diffusion"), refiner.scheduler)
        components.scheduler = kind.from_config(components.scheduler.config)
    if refiner.tiny_vae is not None:
        components.vae = _tiny_vae(refiner)
    else:
        components.widen_vae()
    if refiner.compile:
        components.unet = torch.compile(components.unet)
    return Loaded(components, Prompts(components, spelled))


def _check_architecture(components: Components, card: RefinerCard) -> None:
    if components.architecture != card.architecture:
        raise DataError(
            f"refiner {card.key!r} was fine-tuned on a base of kind {card.architecture!r}, {components.folder} is "
            f"{components.architecture!r}; pass base={card.base!r}, or fine-tune again: "
            f"sgdmix finetune DATA OUT --metaclass {shlex.quote(card.metaclass)} --base "
            f"{shlex.quote(str(components.folder))}"
        )


def _add_embedding(components: Components, token: str, vectors: dict[str, Tensor]) -> str:
    """Teach one token; its spelling, which is several tokens where the embedding has several vectors."""
    count = len(next(iter(vectors.values())))
    tokens = [token, *(f"{token}_{number}" for number in range(1, count))]
    add_tokens(components, tokens, vectors)
    return " ".join(tokens)


def _tiny_vae(refiner: RefinerSetup) -> Any:
    kind = import_optional("diffusers", extra="diffusion").AutoencoderTiny
    folder = Path(refiner.tiny_vae or "").expanduser()
    if not folder.is_dir():
        raise DataError(
            f"expected a folder with a TAESD autoencoder in safetensors, got {refiner.tiny_vae}; where there is a "
            "network, run: hf download madebyollin/taesd --local-dir FOLDER"
        )
    return load_model(kind, folder, check_model(folder, kind), refiner.dtype).to(refiner.device)
