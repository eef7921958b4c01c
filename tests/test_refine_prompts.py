"""Prompts and added tokens."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_diffusion import WIDTH, tiny_base

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.refine.components import load_base
from sgdmix_albu.refine.prompts import Prompts, token_ids
from sgdmix_albu.refine.tokens import add_tokens


def test_a_prompt_ends_at_its_end_whatever_the_config_says(tmp_path):
    """Published files of SDXL say ``eos_token_id: 2``, and a token of ours is larger than any of the base's."""
    folder = tiny_base(tmp_path / "base", architecture="sdxl")
    for part in ("text_encoder", "text_encoder_2"):
        config = json.loads((folder / part / "config.json").read_text())
        (folder / part / "config.json").write_text(json.dumps({**config, "eos_token_id": 2}))
    components = load_base(folder)
    rows = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(0))
    add_tokens(components, ["<new>"], {"text_encoder": rows, "text_encoder_2": rows})
    second = components.encoders[1]
    prompts = ["a <new> ant", "a <new> bee"]
    _, pooled = Prompts(components).embed(prompts)
    for prompt, found in zip(prompts, pooled, strict=True):
        ids = second.tokenizer(prompt, padding="max_length", max_length=24, return_tensors="pt").input_ids
        end = ids[0].tolist().index(second.tokenizer.eos_token_id)
        with torch.inference_mode():
            words = second.model(ids).last_hidden_state[0, end]
            torch.testing.assert_close(found, second.model.text_projection(words))
    assert not torch.allclose(pooled[0], pooled[1])


def test_one_prompt_too_long_among_short_ones_is_told_of(tmp_path):
    """As of a long metaclass, beside the empty prompt."""
    (encoder,) = load_base(tiny_base(tmp_path / "base")).encoders
    prompts = ["", "bird " * 30]
    with pytest.raises(InvalidInputError, match=r"a prompt may have 24 tokens, this has \d+: 'bird bird"):
        token_ids(encoder, prompts)
    assert token_ids(encoder, prompts[:1]).shape == (1, 24)
