"""What refiners are made of on disk: the registry's rows, refiner folders, base models, LoRA and embedding files."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tiny_diffusion import tiny_base, tiny_refiner

from sgdmix_albu.errors import DataError, InvalidInputError, SGDMixError, UnknownNameError
from sgdmix_albu.pretrained.hub import fetch
from sgdmix_albu.refine import RefinerSpec, get_refiner, get_spec, list_refiners, read_refiner, register_refiner
from sgdmix_albu.refine.catalogue import REFINERS, refiners_table
from sgdmix_albu.refine.components import base_folder, load_base
from sgdmix_albu.refine.folder import find_weights
from sgdmix_albu.refine.lora import apply_lora
from sgdmix_albu.refine.tokens import add_tokens, read_embedding

KEYS = {
    "aircraft": "aircraft",
    "aviary": "bird",
    "cars": "car",
    "cub": "bird",
    "cub-lt": "bird",
    "dogs": "dog",
    "flowers": "flower",
    "pets": "pet",
    "waterbirds": "bird",
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    return {
        kind: tiny_base(root / kind, architecture=kind, width=32 if kind == "sd" else 48) for kind in ("sd", "sdxl")
    }


@pytest.fixture(scope="module")
def refiner(bases, tmp_path_factory):
    return tiny_refiner(tmp_path_factory.mktemp("refiner"), bases["sd"], ("ant", "bee"))


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


# The registry


def test_the_rows():
    assert set(KEYS) <= set(list_refiners())
    for key, metaclass in KEYS.items():
        spec = get_spec(key)
        assert (spec.key, spec.metaclass) == (key, metaclass)
        assert spec.prompt.format(token="<t>", metaclass=metaclass) == f"a photo of a <t> {metaclass}"
        assert spec.strengths == (0.3, 0.5, 0.7, 0.9)  # the paper's
    assert get_spec("cub").recipe.rank == 10  # Diff-Mix
    assert get_spec("cub").recipe.learning_rate == 5e-5
    assert get_spec("cub").resolution == 512
    assert len(get_spec("cub").revision) == 40


def test_the_table_needs_nothing_heavy(tmp_path):
    code = (
        "import sys; from sgdmix_albu.refine import list_refiners, refiners_table; list_refiners();"
        "print(refiners_table());"
        "assert not {'torch', 'diffusers', 'transformers', 'peft', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["key", "metaclass", "pixels", "base", "weights"]
    (row,) = [line for line in lines if line.startswith("cub ")]
    assert re.search(r" sgdmix finetune DATA /\S+/cub --key cub$", row)
    (row,) = [line for line in lines if line.startswith("aviary ")]
    assert re.search(r" sgdmix finetune --dataset aviary /\S+/aviary$", row)


def test_the_table_shows_weights_that_are_there(monkeypatch, tmp_path, refiner):
    monkeypatch.setenv("SGDMIX_CACHE", str(tmp_path))
    shutil.copytree(refiner, tmp_path / "refiners" / "cub")
    row = next(line for line in refiners_table().splitlines() if line.startswith("cub "))
    assert row.endswith(str(tmp_path / "refiners" / "cub"))
    assert find_weights(get_spec("cub")) == tmp_path / "refiners" / "cub"


def test_rows_of_other_packages(monkeypatch):
    monkeypatch.setattr(REFINERS, "_rows", dict(REFINERS._rows))  # the rows added here leave with the test
    register_refiner("row-by-name", "sgdmix_albu.refine.catalogue:_SD15")
    with pytest.raises(InvalidInputError, match="must lead to a RefinerSpec, got str"):
        get_spec("row-by-name")
    with pytest.raises(InvalidInputError, match="registered already"):
        register_refiner("cub", get_spec("cub"))
    with pytest.raises(InvalidInputError, match="RefinerSpec or 'module:SPEC'"):
        register_refiner("number", 3)
    with pytest.raises(UnknownNameError, match="did you mean 'cars'"):
        get_spec("carss")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "no/slash"}, "letters, digits"),
        ({"key": "a", "prompt": "a photo"}, "token"),
        ({"key": "a", "prompt": "a {style} {token}"}, "nothing else in braces, got 'a {style} {token}'"),
        ({"key": "a", "prompt": "a {token} {}"}, "nothing else in braces"),
        ({"key": "a", "prompt": "a {token.real} {token}"}, "nothing else in braces"),
        ({"key": "a", "prompt": "a {token:>9}"}, "nothing else in braces"),
        ({"key": "a", "prompt": "a {token!r}"}, "nothing else in braces"),
        ({"key": "a", "prompt": "a { {token}"}, "must be text with {token} and {metaclass}"),
        ({"key": "a", "prompt": "a {token} }"}, "must be text with {token} and {metaclass}"),
        ({"key": "a", "prompt": None}, "must be text with {token} and {metaclass}, got None"),
        ({"key": "a", "strengths": (0.0,)}, "strengths"),
        ({"key": "a", "strengths": ()}, "strengths"),
        ({"key": "a", "steps": 0}, "steps: expected a whole number from 1"),
        ({"key": "a", "steps": 10**9}, "steps: expected a whole number"),
        ({"key": "a", "steps": True}, "steps: expected a whole number"),
        ({"key": "a", "resolution": 10**9}, "resolution: expected a whole number"),
        ({"key": "a", "guidance": float("nan")}, "guidance: expected a number"),
        ({"key": "a", "guidance": 10**400}, "guidance: expected a number"),
        ({"key": "a", "strengths": (float("nan"),)}, "strengths: 0: expected a number"),
        ({"key": "a", "metaclass": " "}, "metaclass: expected a name"),
        ({"key": "a\n"}, "letters, digits"),
        ({"key": "a" * 101}, "at most 100 characters"),
        ({"key": 3}, "expected a string"),
    ],
)
def test_rows_that_mean_nothing(options, message):
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        RefinerSpec(**{"metaclass": "x", **options})


def test_doubled_braces_are_text():
    spec = RefinerSpec("a", "x", prompt="{{{token}}} {metaclass}")
    assert get_refiner_of(spec).prompt_for("ant") == "{ant} x"


def get_refiner_of(spec):
    register_refiner(spec.key, spec)
    return get_refiner(spec.key, finetuned=False)


def test_labels_beyond_the_names_are_refused():
    refiner = get_refiner("aviary", finetuned=False, class_names=["ant", "bee"])
    assert refiner.prompt_for(1) == "a photo of a bee bird"
    for label in (2, 5, -1):
        with pytest.raises(UnknownNameError, match=f"given 2 class names, labels 0 to 1; got label {label}"):
            refiner.prompt_for(label)


# Refiner folders


def test_a_card_knows_its_classes(refiner):
    card = read_refiner(refiner)
    assert [card.token("ant"), card.token(1)] == ["<tiny-000>", "<tiny-001>"]
    assert card.prompt_for("bee") == "<tiny-001> x"
    with pytest.raises(UnknownNameError, match="did you mean 'ant'"):
        card.token("aunt")
    with pytest.raises(UnknownNameError, match="labels 0 to 1"):
        card.token(-1)


@pytest.mark.parametrize("name", ["unet_lora.safetensors", "tokens.safetensors"])
def test_a_changed_or_missing_file_is_found(refiner, tmp_path, name):
    copy = Path(shutil.copytree(refiner, tmp_path / "copy"))
    content = bytearray((copy / name).read_bytes())
    content[-1] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} was changed after it was written"):
        read_refiner(copy)
    (copy / name).unlink()
    with pytest.raises(DataError, match=f"cannot read .*{name}"):
        read_refiner(copy)


def test_a_later_schema_says_upgrade(refiner, tmp_path):
    copy = Path(shutil.copytree(refiner, tmp_path / "copy"))
    card = json.loads((copy / "refiner.json").read_text())
    (copy / "refiner.json").write_text(json.dumps(card | {"schema_version": 2}))
    with pytest.raises(DataError, match="pip install --upgrade sgdmix-albu"):
        read_refiner(copy)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_no_card_does_more_than_a_data_error(refiner, tmp_path, data):
    """Whatever stands in one field, or in the whole file: read, or refused in one line."""
    path = tmp_path / "refiner.json"
    card = json.loads((refiner / "refiner.json").read_text())
    if data.draw(st.booleans()):
        name = data.draw(st.sampled_from(sorted(card)))
        path.write_text(json.dumps(card | {name: data.draw(JSON)}))
    else:
        path.write_bytes(data.draw(st.binary(max_size=60)))
    for name in card["files"]:
        shutil.copyfile(refiner / name, tmp_path / name)
    with contextlib.suppress(DataError):
        read_refiner(tmp_path)


# Base models


def test_the_embedded_base():
    base = load_base("embedded:aviary")
    assert (base.architecture, base.factor, base.multiple) == ("sd", 4, 16)
    size = sum(path.stat().st_size for path in base.folder.rglob("*.safetensors"))
    assert size <= 20e6
    assert (base.folder / "README.md").is_file()
    with pytest.raises(DataError, match="no embedded base 'embedded:zoo'"):
        base_folder("embedded:zoo")


def test_a_base_that_was_used_and_saved_again_is_read(tmp_path):
    """transformers writes how it padded, once a tokenizer has padded."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(base_folder("embedded:aviary"), local_files_only=True)
    pipeline.tokenizer(["a bird"], padding="max_length", truncation=True)
    pipeline.save_pretrained(tmp_path)
    assert "padding_side" in json.loads((tmp_path / "tokenizer" / "tokenizer_config.json").read_text())
    again, first = load_base(tmp_path), load_base("embedded:aviary")
    words = [found.encoders[0].tokenizer(["a red bird"], padding="max_length").input_ids for found in (again, first)]
    assert words[0] == words[1]


