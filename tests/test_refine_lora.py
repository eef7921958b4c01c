"""LoRA files of foreign make: strengths that differ from layer to layer, and what is refused.

The oracle is the equation, W + alpha / rank * up @ down (Hu et al., 2021), for each layer by itself.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from tiny_diffusion import tiny_base

from sgdmix_albu.errors import DataError
from sgdmix_albu.refine.components import load_base
from sgdmix_albu.refine.lora import apply_lora
from sgdmix_albu.refine.tokens import read_embedding

UNET = "down_blocks.0.attentions.0.transformer_blocks.0"
# Layer, rank and alpha: none is like another.
LAYERS = (
    (f"{UNET}.attn1.to_q", 4, 2.0),
    (f"{UNET}.attn1.to_k", 2, 3.0),
    (f"{UNET}.attn2.to_out.0", 3, 0.75),
    (f"{UNET}.ff.net.0.proj", 2, 8.0),
    ("mid_block.attentions.0.transformer_blocks.0.attn2.to_v", 1, 5.0),
)
TEXT = (("self_attn.q_proj", 2, 1.0), ("self_attn.out_proj", 3, 6.0), ("mlp.fc1", 1, 0.25))


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    return {
        kind: tiny_base(root / kind, architecture=kind, width=32 if kind == "sd" else 48) for kind in ("sd", "sdxl")
    }


def weights(model, layers):
    return {name: model.get_submodule(name).weight.detach().clone() for name, _, _ in layers}


def matrices(before, layers):
    """Random (down, up) of each layer."""
    draw = torch.Generator().manual_seed(7)
    return {
        name: (
            torch.randn(rank, before[name].shape[1], generator=draw),
            torch.randn(before[name].shape[0], rank, generator=draw),
        )
        for name, rank, _ in layers
    }


def expected(before, layers, pairs):
    return {
        name: before[name] + (1.0 if alpha is None else alpha / rank) * pairs[name][1] @ pairs[name][0]
        for name, rank, alpha in layers
    }


def check(model, layers, wanted):
    for name, found in weights(model, layers).items():
        torch.testing.assert_close(found, wanted[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize("form", ["kohya", "peft", "diffusers"])
def test_each_layer_of_the_unet_has_its_own_alpha(bases, tmp_path, kind, form):
    components = load_base(bases[kind])
    before = weights(components.unet, LAYERS)
    pairs = matrices(before, LAYERS)
    down, up = {"kohya": ("lora_down", "lora_up"), "peft": ("lora_A", "lora_B"), "diffusers": ("lora.down", "lora.up")}[
        form
    ]
    state = {}
    for name, _, alpha in LAYERS:
        key = "lora_unet_" + name.replace(".", "_") if form == "kohya" else f"unet.{name}"
        state[f"{key}.{down}.weight"], state[f"{key}.{up}.weight"] = pairs[name]
        state[f"{key}.alpha"] = torch.tensor(alpha)
    save_file(state, tmp_path / "lora.safetensors")
    assert apply_lora(components, tmp_path / "lora.safetensors") == len(LAYERS)
    check(components.unet, LAYERS, expected(before, LAYERS, pairs))


def test_a_layer_without_alpha_counts_whole(bases, tmp_path):
    components = load_base(bases["sd"])
    layers = (LAYERS[0], (LAYERS[1][0], 2, None))
    before = weights(components.unet, layers)
    pairs = matrices(before, layers)
    state = {}
    for name, _, alpha in layers:
        key = "lora_unet_" + name.replace(".", "_")
        state[f"{key}.lora_down.weight"], state[f"{key}.lora_up.weight"] = pairs[name]
        if alpha is not None:
            state[f"{key}.alpha"] = torch.tensor(alpha)
    save_file(state, tmp_path / "lora.safetensors")
    apply_lora(components, tmp_path / "lora.safetensors")
    check(components.unet, layers, expected(before, layers, pairs))


@pytest.mark.parametrize(("kind", "prefixes"), [("sd", ["lora_te"]), ("sdxl", ["lora_te1", "lora_te2"])])
def test_each_layer_of_the_text_encoders_has_its_own_alpha(bases, tmp_path, kind, prefixes):
    components = load_base(bases[kind])
    state, wanted = {}, []
    for prefix, encoder in zip(prefixes, components.encoders, strict=True):
        inside = next(name for name, _ in encoder.model.named_modules() if name.endswith("encoder.layers.0"))
        layers = tuple((f"{inside}.{name}", rank, alpha) for name, rank, alpha in TEXT)
        before = weights(encoder.model, layers)
        pairs = matrices(before, layers)
        wanted.append((encoder.model, layers, expected(before, layers, pairs)))
        for (name, _, alpha), (full, _, _) in zip(TEXT, layers, strict=True):
            key = f"{prefix}_text_model_encoder_layers_0_{name.replace('.', '_')}"
            state[f"{key}.lora_down.weight"], state[f"{key}.lora_up.weight"] = pairs[full]
            state[f"{key}.alpha"] = torch.tensor(alpha)
    save_file(state, tmp_path / "lora.safetensors")
    assert apply_lora(components, tmp_path / "lora.safetensors") == len(state) // 3
    for model, layers, values in wanted:
        check(model, layers, values)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"dora_scale": torch.ones(16, 1)}, "is a DoRA file"),
        ({"lora_magnitude_vector.weight": torch.ones(16)}, "is a DoRA file"),
        ({"lora_magnitude_vector": torch.ones(16)}, "is a DoRA file"),
    ],
)
def test_doras_are_refused(bases, tmp_path, extra, message):
    """diffusers drops the lengths with a warning: the weights would be others than were trained."""
    key = "lora_unet_" + LAYERS[0][0].replace(".", "_")
    state = {f"{key}.lora_down.weight": torch.ones(2, 16), f"{key}.lora_up.weight": torch.ones(16, 2)}
    save_file({**state, **{f"{key}.{name}": value for name, value in extra.items()}}, tmp_path / "lora.safetensors")
    with pytest.raises(DataError, match=message):
        apply_lora(load_base(bases["sd"]), tmp_path / "lora.safetensors")


def test_an_alpha_without_its_matrices(bases, tmp_path):
    key = "lora_unet_" + LAYERS[0][0].replace(".", "_")
    save_file(
        {f"{key}.lora_down.weight": torch.ones(2, 16), f"{key}.alpha": torch.tensor(1.0)}, tmp_path / "a.safetensors"
    )
    with pytest.raises(DataError, match=r"a\.safetensors holds .*\.alpha', but not the two matrices of that layer"):
        apply_lora(load_base(bases["sd"]), tmp_path / "a.safetensors")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_broken_numbers_are_named(bases, tmp_path, number):
    key = "lora_unet_" + LAYERS[0][0].replace(".", "_")
    up = torch.ones(16, 2)
    up[3, 1] = number
    save_file({f"{key}.lora_down.weight": torch.ones(2, 16), f"{key}.lora_up.weight": up}, tmp_path / "b.safetensors")
    with pytest.raises(DataError, match=r"b\.safetensors holds NaN or infinite numbers, in .*lora_up\.weight' and 1"):
        apply_lora(load_base(bases["sd"]), tmp_path / "b.safetensors")
    save_file({"emb_params": up}, tmp_path / "e.safetensors")
    with pytest.raises(DataError, match=r"e\.safetensors holds NaN or infinite numbers, in 'emb_params'"):
        read_embedding(tmp_path / "e.safetensors")
