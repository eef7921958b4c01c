"""The part of the model that learns: LoRA on the UNet's attention, and the new tokens' embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sgdmix_albu.classifiers.untouched import seeded
from sgdmix_albu.errors import DataError
from sgdmix_albu.refine.components import Components
from sgdmix_albu.refine.prompts import encoded
from sgdmix_albu.refine.tokens import add_tokens
from sgdmix_albu.refine.transfers import Unblocked
from sgdmix_albu.registry import import_optional

_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


class Trained(nn.Module):
    """UNet and text encoders as one module, which is what several processes share.

    Args:
        components: The base model; LoRA and tokens are added to it in place.
        tokens: The new tokens.
        vectors: Their first embeddings, by encoder.
        rank: Of the LoRA matrices.
        seed: Of their first values.
    """

    def __init__(
        self, components: Components, tokens: Sequence[str], vectors: dict[str, Tensor], *, rank: int, seed: int
    ) -> None:
        super().__init__()
        peft = import_optional("peft", extra="diffusion")
        add_tokens(components, tokens, vectors)
        with seeded(seed):
            components.unet.add_adapter(peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=_ATTENTION))
        for encoder in components.encoders:
            ids = encoder.tokenizer.convert_tokens_to_ids(list(tokens))
            config = peft.TrainableTokensConfig(token_indices=ids, target_modules=["token_embedding"])
            with warnings.catch_warnings():
                # peft asks transformers a question by its old name.
                warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
                encoder.model = peft.get_peft_model(encoder.model, config)
        self.unet = components.unet
        self.encoders = nn.ModuleList([encoder.model for encoder in components.encoders])
        for parameter in self.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()  # steps this small are lost in half precision

    def forward(self, noisy: Tensor, times: Tensor, ids: Sequence[Tensor], rows: Tensor, sizes: Tensor) -> Tensor:
        """The UNet's guess.

        Args:
            noisy: (B, C, h, w) latents.
            times: (B,) timesteps.
            ids: For each text encoder (P, L) token ids, of the batch's different prompts.
            rows: (B,) which of them is each image's.
            sizes: (6,) what Stable Diffusion XL is told of the images' size.
        """
        with Unblocked():  # peft brings the new tokens' numbers along at each call
            words, pooled = encoded(self.encoders, ids)
        added = None
        if pooled is not None:
            added = {"text_embeds": pooled[rows], "time_ids": sizes.to(words.dtype).expand(len(noisy), -1)}
        return self.unet(  # type: ignore[no-any-return]
            noisy, times, encoder_hidden_states=words[rows], added_cond_kwargs=added, return_dict=False
        )[0]

    def groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """The parameters that learn, by name, of "lora" and "tokens"."""
        found: dict[str, dict[str, nn.Parameter]] = {"lora": {}, "tokens": {}}
        for name, value in self.named_parameters():
            if value.requires_grad:
                found["lora" if name.startswith("unet.") else "tokens"][name] = value
        return found

    def lora(self) -> dict[str, Tensor]:
        """The LoRA matrices by diffusers' names."""
        peft = import_optional("peft", extra="diffusion")
        return {f"unet.{name}": value for name, value in peft.get_peft_model_state_dict(self.unet).items()}

    def vectors(self, components: Components) -> dict[str, Tensor]:
        """The new tokens' embeddings (K, D), by encoder."""
        found = {}
        for encoder in components.encoders:
            (delta,) = (value for value in encoder.model.parameters() if value.requires_grad)
            found[encoder.name] = delta.detach().clone()
        return found


def initial_vectors(
    components: Components, metaclass: str, count: int, *, noise: float, seed: int
) -> dict[str, Tensor]:
    """First embeddings of ``count`` tokens: the metaclass's, each with small noise of its own.

    Args:
        components: The base model.
        metaclass: A word; the mean where the tokenizer cuts it into several.
        count: Number of tokens.
        noise: Deviation as a share of the metaclass embedding's.
        seed: Of the noise.

    Returns:
        For each encoder (count, D).
    """
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for encoder in components.encoders:
        ids: Any = encoder.tokenizer(metaclass, add_special_tokens=False).input_ids
        if not ids:
            raise DataError(f"the tokenizer of {components.folder} knows no part of the metaclass {metaclass!r}")
        mean = encoder.model.get_input_embeddings().weight[ids].float().mean(0).cpu()
        found[encoder.name] = mean + noise * mean.std() * torch.randn(count, len(mean), generator=draw)
    return found