def test_the_embedded_text_encoder_is_named_as_every_published_one():
    """transformers 4 needs the prefix; without it all weights would stay random, with a warning only."""
    names = load_file(base_folder("embedded:aviary") / "text_encoder" / "model.safetensors")
    assert all(name.startswith("text_model.") for name in names)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_lack_one_are_refused(bases, tmp_path, part):
    folder = tmp_path / "base"
    shutil.copytree(bases["sd"], folder)
    (file,) = (folder / part).glob("*.safetensors")
    tensors = load_file(file)
    del tensors[sorted(tensors)[-1]]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(DataError, match=f"{part} do not fit their config.json: 1 are missing, such as"):
        load_base(folder)


def test_a_local_folder_never_touches_the_network(no_network, bases, refiner):
    for kind, folder in bases.items():
        assert load_base(folder).architecture == kind
    images = torch.zeros(1, 3, 32, 32)
    get_refiner(refiner).refine(images, classes=["ant"], strength=0.9, seeds=[0])


def test_a_hub_id_without_network_is_one_line(no_network, monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="hf download some/model --revision 0123.* --local-dir FOLDER") as caught:
        load_base("some/model", revision=COMMIT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("revision", [None, "main", COMMIT[:7]])
def test_a_hub_id_needs_a_commit(revision):
    with pytest.raises(InvalidInputError, match="40 hexadecimal digits"):
        fetch("some/model", revision, patterns=("*",))


@pytest.mark.parametrize("name", ["./nothing", "/no/where/at/all", "plain", "plain/", "a/b/c"])
def test_neither_folder_nor_hub_id(name):
    with pytest.raises(DataError, match=f"there is no folder {name!r}; expected .* To fetch one: hf ") as caught:
        base_folder(name)
    assert str(caught.value).endswith(f" --local-dir {Path(name).name}")


def test_what_looks_like_a_hub_id_may_be_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InvalidInputError, match="there is no folder 'runs/sd15'; if it is a hub id, it needs rev"):
        base_folder("runs/sd15")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file"):
        base_folder(tmp_path / "file")


