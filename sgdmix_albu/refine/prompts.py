"""Prompts to embeddings, each prompt once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.refine.components import Components, Encoder


@dataclass(frozen=True)
class Embedded:
    """What a prompt becomes.

    Attributes:
        words: (L, D), for the UNet's attention.
        pooled: (P,), the prompt as a whole, which only Stable Diffusion XL looks at.
    """

    words: Tensor
    pooled: Tensor | None


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

    def embed(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Embeddings (B, L, D), and pooled (B, P) or None.

        Raises:
            InvalidInputError: A prompt has more tokens than the text encoder reads.
        """
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._known:
                self._known[prompt] = self._encode(prompt)
        return _stacked([self._known[prompt] for prompt in prompts])

    def unconditional(self, count: int) -> tuple[Tensor, Tensor | None]:
        """What classifier-free guidance leads away from: the empty prompt, or zeros where the model asks for them."""
        words, pooled = self.embed([""] * count)
        if self._components.architecture == "sdxl" and self._components.settings.get(
            "force_zeros_for_empty_prompt", True
        ):
            return torch.zeros_like(words), None if pooled is None else torch.zeros_like(pooled)
        return words, pooled

    @torch.inference_mode()
    def _encode(self, prompt: str) -> Embedded:
        for word, tokens in self._spelled.items():
            prompt = prompt.replace(word, tokens)
        if self._components.architecture == "sd":
            (encoder,) = self._components.encoders
            return Embedded(encoder.model(_ids(encoder, prompt))[0][0], None)
        # Stable Diffusion XL: the last layer but one of both encoders, side by side; pooled by the second.
        outputs = [
            encoder.model(_ids(encoder, prompt), output_hidden_states=True) for encoder in self._components.encoders
        ]
        words = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return Embedded(words[0], outputs[1][0][0])


def _ids(encoder: Encoder, prompt: str) -> Tensor:
    longest = encoder.tokenizer.model_max_length
    ids = encoder.tokenizer(prompt, padding="max_length", max_length=longest, return_tensors="pt").input_ids
    if ids.shape[1] > longest:
        raise InvalidInputError(f"a prompt may have {longest} tokens, this has {ids.shape[1]}: {prompt!r}")
    return ids.to(encoder.model.device)  # type: ignore[no-any-return]


def _stacked(rows: Sequence[Embedded]) -> tuple[Tensor, Tensor | None]:
    pooled = [row.pooled for row in rows if row.pooled is not None]
    return torch.stack([row.words for row in rows]), torch.stack(pooled) if pooled else None
