"""Textual Inversion files that hold several tokens: which one is meant can be said, and must be."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from tiny_diffusion import tiny_base

from sgdmix_albu.errors import DataError, InvalidInputError, InvalidTypeError
from sgdmix_albu.refine import RefinerSpec
from sgdmix_albu.refine.refiner import Refiner
from sgdmix_albu.refine.tokens import read_embedding

ROWS = torch.arange(4 * 32).reshape(4, 32) / 100
BIG = -ROWS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokens")
    save_file({"clip_l": ROWS, "clip_g": BIG}, root / "pivotal.safetensors")
    save_file({"text_encoders_0": ROWS, "text_encoders_1": BIG}, root / "pivotal-old.safetensors")
    save_file({"<moth>": ROWS[:1], "<fly>": ROWS[1:3]}, root / "several.safetensors")
    return root


@pytest.mark.parametrize("name", ["pivotal", "pivotal-old"])
@pytest.mark.parametrize(("token", "rows"), [(None, [0, 1, 2, 3]), ("<s0>", [0]), ("<s3>", [3]), ("<s2><s1>", [2, 1])])
def test_rows_of_a_pivotal_tuning(folder, name, token, rows):
    found = read_embedding(folder / f"{name}.safetensors", token=token)
    assert torch.equal(found["text_encoder"], ROWS[rows])
    assert torch.equal(found["text_encoder_2"], BIG[rows])


@pytest.mark.parametrize("token", ["<s4>", "<s0><s4>", "<moth>", "s1", "<s1> <s2>", "<s>", "", "<s9999999999>"])
def test_rows_that_are_not_there(folder, token):
    with pytest.raises(InvalidInputError, match=r"4 rows, <s0> to <s3>; .*got"):
        read_embedding(folder / "pivotal.safetensors", token=token)


def _refiner(base, **embeddings):
    spec = RefinerSpec("own", "x", prompt="{token} {metaclass}", resolution=32, base=str(base), revision=None)
    return Refiner(spec, finetuned=False, embeddings=embeddings)


def _taught(refiner, encoder, words):
    """The rows that the text encoder has for some tokens."""
    part = refiner.load().components.encoders[encoder]
    return part.model.get_input_embeddings().weight[part.tokenizer.convert_tokens_to_ids(words)].detach()


def test_a_refiner_is_told_which_token(folder, tmp_path):
    several = folder / "several.safetensors"
    refiner = _refiner(tiny_base(tmp_path / "sd"), moth=(several, "<moth>"), fly=(str(several), "<fly>"))
    assert torch.equal(_taught(refiner, 0, ["<own-moth>"]), ROWS[:1])
    assert torch.equal(_taught(refiner, 0, ["<own-fly>", "<own-fly>_1"]), ROWS[1:3])


def test_a_refiner_takes_concepts_of_one_pivotal_file(folder, tmp_path):
    file = folder / "pivotal.safetensors"
    base = tiny_base(tmp_path / "sdxl", architecture="sdxl")
    refiner = _refiner(base, moth=(file, "<s0><s1>"), fly=(file, "<s2><s3>"))
    assert torch.equal(_taught(refiner, 0, ["<own-moth>", "<own-moth>_1"]), ROWS[:2])
    assert torch.equal(_taught(refiner, 1, ["<own-fly>", "<own-fly>_1"]), BIG[2:])


def test_without_a_name_the_error_says_how(folder, tmp_path):
    refiner = _refiner(tiny_base(tmp_path / "sd"), moth=folder / "several.safetensors")
    with pytest.raises(InvalidInputError, match=r"2 tokens, <fly>, <moth>; .*embeddings=\{CLASS: \(FILE, TOKEN\)\}"):
        refiner.load()
    wrong = _refiner(tmp_path / "sd", moth=(folder / "several.safetensors", "<bee>"))
    with pytest.raises(DataError, match=r"no token '<bee>'; it has <fly>, <moth>"):
        wrong.load()


@pytest.mark.parametrize(
    "value", [("a.safetensors",), ("a", "<b>", "<c>"), ("a", 1), (1, "<b>"), 3, None, ["a", "<b>"]]
)
def test_what_is_no_embedding_is_said_at_once(tmp_path, value):
    with pytest.raises(InvalidTypeError, match=r"embedding of class 'moth' must be a file or \(file, token\), got"):
        _refiner(tmp_path, moth=value)


def test_embeddings_that_no_prompt_would_use_are_refused(folder, tmp_path):
    """A fine-tuned refiner has its own tokens for all of its classes."""
    spec = RefinerSpec("own", "x", prompt="{token} {metaclass}", resolution=32, base=str(tmp_path), revision=None)
    with pytest.raises(InvalidInputError, match=r"embeddings= needs finetuned=False"):
        Refiner(spec, embeddings={"moth": folder / "several.safetensors"})


def test_two_classes_never_share_a_token(folder, tmp_path):
    several = folder / "several.safetensors"
    names = {"grey moth": (several, "<moth>"), "grey_moth": (several, "<fly>"), "grey/moth": (several, "<moth>")}
    refiner = _refiner(tiny_base(tmp_path / "sd"), **names)
    assert len({refiner.prompt_for(name) for name in names}) == 3
    word = refiner.prompt_for("grey moth").removesuffix(" x")
    assert torch.equal(_taught(refiner, 0, [word]), ROWS[:1])