@pytest.mark.parametrize("name", ["model.ckpt", "model.bin", "model.pt", "model.safetensors"])
def test_single_files_are_refused_with_the_conversion(name):
    with pytest.raises(DataError, match=r"from_single_file\('model.*save_pretrained"):
        load_base(name)


def test_pickles_are_not_opened(bases, tmp_path):
    copy = Path(shutil.copytree(bases["sd"], tmp_path / "copy"))
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(DataError, match=r"diffusion_pytorch_model\.bin is a pickle.*safe_serialization=True"):
        load_base(copy)
    weights.with_suffix(".bin").unlink()
    with pytest.raises(DataError, match="expected safetensors in .*unet"):
        load_base(copy)


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_folders_that_are_not_there_are_named(bases, tmp_path, kind):
    for part in ("unet", "vae", "scheduler", "tokenizer", "text_encoder", *["tokenizer_2"] * (kind == "sdxl")):
        copy = Path(shutil.copytree(bases[kind], tmp_path / part))
        shutil.rmtree(copy / part)
        with pytest.raises(DataError, match=f"is incomplete: its model_index.json names {part}, but there is no such"):
            load_base(copy)


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_a_folder_of_half_precision_alone_is_read(bases, tmp_path, kind):
    copy = Path(shutil.copytree(bases[kind], tmp_path / "copy"))
    for path in copy.rglob("*.safetensors"):
        path.rename(path.with_suffix(".fp16.safetensors"))
    torch.testing.assert_close(guess(load_base(copy)), guess(load_base(bases[kind])))


