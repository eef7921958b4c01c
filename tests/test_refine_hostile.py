"""Bases, refiners and LoRA files that somebody made to do harm: nothing of theirs runs, and each is one line."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import struct
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from safetensors.torch import save_file
from tiny_diffusion import tiny_base, tiny_refiner

from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.refine import read_refiner
from sgdmix_albu.refine.components import load_base
from sgdmix_albu.refine.lora import apply_lora
from sgdmix_albu.refine.tokens import read_embedding

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
SETTINGS = "lora_adapter_metadata"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def copy(base, tmp_path):
    return Path(shutil.copytree(base, tmp_path / "copy"))


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module that leaves a file behind when it is imported."""
    (tmp_path / "trapped.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w').close()\ntensor_parallel = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "trace"
    sys.modules.pop("trapped", None)


def change(path, **settings):
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def write_lora(path, *, name=f"unet.{LAYER}", rank=2, **settings):
    """A LoRA of one layer with settings as diffusers writes them; the product of its matrices is rank everywhere."""
    state = {f"{name}.lora_A.weight": torch.ones(rank, 16), f"{name}.lora_B.weight": torch.ones(16, rank)}
    header = {SETTINGS: json.dumps({f"unet.{key}": value for key, value in settings.items()})} if settings else None
    save_file(state, path, metadata=header)
    return path


# Code


def test_the_trap_is_sound(trap):
    importlib.import_module("trapped")
    assert trap.exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"megatron_core": "trapped", "megatron_config": {"a": 1}},
        {"megatron_core": "trapped"},
        {"megatron_config": {"a": 1}},
    ],
)
def test_no_module_that_a_lora_names_is_imported(base, tmp_path, trap, settings):
    file = write_lora(tmp_path / "a.safetensors", r=2, lora_alpha=2, target_modules=[LAYER], **settings)
    with pytest.raises(DataError, match=rf"a\.safetensors: its header's {SETTINGS} cannot be used: 'megatron_co"):
        apply_lora(load_base(base), file)
    assert not trap.exists()


def adapter(folder):
    """Lay an adapter for a text encoder into its folder: transformers loads it with the model, unasked."""
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
    settings |= {"megatron_core": "trapped", "megatron_config": {"a": 1}}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file({"base_model.model.a.lora_A.weight": torch.ones(2, 32)}, folder / "adapter_model.safetensors")


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae", "scheduler", "tokenizer"])
def test_no_adapter_is_loaded_with_a_base(copy, trap, part):
    adapter(copy / part)
    with pytest.raises(DataError, match=rf"cannot use .*{part}: adapter_config\.json belongs to an adapter"):
        load_base(copy)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        *(
            (f"{part}/config.json", name, value)
            for part in ("unet", "vae", "text_encoder")
            for name, value in (
                ("quantization_config", {"quant_method": "bitsandbytes", "load_in_4bit": True}),
                ("auto_map", {"AutoModel": "trapped--model.Model"}),
                ("custom_code", "trapped"),
            )
        ),
        ("text_encoder/config.json", "attn_implementation", "some/kernel"),
        ("text_encoder/config.json", "_attn_implementation", "kernels-community/some"),
        ("text_encoder/config.json", "transformers_weights", "../elsewhere.safetensors"),
        ("text_encoder/config.json", "text_config", {"hidden_size": 8}),
        ("text_encoder/config.json", "dtype", "load"),  # torch.load
        ("text_encoder/config.json", "model_type", "llama"),
        ("text_encoder/config.json", "return_dict", False),
        ("tokenizer/tokenizer_config.json", "auto_map", {"AutoTokenizer": ["trapped.Tokenizer", None]}),
        ("tokenizer/tokenizer_config.json", "tokenizer_class", "TrappedTokenizer"),
        ("tokenizer/tokenizer_config.json", "vocab_file", "/etc/passwd"),
        ("tokenizer/tokenizer_config.json", "tokenizer_file", "/etc/passwd"),
        ("tokenizer/tokenizer_config.json", "chat_template", "{{ x }}"),
        ("scheduler/scheduler_config.json", "auto_map", {"a": "b"}),
        ("unet/config.json", "down_block_types", {"a": "b"}),
    ],
)
def test_settings_that_lead_to_code_or_elsewhere(copy, file, name, value):
    change(copy / file, **{name: value})
    with pytest.raises(DataError, match=f"cannot use .*{file}: '{name}': "):
        load_base(copy)


