"""CLIPSeg and SAM 3, real classes with random weights: what they answer, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import albumentations as A
import pytest
import torch
from tiny_segmenters import tiny_clipseg, tiny_sam3
from transformers import (
    AutoTokenizer,
    CLIPSegForImageSegmentation,
    Sam3ImageProcessor,
    Sam3Model,
    ViTImageProcessor,
)

from sgdmix_albu import SGDMix, albumentations
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.saliency import get_backend, normalize_maps

COMMIT = "0" * 40


@pytest.fixture(scope="module")
def clipseg(tmp_path_factory) -> Path:
    return tiny_clipseg(tmp_path_factory.mktemp("clipseg") / "clipseg")


@pytest.fixture(scope="module")
def sam3(tmp_path_factory) -> Path:
    return tiny_sam3(tmp_path_factory.mktemp("sam3") / "sam3")


@pytest.fixture
def folder(request, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(request.getfixturevalue("clipseg"), tmp_path / "copy"))


def photographs(size=(48, 48)) -> torch.Tensor:
    """Whole numbers, so that the library's own resizing of uint8 rounds nothing."""
    return torch.randint(0, 256, (3, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def edited(folder: Path, name: str, **changes: object) -> Path:
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, **changes}))
    return folder


def test_clipseg_answers_as_transformers_does(clipseg):
    images = photographs()
    pixels = ViTImageProcessor.from_pretrained(clipseg)(list(images), return_tensors="pt").pixel_values
    words = AutoTokenizer.from_pretrained(clipseg)(["bird"] * 3, return_tensors="pt")
    model = CLIPSegForImageSegmentation.from_pretrained(clipseg).eval()
    with torch.no_grad():
        expected = model(pixel_values=pixels, **words).logits.sigmoid()
    maps = get_backend("text", prompt="bird", model=clipseg).coarse(images)
    torch.testing.assert_close(maps, normalize_maps(expected), atol=1e-3, rtol=0)
    assert not torch.allclose(get_backend("text", prompt="dog", model=clipseg).coarse(images), maps, atol=1e-2)


def test_sam3_answers_as_transformers_does(sam3):
    images = photographs((56, 56))
    pixels = Sam3ImageProcessor.from_pretrained(sam3)(list(images), return_tensors="pt").pixel_values
    words = AutoTokenizer.from_pretrained(sam3)(["bird"] * 3, return_tensors="pt", padding="max_length", max_length=32)
    model = Sam3Model.from_pretrained(sam3).eval()
    with torch.no_grad():
        expected = model(pixel_values=pixels, **words).semantic_seg[:, 0].sigmoid()
    maps = get_backend("text", prompt="bird", model=sam3).coarse(images)
    torch.testing.assert_close(maps, normalize_maps(expected), atol=1e-3, rtol=0)
    assert not torch.allclose(get_backend("text", prompt="dog", model=sam3).coarse(images), maps, atol=1e-2)


def test_resizing_is_the_librarys(clipseg):
    """Down and up, and by bicubic interpolation as the folder says: to the rounding of 8 bits."""
    for size in ((96, 130), (20, 30)):
        images = photographs(size).float().div(255)
        smooth = torch.nn.functional.avg_pool2d(images, 5, 1, 2)  # noise would hide a shift by half a pixel
        processor = ViTImageProcessor.from_pretrained(clipseg)
        expected = processor(list(smooth), return_tensors="pt", do_rescale=False).pixel_values
        from sgdmix_albu.pretrained.segmenter import _read_pixels

        torch.testing.assert_close(_read_pixels(clipseg)(smooth), expected, atol=1e-3, rtol=0)


def test_sam3_is_found_in_what_follows_objects_through_films(sam3, tmp_path):
    """As facebook/sam3 is published: a detector's settings and weights beside a tracker's, which are not read."""
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(sam3, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    whole = {"model_type": "sam3_video", "detector_config": config, "tracker_config": {"auto_map": {"a": "evil.py"}}}
    (copy / "config.json").write_text(json.dumps(whole))
    weights = load_file(copy / "model.safetensors")
    renamed = {f"detector_model.{name}": value for name, value in weights.items()}
    save_file({**renamed, "tracker_neck.more": torch.ones(3)}, copy / "model.safetensors", {"format": "pt"})
    images = photographs()
    maps = [get_backend("text", prompt="bird", model=folder).coarse(images) for folder in (sam3, copy)]
    assert torch.equal(*maps)


def test_it_leaves_no_trace(clipseg):
    before = torch.get_rng_state()
    backend = get_backend("text", prompt="bird", model=clipseg)
    backend.coarse(photographs().float().div(255).requires_grad_())
    assert torch.equal(before, torch.get_rng_state())
    model = backend._segmenter._model
    assert not model.training
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())