@pytest.mark.parametrize(("channels", "message"), [(9, "an inpainting model has 9"), (8, "InstructPix2Pix has 8")])
def test_bases_that_take_more_than_latents(tmp_path, channels, message):
    base = tiny_base(tmp_path / "base", in_channels=channels)
    with pytest.raises(DataError, match=f"takes {channels} channels .{message}., its autoencoder makes 4"):
        load_base(base)


def test_schedulers_that_cannot_take_an_image_to_an_image(bases, tmp_path):
    copy = Path(shutil.copytree(bases["sd"], tmp_path / "copy"))
    index = json.loads((copy / "model_index.json").read_text())
    for name in ("FlowMatchEulerDiscreteScheduler", "DDIMInverseScheduler", "IPNDMScheduler", "DDIM"):
        with pytest.raises(InvalidInputError, match=f"scheduler must be one of .*DDIMScheduler, .*got '{name}'"):
            get_refiner("aviary", finetuned=False, scheduler=name)
        (copy / "model_index.json").write_text(json.dumps(index | {"scheduler": ["diffusers", name]}))
        with pytest.raises(DataError, match=f"names the scheduler '{name}', which cannot"):
            load_base(copy)


def test_damaged_parts_and_other_models(bases, tmp_path):
    copy = Path(shutil.copytree(bases["sd"], tmp_path / "copy"))
    (copy / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"half")
    with pytest.raises(DataError, match="cannot load .*vae"):
        load_base(copy)
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {"unet": ["diffusers", "FluxTransformer2DModel"]}))
    with pytest.raises(DataError, match="expected Stable Diffusion 1, 2, Turbo or XL"):
        load_base(copy)
    (copy / "model_index.json").unlink()
    with pytest.raises(DataError, match=r"with model_index\.json"):
        load_base(copy)


def test_code_of_the_folders_own_is_never_run(bases, tmp_path):
    """What diffusers would import from a folder with trust_remote_code is not looked at."""
    copy = Path(shutil.copytree(bases["sd"], tmp_path / "copy"))
    (copy / "unet" / "my_unet.py").write_text("raise SystemExit('ran')")
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {"scheduler": ["my_unet", "MyScheduler"]}))
    with pytest.raises(DataError, match="scheduler 'MyScheduler'"):
        load_base(copy)


# LoRA files