@pytest.mark.parametrize("name", ["../unet/diffusion_pytorch_model.safetensors", "/etc/passwd", "a.bin", 3])
@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_lists_of_weights_name_files_of_their_folder(copy, part, name):
    (file,) = (copy / part).glob("*.safetensors")
    (copy / part / f"{file.name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"a": name}}))
    with pytest.raises(DataError, match=r"index\.json: 'weight_map': 'a': expected a"):
        load_base(copy)


def test_settings_that_trainers_write_are_known(base, tmp_path):
    """All of peft's, as diffusers packs them; the equation gives the sum: alpha / rank, or its square root."""
    settings = json.loads(json.dumps(LoraConfig(r=4, lora_alpha=2, target_modules=["to_q"]).to_dict(), default=list))
    for more, scale in (
        ({}, 0.5),
        ({"use_rslora": True}, 1.0),
        ({"alpha_pattern": {"attn1.to_q": 8, "to_k": 1}}, 2.0),
        ({"alpha_pattern": {"attn2.to_q": 8}}, 0.5),
    ):
        components = load_base(base)
        before = components.unet.get_submodule(LAYER).weight.clone()
        apply_lora(components, write_lora(tmp_path / "a.safetensors", rank=4, **{**settings, **more}))
        torch.testing.assert_close(components.unet.get_submodule(LAYER).weight, before + 4 * scale)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "'use_dora': is set, which is not supported"),
        ({"something_new": "x"}, "'something_new': is set"),
        ({"bias": "all"}, "'bias': expected one of 'none'"),
        ({"lora_alpha": "2"}, "'lora_alpha': expected a number"),
        ({"lora_alpha": 0}, "an alpha of 0"),
        ({"alpha_pattern": {"(a+)+b": 1}}, r"is a pattern, expected the name of a layer"),
        ({"alpha_pattern": [1]}, "'alpha_pattern': expected an object"),
        ({"r": 10**400}, "'r': expected a whole number"),
    ],
)
def test_settings_of_an_adapter_that_are_not_read(base, tmp_path, settings, message):
    with pytest.raises(DataError, match=message):
        apply_lora(load_base(base), write_lora(tmp_path / "a.safetensors", **settings))


@pytest.mark.parametrize("content", ["{", "[]", "NaN", '{"unet.lora_alpha": NaN}', "[" * 100_000])
def test_damaged_settings_of_an_adapter(base, tmp_path, content):
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", metadata={SETTINGS: content})
    with pytest.raises(DataError, match=rf"{SETTINGS} cannot be used: "):
        apply_lora(load_base(base), tmp_path / "a.safetensors")


def test_settings_count_in_text_encoders_too(base, tmp_path):
    """A file as diffusers writes it for a pipeline, its settings for both parts."""
    name = "text_model.encoder.layers.0.self_attn.q_proj"
    state = {f"{name}.lora_A.weight": torch.ones(4, 32), f"{name}.lora_B.weight": torch.ones(32, 4)}
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        text_encoder_lora_layers=convert_state_dict_to_diffusers(state),
        text_encoder_lora_adapter_metadata={"r": 4, "lora_alpha": 2, "target_modules": ["q_proj"]},
    )
    components = load_base(base)
    (layer,) = (each for path, each in components.encoders[0].model.named_modules() if path.endswith(name[11:]))
    before = layer.weight.clone()
    assert apply_lora(components, tmp_path / "pytorch_lora_weights.safetensors") == 1
    torch.testing.assert_close(layer.weight, before + 4 * 0.5)


# Tensors


def sparse(path, shape, dtype="F32", size=4):
    """A file of the size that it claims, of which hardly anything is on disk."""
    count = size * torch.Size(shape).numel()
    header = json.dumps({f"unet.{LAYER}.lora_A.weight": {"dtype": dtype, "shape": shape, "data_offsets": [0, count]}})
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())
    os.truncate(path, 8 + len(header) + count)
    return path


