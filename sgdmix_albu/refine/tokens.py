"""New tokens for the text encoders: ours, or Textual Inversion embeddings that users already have."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.refine.components import Components
from sgdmix_albu.refine.lora import read_safetensors

__all__ = ["add_tokens", "read_embedding"]

# Automatic1111 names the two encoders of Stable Diffusion XL so; the plain one is Stable Diffusion 1 and 2.
_NAMES = {"emb_params": "text_encoder", "clip_l": "text_encoder", "clip_g": "text_encoder_2"}


def add_tokens(components: Components, tokens: Sequence[str], vectors: Mapping[str, Tensor]) -> None:
    """Teach every text encoder the tokens, in one step each: two hundred singly take twelve seconds.

    Args:
        components: The base model, changed in place.
        tokens: K new words, such as ``"<cub-017>"``.
        vectors: For each encoder's name the embeddings (K, D).

    Raises:
        DataError: An encoder is missing, the width is another base's, or a token is known already.
    """
    for encoder in components.encoders:
        if encoder.name not in vectors:
            raise DataError(
                f"the embeddings are for {sorted(vectors)}, the base has {encoder.name}: it is another kind"
            )
        rows = vectors[encoder.name]
        table = encoder.model.get_input_embeddings().weight
        if rows.shape != (len(tokens), table.shape[1]):
            raise DataError(
                f"expected {len(tokens)} embeddings of width {table.shape[1]} for {encoder.name}, "
                f"got {tuple(rows.shape)}: they were made for another base"
            )
        before = len(encoder.tokenizer)
        if encoder.tokenizer.add_tokens(list(tokens)) != len(tokens):
            known = [token for token in tokens if encoder.tokenizer.convert_tokens_to_ids(token) < before]
            raise DataError(f"the tokenizer of {components.folder} knows {known[0] if known else tokens[0]!r} already")
        encoder.model.resize_token_embeddings(len(encoder.tokenizer), mean_resizing=False)
        with torch.no_grad():
            table = encoder.model.get_input_embeddings().weight
            table[before : before + len(tokens)] = rows.to(table)
        encoder.model.requires_grad_(False)


def read_embedding(path: str | os.PathLike[str], *, token: str | None = None) -> dict[str, Tensor]:
    """A Textual Inversion embedding of Automatic1111 or diffusers, by encoder.

    Args:
        path: The safetensors file. A1111: ``emb_params``, or ``clip_l`` and ``clip_g``; diffusers: the token itself.
        token: Which one, where a diffusers file holds several.

    Returns:
        For each encoder's name (V, D): one row for each vector of the token.

    Raises:
        DataError: A pickle, damaged, or not an embedding.
        InvalidInputError: Several tokens, and none named.
    """
    state, _ = read_safetensors(path)
    known = {_NAMES[name]: value for name, value in state.items() if name in _NAMES}
    if not known:
        if token is None and len(state) > 1:
            raise InvalidInputError(f"{path} holds {len(state)} tokens, {', '.join(sorted(state)[:5])}; say which one")
        chosen = token if token is not None else next(iter(state), "")
        if chosen not in state:
            raise DataError(f"{path} holds no token {chosen!r}; it has {', '.join(sorted(state)[:5]) or 'none'}")
        known = {"text_encoder": state[chosen]}
    for name, value in known.items():
        if value.ndim not in (1, 2) or not value.dtype.is_floating_point or not value.numel():
            raise DataError(f"{path} is no embedding: {name} has shape {tuple(value.shape)}, {value.dtype}")
    return {name: value[None] if value.ndim == 1 else value for name, value in known.items()}