def lora_of(base, folder, *, text=False):
    """A random LoRA in diffusers' format, and the UNet with it loaded the stock way."""
    components = load_base(base)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = LoraConfig(
            r=2, lora_alpha=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"], init_lora_weights=False
        )
        components.unet.add_adapter(config)
    state = {f"unet.{name}": value for name, value in get_peft_model_state_dict(components.unet).items()}
    save_file(state, folder / "diffusers.safetensors")
    return components, state


def guess(components):
    unet = components.unet
    draws = torch.Generator().manual_seed(0)
    noisy = torch.randn(1, 4, 16, 16, generator=draws)
    words = torch.randn(1, 5, unet.config.cross_attention_dim, generator=draws)
    added = {"text_embeds": torch.ones(1, 32), "time_ids": torch.ones(1, 6)}
    extra = {"added_cond_kwargs": added} if components.architecture == "sdxl" else {}
    with torch.inference_mode():
        return unet(noisy, 100, words, **extra).sample


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_diffusers_and_kohya_files_do_the_same(bases, tmp_path, kind):
    stock, state = lora_of(bases[kind], tmp_path)
    kohya = {}
    for name, value in state.items():
        module, _, side = name.removeprefix("unet.").removesuffix(".weight").rpartition(".lora_")
        key = "lora_unet_" + module.replace(".", "_")
        kohya[f"{key}.lora_{'down' if side == 'A' else 'up'}.weight"] = value
        kohya[f"{key}.alpha"] = torch.tensor(2.0)
    save_file(kohya, tmp_path / "kohya.safetensors")
    save_file({name.removeprefix("unet."): value for name, value in state.items()}, tmp_path / "bare.safetensors")
    plain, expected = guess(load_base(bases[kind])), guess(stock)
    assert (plain - expected).abs().max() > 0.01
    for name in ("diffusers", "kohya", "bare"):
        ours = load_base(bases[kind])
        assert apply_lora(ours, tmp_path / f"{name}.safetensors") == len(state) // 2
        torch.testing.assert_close(guess(ours), expected, atol=1e-5, rtol=0)


def test_kohyas_alpha_is_half_of_it(bases, tmp_path):
    """alpha / rank scales a LoRA: W + alpha / rank * B A, from the paper's equation."""
    components = load_base(bases["sd"])
    module = components.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q
    before = module.weight.clone()
    down, up = torch.randn(4, before.shape[1]), torch.randn(before.shape[0], 4)
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    save_file(
        {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(2.0)},
        tmp_path / "one.safetensors",
    )
    assert apply_lora(components, tmp_path / "one.safetensors") == 1
    after = components.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q.weight
    torch.testing.assert_close(after, before + 0.5 * up @ down, atol=1e-5, rtol=1e-5)


def test_scale(bases, tmp_path):
    lora_of(bases["sd"], tmp_path)
    half, twice = load_base(bases["sd"]), load_base(bases["sd"])
    apply_lora(half, tmp_path / "diffusers.safetensors", scale=0.5)
    apply_lora(half, tmp_path / "diffusers.safetensors", scale=0.5)
    apply_lora(twice, tmp_path / "diffusers.safetensors")
    torch.testing.assert_close(guess(half), guess(twice), atol=1e-5, rtol=0)


def test_a_lora_for_another_base(bases, tmp_path):
    lora_of(bases["sd"], tmp_path)
    with pytest.raises(DataError, match="text width 32.*text width 96.*pass base="):
        apply_lora(load_base(bases["sdxl"]), tmp_path / "diffusers.safetensors")


@pytest.mark.parametrize(
    "names",
    [
        ["unet.nowhere.to_q.lora_A.weight", "unet.nowhere.to_q.lora_B.weight"],
        ["something.else"],
        ["lora_unet_nowhere_to_q.lora_down.weight", "lora_unet_nowhere_to_q.lora_up.weight"],
    ],
)
def test_a_lora_of_which_no_layer_applies(bases, tmp_path, names):
    save_file({name: torch.ones(2, 2) for name in names}, tmp_path / "no.safetensors")
    with pytest.raises(DataError, match=r"no\.safetensors"):
        apply_lora(load_base(bases["sd"]), tmp_path / "no.safetensors")