@pytest.mark.parametrize(
    "read", [lambda base, path: apply_lora(load_base(base), path), lambda _, path: read_embedding(path)]
)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: sparse(path, [2**20, 2**15]), "expected .* at most for what it is to be"),
        (lambda path: path.write_bytes(struct.pack("<Q", 2**27) + b"{" * 100), "damaged, or no safetensors file"),
        (lambda path: path.write_bytes(struct.pack("<Q", 2**63) + b"{}"), "damaged, or no safetensors file"),
        (lambda path: path.write_bytes(b""), "cannot read .*not JSON"),
        (lambda path: os.mkfifo(path), "it is a named pipe, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a file"),
        (lambda path: path.mkdir(), "it is a folder, not a file"),
        (lambda path: sparse(path, [2, 4], "F8_E4M3", 1), "'dtype': expected one of"),
        (lambda path: save_file({"a": torch.ones(2, 4, dtype=torch.int64)}, path), "'dtype': expected one of"),
        (lambda path: save_file({"a": torch.ones(2, 4, dtype=torch.bool)}, path), "'dtype': expected one of"),
        (lambda path: save_file({"a": torch.ones(2, 0)}, path), "'shape': 1: expected a whole number from 1"),
        (lambda path: save_file({"a": torch.ones((1,) * 9)}, path), "'shape': expected at most 8 items"),
    ],
)
def test_files_of_tensors_that_are_none(base, tmp_path, read, make, message):
    make(tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=message):
        read(base, tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"lora_A.weight": torch.ones(2, 16)}, "holds one matrix of .*, but not the other"),
        ({"lora_A.weight": torch.tensor(1.0), "lora_B.weight": torch.tensor(1.0)}, r"must be \(rank, inputs\)"),
        ({"lora_A.weight": torch.ones(2), "lora_B.weight": torch.ones(2)}, r"must be \(rank, inputs\)"),
        ({"lora_A.weight": torch.ones(2, 16), "lora_B.weight": torch.ones(16, 3)}, r"must be \(rank, inputs\)"),
        ({"lora_A.weight": torch.ones(2, 8), "lora_B.weight": torch.ones(16, 2)}, "does not fit this base"),
        ({"lora_A.weight": torch.ones(2, 32), "lora_B.weight": torch.ones(8, 2)}, "does not fit this base"),
        ({"lora_A.weight": torch.ones(2, 16), "lora_B.weight": torch.ones(16, 2, 3, 3)}, r"must be \(rank, inputs\)"),
        (
            {"lora_A.weight": torch.ones(2, 16), "lora_B.weight": torch.ones(16, 2), "lora_B.bias": torch.ones(16)},
            "lora_B.bias': more than the two matrices",
        ),
        (
            {"lora_A.weight": torch.ones(2, 16), "lora_B.weight": torch.ones(16, 2), "alpha": torch.tensor(0.0)},
            "an alpha of 0",
        ),
        (
            {"lora_A.weight": torch.ones(2, 16), "lora_B.weight": torch.ones(16, 2), "alpha": torch.ones(3)},
            "but not the two matrices",
        ),
    ],
)
def test_matrices_of_wrong_shapes(base, tmp_path, state, message):
    save_file({f"unet.{LAYER}.{name}": value for name, value in state.items()}, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=message):
        apply_lora(load_base(base), tmp_path / "a.safetensors")


# Numbers


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("unet", {"block_out_channels": [10**9, 10**9]}),
        ("unet", {"block_out_channels": [99_968, 99_968]}),
        ("unet", {"block_out_channels": []}),
        ("unet", {"block_out_channels": [16] * 1000}),
        ("unet", {"layers_per_block": 10**7}),
        ("unet", {"transformer_layers_per_block": [[10**7]]}),
        ("unet", {"cross_attention_dim": 10**7}),
        ("unet", {"attention_head_dim": 0}),
        ("unet", {"norm_num_groups": 0}),
        ("unet", {"sample_size": 10**400}),
        ("unet", {"in_channels": True}),
        ("vae", {"latents_mean": [0.0], "latents_std": [1.0]}),
        ("vae", {"latents_mean": [0.0] * 4, "latents_std": [1.0, 1.0, 1.0, 0.0]}),
        ("vae", {"latents_mean": 3}),
        ("vae", {"scaling_factor": 0}),
        ("vae", {"scaling_factor": "1"}),
        ("vae", {"up_block_types": ["os.system"] * 2}),
        ("text_encoder", {"num_hidden_layers": 10**9}),
        ("text_encoder", {"hidden_size": 100_000, "intermediate_size": 100_000}),
        ("text_encoder", {"vocab_size": 10**7}),
        ("text_encoder", {"vocab_size": 100}),
        ("text_encoder", {"max_position_embeddings": 5}),
        ("text_encoder", {"num_attention_heads": 0}),
    ],
)
def test_numbers_beyond_all_networks(copy, file, settings):
    change(copy / file / "config.json", **settings)
    with pytest.raises(DataError, match="cannot (use|load) |the tokenizer in .* its text encoder reads"):
        load_base(copy)