def test_prompt_and_model_are_needed(clipseg):
    with pytest.raises(InvalidInputError, match="'text' needs prompt="):
        get_backend("text", model=clipseg)
    with pytest.raises(InvalidInputError, match="'text' needs model="):
        get_backend("text", prompt="bird")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prompt": ""}, InvalidInputError, "prompt must be a string that is not empty, got ''"),
        ({"model": 3}, InvalidInputError, "model must be a string"),
        ({"model": "CIDAS/clipseg"}, InvalidInputError, "it needs revision=, the commit's 40 hexadecimal"),
        ({"model": "CIDAS/clipseg", "revision": "main"}, InvalidInputError, "needs revision=.*got 'main'"),
        ({"model": "./nowhere"}, DataError, "no folder.*expected a folder with a CLIPSeg or SAM 3 model or a hub id"),
        ({"model": "."}, InvalidInputError, "expected model to be a folder with config.json and weights, got '.'"),
        ({"model": "sgdmix-nobody/nothing", "revision": COMMIT}, DataError, "here pass model=FOLDER"),
    ],
)
def test_settings_that_mean_nothing(clipseg, options, error, message, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        get_backend("text", **{"prompt": "bird", "model": clipseg, **options})


def test_a_prompt_that_is_too_long(clipseg, sam3, capfd):
    for folder, most in ((clipseg, 24), (sam3, 32)):
        with pytest.raises(InvalidInputError, match=f"prompt may have {most} tokens, 'bbb.* has 42"):
            get_backend("text", prompt="b" * 40, model=folder).coarse(photographs())
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "detr"}, "model_type"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "'auto_map': is not supported"),
        ({"quantization_config": {"quant_method": "x"}}, "'quantization_config': is not supported"),
        ({"attn_implementation": "someone/kernels"}, "'attn_implementation': is not supported"),
        ({"_attn_implementation": "someone/kernels"}, "'_attn_implementation': is not supported"),
        ({"text_config": {"model_type": "llama"}}, "model_type"),
        ({"vision_config": {"hidden_size": 10**9}}, "hidden_size"),
        ({"vision_config": {"hidden_size": 24_000, "num_hidden_layers": 9}}, "describes"),
    ],
)
def test_settings_of_strangers(folder, changes, message):
    edited(folder, "config.json", **changes)
    with pytest.raises(DataError, match=message):
        get_backend("text", prompt="bird", model=folder).coarse(photographs())


def test_folders_that_lack_something(folder):
    (folder / "processor_config.json").unlink()
    with pytest.raises(DataError, match=r"expected .*preprocessor_config\.json, which says how the network wants"):
        get_backend("text", prompt="bird", model=folder).coarse(photographs())
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0], "image_std": [1, 1, 1], "size": 48}')
    with pytest.raises(DataError, match=r"is a pickle.*from transformers import CLIPSegForImageSegmentation as P"):
        get_backend("text", prompt="bird", model=folder).coarse(photographs())


def test_what_a_bank_goes_by_is_what_decides(clipseg, folder, tmp_path):
    def settings(model, prompt="bird"):
        return get_backend("text", prompt=prompt, model=model).settings()

    assert settings(clipseg) == settings(folder)  # wherever it lies
    assert settings(clipseg) != settings(clipseg, "dog")
    before = settings(folder)
    edited(folder, "processor_config.json", more=1)
    assert settings(folder) != before
    assert get_backend("text", prompt="bird", model=folder).noted()["model"] == "copy"


def test_both_faces_take_its_options(clipseg):
    images = photographs()
    mixed = SGDMix("text", prompt="bird", model=clipseg, microbatch=2)(images)
    assert mixed.shape == images.shape
    settings = {"prompt": "bird", "model": str(clipseg)}
    face = albumentations.SGDMix("text", **settings, p=1)
    arrays = [image.permute(1, 2, 0).numpy() for image in images]
    call = {"image": arrays[0], "sgdmix_metadata": [{"image": other} for other in arrays[1:]]}
    found = A.Compose([face], seed=0)(**call)["image"]
    stored = json.loads(json.dumps(A.to_dict(A.Compose([face], seed=0))))
    assert {name: stored["transform"]["transforms"][0][name] for name in settings} == settings
    assert (A.from_dict(stored)(**call)["image"] == found).all()
    with pytest.raises(InvalidInputError, match="'text' has no option 'prompts'; did you mean 'prompt'"):
        SGDMix("text", prompts="bird", model=clipseg)
    with pytest.raises(InvalidInputError, match="saliency='given' takes no prompt"):
        SGDMix("given", prompt="bird")