@pytest.mark.parametrize("name", ["lora.bin", "lora.pt", "lora.ckpt"])
def test_pickled_loras_are_refused(bases, tmp_path, name):
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch /tmp/ran'\ntR.")
    with pytest.raises(DataError, match=r"pickles.*save_file.*\.safetensors"):
        apply_lora(load_base(bases["sd"]), tmp_path / name)
    assert not Path("/tmp/ran").exists()


# Tokens and embeddings


def test_new_tokens_are_words_with_these_embeddings(bases):
    components = load_base(bases["sdxl"])
    vectors = {encoder.name: torch.randn(2, 48) for encoder in components.encoders}
    old = [encoder.model.get_input_embeddings().weight.clone() for encoder in components.encoders]
    add_tokens(components, ["<x-000>", "<x-001>"], vectors)
    for encoder, before in zip(components.encoders, old, strict=True):
        ids = encoder.tokenizer("<x-001> <x-000>", add_special_tokens=False).input_ids
        table = encoder.model.get_input_embeddings().weight
        assert torch.equal(table[ids], vectors[encoder.name].flip(0))
        assert torch.equal(table[: len(before)], before)


def test_tokens_that_do_not_fit(bases):
    components = load_base(bases["sd"])
    with pytest.raises(DataError, match=r"expected 1 embeddings of width 32.*another base"):
        add_tokens(components, ["<a>"], {"text_encoder": torch.ones(1, 31)})
    with pytest.raises(DataError, match="another kind"):
        add_tokens(components, ["<a>"], {"text_encoder_2": torch.ones(1, 32)})
    add_tokens(components, ["<a>"], {"text_encoder": torch.ones(1, 32)})
    with pytest.raises(DataError, match="knows '<a>' already"):
        add_tokens(components, ["<b>", "<a>"], {"text_encoder": torch.ones(2, 32)})


def test_embeddings_that_users_have(tmp_path):
    one, two, big = torch.randn(1, 32), torch.randn(3, 32), torch.randn(3, 64)
    save_file({"emb_params": two}, tmp_path / "a1111.safetensors")
    save_file({"clip_l": two, "clip_g": big}, tmp_path / "a1111-xl.safetensors")
    save_file({"<moth>": one[0]}, tmp_path / "diffusers.safetensors")
    save_file({"<moth>": one, "<fly>": two}, tmp_path / "several.safetensors")
    assert torch.equal(read_embedding(tmp_path / "a1111.safetensors")["text_encoder"], two)
    found = read_embedding(tmp_path / "a1111-xl.safetensors")
    assert torch.equal(found["text_encoder"], two)
    assert torch.equal(found["text_encoder_2"], big)
    assert torch.equal(read_embedding(tmp_path / "diffusers.safetensors")["text_encoder"], one)
    assert torch.equal(read_embedding(tmp_path / "several.safetensors", token="<fly>")["text_encoder"], two)
    with pytest.raises(InvalidInputError, match="2 tokens, <fly>, <moth>"):
        read_embedding(tmp_path / "several.safetensors")
    with pytest.raises(DataError, match="no token '<bee>'"):
        read_embedding(tmp_path / "several.safetensors", token="<bee>")
    (tmp_path / "old.pt").write_bytes(b"")
    with pytest.raises(DataError, match="pickles"):
        read_embedding(tmp_path / "old.pt")
    save_file({"x": torch.ones(2, 2, 2)}, tmp_path / "cube.safetensors")
    with pytest.raises(DataError, match="no embedding"):
        read_embedding(tmp_path / "cube.safetensors")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200))
def test_no_bytes_do_more_than_an_error(tmp_path, content):
    path = tmp_path / "any.safetensors"
    path.write_bytes(content)
    with pytest.raises(SGDMixError):
        read_embedding(path)