def test_the_config_is_no_pipe_and_no_gigabyte(copy):
    path = copy / "unet" / "config.json"
    os.truncate(path, 2**31)
    with pytest.raises(DataError, match="the limit is 67108864"):
        load_base(copy)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"config\.json is a named pipe, not a file"):
        load_base(copy)
    path.unlink()
    with pytest.raises(DataError, match=r"cannot read .*config\.json"):
        load_base(copy)


@pytest.mark.parametrize("content", ["{", "[]", "3", "NaN", '{"a": NaN}', '{"a": ' + "[" * 100_000, "\0", '"\\ud800"'])
@pytest.mark.parametrize(
    "file", ["model_index.json", "vae/config.json", "text_encoder/config.json", "tokenizer/tokenizer_config.json"]
)
def test_descriptions_that_are_none(copy, file, content):
    (copy / file).write_text(content)
    with pytest.raises(DataError, match=f"cannot use .*{file}: "):
        load_base(copy)


def test_what_real_bases_say_besides(copy, base):
    """Old keys, and keys of other tools, that change nothing."""
    change(copy / "unet" / "config.json", some_old_switch=True, quantization_config=None, _name_or_path="a/b")
    change(
        copy / "text_encoder" / "config.json",
        torch_dtype="float16",
        id2label={"0": "LABEL_0"},
        label2id={"LABEL_0": 0},
        _attn_implementation_autoset=True,
        transformers_version="4.0.1",
    )
    change(copy / "scheduler" / "scheduler_config.json", solver_type="midpoint", skip_prk_steps=True)
    token = {"__type": "AddedToken", "content": "<|endoftext|>", "lstrip": False, "normalized": True}
    change(copy / "tokenizer" / "tokenizer_config.json", unk_token=token, special_tokens_map_file="./a.json")
    assert load_base(copy).unet.config.cross_attention_dim == load_base(base).unet.config.cross_attention_dim


# Cards


@pytest.fixture(scope="module")
def refiner(base, tmp_path_factory):
    return tiny_refiner(tmp_path_factory.mktemp("refiner"), base, ("ant", "bee"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(
            ({"prompt": prompt}, "the prompt of it must ")
            for prompt in ("{token.nope}", "{token[0]}", "{token:>2000000000}", "{token!r}", "{token:{metaclass}}", "{")
        ),
        *(({"prompt": prompt}, "the prompt of it must ") for prompt in ("a photo", "{token} {}", "{token} {0}")),
        ({"prompt": "{token}" * 1000}, "'prompt': expected at most 2000 characters"),
        ({"resolution": 10**9}, "'resolution': expected a whole number from 8 to 8192"),
        ({"resolution": 512.0}, "'resolution': expected a whole number"),
        ({"guidance": 10**400}, "'guidance': expected a number from 0 to 1000"),
        ({"guidance": float("nan")}, "not JSON: NaN is no number"),
        ({"guidance": -1}, "'guidance': expected a number"),
        ({"steps": 10**9}, "'steps': expected a whole number from 1 to 10000"),
        ({"steps": True}, "'steps': expected a whole number"),
        ({"strengths": []}, "'strengths': expected at least 1 items"),
        ({"strengths": [0.5, float("inf")]}, "not JSON: Infinity is no number"),
        ({"strengths": [0.5, 1.5]}, "'strengths': 1: expected a number"),
        ({"key": "../x"}, "'key': is made of letters"),
        ({"key": "tiny\n"}, "'key': is made of letters"),
        ({"metaclass": ""}, "'metaclass': expected a name"),
        ({"metaclass": "a\x1b[2J"}, "'metaclass': expected a name"),
        ({"revision": "\n"}, "'revision': expected a name"),
        ({"tokens": ["a", "bee"]}, "'tokens': 0: expected a token such as"),
        ({"tokens": ["<a>", ""]}, "'tokens': 1: expected a token such as"),
        ({"tokens": ["<a>", "<b\x00>"]}, "'tokens': 1: expected a token such as"),
        ({"tokens": ["<a b>", "<c>"]}, "'tokens': 0: expected a token such as"),
        ({"tokens": ["<a>", "<A>"]}, "a different token for each class, got 2 classes, 2 names and 1 tokens"),
        ({"tokens": ["<a>"]}, "a different token for each class"),
        ({"classes": ["ant", "ant"]}, "a different token for each class, got 2 classes, 1 names"),
        ({"classes": {"ant": 1}}, "'classes': expected a list"),
        ({"schema_version": True}, "'schema_version': expected a whole number"),
        ({"schema_version": 10**400}, "'schema_version': expected a whole number"),
        ({"files": {"unet_lora.safetensors": 3, "tokens.safetensors": "0" * 64}}, "expected a SHA-256"),
        ({"files": {"../x": "0" * 64}}, "'unet_lora.safetensors' is missing"),
        ({"files": {}}, "'unet_lora.safetensors' is missing"),
        ({"architecture": "flux"}, "'architecture': expected one of 'sd', 'sdxl'"),
        ({"training": [1]}, "'training': expected an object"),
        ({"more": 1}, "'more' is no field of it"),
    ],
)
def test_cards_that_are_none(refiner, tmp_path, settings, message):
    folder = Path(shutil.copytree(refiner, tmp_path / "copy"))
    change(folder / "refiner.json", **settings)
    with pytest.raises(DataError, match=rf"refiner\.json is no refiner's card: .*{message}.*fetch the folder again"):
        read_refiner(folder)


