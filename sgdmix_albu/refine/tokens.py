"""New tokens for the text encoders: ours, or Textual Inversion embeddings that users already have."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sgdmix_albu.errors import DataError, InvalidInputError, InvalidTypeError
from sgdmix_albu.refine.components import Components
from sgdmix_albu.refine.tensors import read_safetensors

EmbeddingFile: TypeAlias = str | os.PathLike[str] | tuple[str | os.PathLike[str], str]

# Automatic1111 names the two encoders of Stable Diffusion XL clip_l and clip_g, as diffusers' pivotal tuning does,
# which used to number them; the plain name is Stable Diffusion 1 and 2.
_NAMES = {
    "emb_params": "text_encoder",
    "clip_l": "text_encoder",
    "clip_g": "text_encoder_2",
    "text_encoders_0": "text_encoder",
    "text_encoders_1": "text_encoder_2",
}

_MOST_BYTES = 2**26  # of an embedding file; the largest known, of pivotal tunings, have a thousandth of that


def most_bytes(components: Components, count: int) -> int:
    """Bytes that a file with embeddings of ``count`` tokens may have: in double precision, and its header."""
    widths: int = sum(encoder.model.get_input_embeddings().weight.shape[1] for encoder in components.encoders)
    return 8 * count * widths + 2**20


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


def embedding_file(value: Any, class_name: str) -> tuple[str | os.PathLike[str], str | None]:
    """The file and the token in it, None for its only one.

    Raises:
        InvalidTypeError: Neither a file nor (file, token).
    """
    if isinstance(value, str | os.PathLike):
        return value, None
    if isinstance(value, tuple) and len(value) == 2:
        path, token = value
        if isinstance(path, str | os.PathLike) and isinstance(token, str):
            return path, token
    raise InvalidTypeError(f"the embedding of class {class_name!r} must be a file or (file, token), got {value!r}")


def read_embedding(path: str | os.PathLike[str], *, token: str | None = None) -> dict[str, Tensor]:
    """A Textual Inversion embedding of Automatic1111, of diffusers or of its pivotal tuning, by encoder.

    Args:
        path: The safetensors file. A1111: ``emb_params``, or ``clip_l`` and ``clip_g``; diffusers: the token itself;
            pivotal tuning: ``clip_l`` and ``clip_g``, or ``text_encoders_0`` and ``text_encoders_1``.
        token: Which one, where a diffusers file holds several. In the other files rows have no names; ``"<s0>"`` is
            the first, ``"<s2><s3>"`` are the third and the fourth, as pivotal tuning writes them in its prompts.
            None there for all rows.

    Returns:
        For each encoder's name (V, D): one row for each vector of the token.

    Raises:
        DataError: A pickle, damaged, not an embedding, or without the token.
        InvalidInputError: Several tokens and none named, or rows that are not there.
    """
    state, _ = read_safetensors(path, most=_MOST_BYTES)
    known = {_NAMES[name]: value for name, value in state.items() if name in _NAMES}
    if not known:  # tokens by their names
        first = ", ".join(name[:60] for name in sorted(state)[:5])
        if token is None and len(state) > 1:
            raise InvalidInputError(
                f"{path} holds {len(state)} tokens, {first}; say which one: embeddings={{CLASS: (FILE, TOKEN)}}"
            )
        chosen = token if token is not None else next(iter(state), "")
        if chosen not in state:
            raise DataError(f"{path} holds no token {chosen!r}; it has {first or 'none'}")
        known, token = {"text_encoder": state[chosen]}, None
    for name, value in known.items():
        if value.ndim not in (1, 2) or not value.dtype.is_floating_point or not value.numel():
            raise DataError(f"{path} is no embedding: {name} has shape {tuple(value.shape)}, {value.dtype}")
    rows = {name: value[None] if value.ndim == 1 else value for name, value in known.items()}
    counts = sorted({len(value) for value in rows.values()})
    if len(counts) > 1:
        raise DataError(f"{path} is no embedding: its text encoders have {counts[0]} and {counts[1]} rows")
    if token is None:
        return rows
    chosen_rows = _numbers(token, counts[0], path)
    return {name: value[chosen_rows] for name, value in rows.items()}


def _numbers(token: str, count: int, path: str | os.PathLike[str]) -> list[int]:
    """``"<s2><s3>"`` to [2, 3]."""
    numbers = [int(number) for number in re.findall(r"<s([0-9]{1,9})>", token)]
    if not re.fullmatch(r"(<s[0-9]{1,9}>)+", token) or max(numbers) >= count:
        raise InvalidInputError(
            f"{path} holds {count} rows, <s0> to <s{count - 1}>; expected one or more of them, got {token!r}"
        )
    return numbers
