"""Prompts to embeddings, each prompt once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.refine.components import Components, Encoder

Embedded: TypeAlias = tuple[Tensor, Tensor | None]
"""Prompts as words (B, L, D), for the UNet's attention, and as a whole (B, P), for Stable Diffusion XL alone."""


class Prompts:
    """The prompts seen so far, embedded.

    Args:
        components: The model; its text encoders are not called twice with the same prompt.
        spelled: Words that stand for several tokens, and how they are written out.
    """

    def __init__(self, components: Components, spelled: Mapping[str, str] | None = None) -> None:
        self._components = components
        self._spelled = dict(spelled or {})
        self._known: dict[str, Embedded] = {}

    def embed(self, prompts: Sequence[str]) -> Embedded:
        """Embeddings of B prompts.

        Raises:
            InvalidInputError: A prompt has more tokens than the text encoder reads.
        """
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._known:
                self._known[prompt] = self._encode(prompt)
        found = [self._known[prompt] for prompt in prompts]
        pooled = [whole for _, whole in found if whole is not None]
        return torch.cat([words for words, _ in found]), torch.cat(pooled) if pooled else None

    def unconditional(self, count: int) -> Embedded:
        """What classifier-free guidance leads away from: the empty prompt, or zeros where the model asks for them."""
        words, pooled = self.embed([""] * count)
        if pooled is not None and self._components.settings.get("force_zeros_for_empty_prompt", True):
            return torch.zeros_like(words), torch.zeros_like(pooled)
        return words, pooled

    @torch.inference_mode()
    def _encode(self, prompt: str) -> Embedded:
        for word, tokens in self._spelled.items():
            prompt = prompt.replace(word, tokens)
        encoders = self._components.encoders
        ids = [token_ids(encoder, [prompt]).to(encoder.model.device) for encoder in encoders]
        return encoded([encoder.model for encoder in encoders], ids)


def token_ids(encoder: Encoder, prompts: Sequence[str]) -> Tensor:
    """Prompts as token ids (B, L), filled up to what the text encoder reads.

    Raises:
        InvalidInputError: A prompt has more tokens than that.
    """
    longest = encoder.tokenizer.model_max_length
    rows = encoder.tokenizer(list(prompts), padding="max_length", max_length=longest).input_ids
    for prompt, row in zip(prompts, rows, strict=True):
        if len(row) > longest:
            raise InvalidInputError(f"a prompt may have {longest} tokens, this has {len(row)}: {prompt!r}")
    return torch.tensor(rows)


def encoded(models: Sequence[Any] | nn.ModuleList, ids: Sequence[Tensor]) -> Embedded:
    """Token ids (B, L), one tensor for each text encoder, as the UNet is shown them."""
    if len(models) == 1:
        return models[0](ids[0])[0], None
    # Stable Diffusion XL: the last layer but one of both encoders, side by side; pooled by the second.
    outputs = [model(each, output_hidden_states=True) for model, each in zip(models, ids, strict=True)]
    return torch.cat([output.hidden_states[-2] for output in outputs], dim=-1), outputs[1][0]