def nested(depth):
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text('{"schema_version": 1, "training": ' + nested(100_000) + "}"), "not JSON"),
        (lambda path: change(path, training={"a": json.loads(nested(60))}), "nested more than"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "not JSON"),
        (lambda path: path.write_text('{"schema_version": ' + "1" * 5000 + "}"), "not JSON"),
        (lambda path: os.truncate(path, 2**31), "the limit is 67108864"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "it is a named pipe"),
        (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "it is a device"),
        (lambda path: (path.unlink(), path.mkdir()), "it is a folder"),
    ],
)  # fmt: skip
def test_files_that_are_no_card(refiner, tmp_path, make, message):
    folder = Path(shutil.copytree(refiner, tmp_path / "copy"))
    make(folder / "refiner.json")
    with pytest.raises(DataError, match=rf"refiner\.json.*{message}"):
        read_refiner(folder)


@pytest.mark.parametrize("name", ["unet_lora.safetensors", "tokens.safetensors"])
def test_tensors_of_no_refiner_are_not_even_summed(refiner, tmp_path, name):
    folder = Path(shutil.copytree(refiner, tmp_path / "copy"))
    os.truncate(folder / name, 2**42)
    with pytest.raises(DataError, match="too many for a refiner"):
        read_refiner(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(DataError, match="it is a named pipe"):
        read_refiner(folder)


WORDS = st.text(max_size=12) | st.sampled_from(
    ["{token}", "{token!r:>9}", "{token.a[0]} {token}", "{{{token}}}", "<a>"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(field=st.integers(0, 14), value=JSON)
def test_no_card_does_harm(refiner, tmp_path, field, value):
    """Whatever stands in one field: a prompt with the token in it, or one line."""
    folder = tmp_path / "copy"
    shutil.copytree(refiner, folder, dirs_exist_ok=True)
    card = json.loads((refiner / "refiner.json").read_text())
    (folder / "refiner.json").write_text(json.dumps(card | {sorted(card)[field]: value}))
    try:
        card = read_refiner(folder)
    except DataError as error:
        assert str(error).isprintable()  # noqa: PT017
    else:
        assert card.token("ant") in card.prompt_for("ant")
        assert len(card.prompt_for(1)) < 20_000


@pytest.mark.parametrize("name", ["../aviary", "aviary/unet", "", ".", "aviary/"])
def test_embedded_bases_lie_in_the_package(name):
    with pytest.raises(DataError, match="there is no embedded base"):
        load_base(f"embedded:{name}")


def test_a_row_of_thousands_of_digits_is_no_row(tmp_path):
    save_file({"clip_l": torch.ones(2, 4)}, tmp_path / "a.safetensors")
    with pytest.raises(InvalidInputError, match="holds 2 rows, <s0> to <s1>"):
        read_embedding(tmp_path / "a.safetensors", token=f"<s{'9' * 5000}>")
