"""Fine-tuning: what learns, what stays, and that nothing can stop it from ending the same."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from tiny_diffusion import tiny_base

from sgdmix_albu.errors import DataError, InvalidInputError, UnknownNameError
from sgdmix_albu.io.lock import locked
from sgdmix_albu.refine import Recipe, RefinerSpec, finetune, get_refiner, get_spec, read_refiner
from sgdmix_albu.refine.components import base_folder, load_base
from sgdmix_albu.refine.finetuning.draws import draw
from sgdmix_albu.refine.finetuning.row import described, row_for
from sgdmix_albu.refine.finetuning.settings import settings_for
from sgdmix_albu.refine.finetuning.trained import Trained, initial_vectors
from sgdmix_albu.refine.sides import sides_of

RECIPE = Recipe(steps=4, batch_size=4, learning_rate=1e-3, token_learning_rate=1e-2, rank=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base") / "sd", prediction_type="v_prediction")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes of 6, 3 and 1 images: a long tail."""
    root = tmp_path_factory.mktemp("photos")
    draws = np.random.default_rng(0)
    for name, count in (("ant", 6), ("bee", 3), ("cow", 1)):
        (root / name).mkdir()
        for number in range(count):
            Image.fromarray(draws.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(root / name / f"{number}.png")
    return root


def spec(base, **options):
    shape = {"prompt": "{token} {metaclass}", "resolution": 32, "steps": 3, "recipe": RECIPE}
    return RefinerSpec("tiny", "x", base=str(base), revision=None, **shape, **options)


def tune(base, photos, out, **options):
    return finetune(photos, key=spec(base), out=out, progress=False, **({"mixed_precision": "no"} | options))


def weights(folder):
    return {name: (folder / name).read_bytes() for name in ("unet_lora.safetensors", "tokens.safetensors")}


@pytest.fixture(scope="module")
def tuned(base, photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned") / "refiner"
    tune(base, photos, out)
    return out


def test_what_is_written(tuned, base):
    card = read_refiner(tuned)
    assert card.classes == ("ant", "bee", "cow")
    assert card.tokens == ("<tiny-000>", "<tiny-001>", "<tiny-002>")
    assert (card.base, card.resolution, card.architecture) == (str(base), 32, "sd")
    assert card.training["steps"] == 4
    assert card.training["images"] == 10
    assert 0 < card.training["loss"] < 10
    assert {path.name for path in tuned.iterdir()} == {
        ".sgdmix-lock",
        ".cache",
        "logs",
        "refiner.json",
        "samples",
        "tokens.safetensors",
        "unet_lora.safetensors",
    }
    with Image.open(tuned / "samples" / "step-000004.png") as sheet:
        assert sheet.size == (4 * 128, 3 * 128)  # real, two strengths, from noise; three classes


def test_the_refiner_is_ready_to_use(tuned):
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    refined = get_refiner(tuned).refine(images, classes=["bee", "ant"], strength=0.9, seeds=[0, 1])
    assert refined.prompts == ("<tiny-001> x", "<tiny-000> x")


def test_data_of_ones_own_need_a_metaclass_and_a_base(base, photos, tmp_path, caplog):
    """No row: defaults are told before the work, and the folder carries them on."""
    from diffusers import StableDiffusionPipeline

    caplog.set_level("INFO", "sgdmix_albu")
    out = tmp_path / "r"
    finetune(photos, metaclass="Sports car", base=base, out=out, steps=1, batch_size=2, mixed_precision="no")
    stock = StableDiffusionPipeline.from_pretrained(base, local_files_only=True)
    side = stock.unet.config.sample_size * stock.vae_scale_factor
    said = caplog.text
    for line in (
        "metaclass 'Sports car', prompt 'a photo of a {token} {metaclass}'",
        f"base {base}, {side} x {side} pixels",
        "1 steps of 2 images, rank 10, learning rates 5e-05 (LoRA) and 5e-05 (tokens)",
        f"refiner to {out}",
    ):
        assert line in said
    refiner = get_refiner(out)
    assert (refiner.spec.key, refiner.spec.resolution, refiner.spec.metaclass) == ("sports-car", side, "Sports car")
    assert refiner.prompt_for("bee") == "a photo of a <sports-car-001> Sports car"


def test_what_a_row_says_and_what_the_caller_says(base, tmp_path):
    def asked(key=None, **given):
        shape = dict.fromkeys(("metaclass", "prompt", "base", "revision", "resolution")) | given
        return row_for(key, **shape)

    cub = asked("cub", metaclass="owl", prompt="{token}", base=base)
    assert (cub.key, cub.metaclass, cub.prompt, cub.base, cub.revision) == ("cub", "owl", "{token}", str(base), None)
    assert cub.resolution == get_spec("cub").resolution
    assert asked("cub") == get_spec("cub")
    settings = settings_for(cub, {"seed": 0, **FIXED})
    for trained, told in ((1024, " (the base was trained at 1024; --resolution 1024 fits it)"), (512, ""), (None, "")):
        line = f"base {base}, 512 x 512 pixels{told}"
        assert described(cub, settings, "r", trained)[1] == line
    embedded = asked(metaclass="insect", base=base_folder("embedded:aviary"))
    assert (embedded.base, embedded.recipe) == ("embedded:aviary", get_spec("aviary").recipe)
    assert embedded.resolution == 64
    assert asked(metaclass="insect", base=base, resolution=96).resolution == 96
    with pytest.raises(InvalidInputError, match=r"expected metaclass=.*--metaclass insect.*got neither"):
        asked()
    with pytest.raises(UnknownNameError, match=r"unknown refiner 'ants'.*leave key out .*metaclass='insect'"):
        asked("ants")
    with pytest.raises(InvalidInputError, match="key must be a refiner's key or a RefinerSpec, got 3"):
        asked(3)
    with pytest.raises(InvalidInputError, match="metaclass must be a string that is not empty, got 3"):
        asked(metaclass=3)
    for local in (base, "embedded:aviary", None):
        with pytest.raises(InvalidInputError, match="revision needs a hub id as base, got base"):
            asked(metaclass="owl", base=local, revision="abc")


@pytest.mark.parametrize(("sample", "blocks", "side"), [(64, 4, 512), (128, 4, 1024), (96, 4, 768), (None, 4, None)])
def test_the_side_that_a_base_was_trained_at(base, tmp_path, sample, blocks, side):
    """Stable Diffusion 1.5, XL and 2.1: the published descriptions, and the sides in their model cards."""
    shutil.copytree(base, tmp_path / "base", ignore=shutil.ignore_patterns("*.safetensors"))
    for part, changed in (("unet", {"sample_size": sample}), ("vae", {"block_out_channels": [128] * blocks})):
        path = tmp_path / "base" / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    assert sides_of(tmp_path / "base").trained == side


def test_stock_diffusers_reads_the_lora(tuned, base):
    """The trained file in the stock pipeline gives the same UNet as in ours."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(base, local_files_only=True)
    pipeline.load_lora_weights(tuned, weight_name="unet_lora.safetensors", local_files_only=True)
    noisy, words = torch.randn(1, 4, 16, 16), torch.randn(1, 7, 32)
    with torch.inference_mode():
        theirs = pipeline.unet(noisy, 300, words).sample
        ours = get_refiner(tuned).load().components.unet(noisy, 300, words).sample
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_only_lora_and_new_rows_learn(base):
    components = load_base(base)
    encoder = components.encoders[0]
    table = encoder.model.get_input_embeddings().weight.clone()
    before = {name: value.clone() for name, value in components.unet.state_dict().items()}
    vectors = initial_vectors(components, "x", 3, noise=0.1, seed=0)
    model = Trained(components, ["<a>", "<b>", "<c>"], vectors, rank=2, seed=0)
    groups = model.groups()
    assert all("lora_" in name and ".attn" in name for name in groups["lora"])
    assert [tuple(value.shape) for value in groups["tokens"].values()] == [(3, 32)]
    optimizer = torch.optim.SGD([*groups["lora"].values(), *groups["tokens"].values()], lr=0.1)
    for _ in range(2):  # the first step moves B, which is zero, and leaves A where it is
        ids = encoder.tokenizer(["<a> x", "<b> x"], padding="max_length", max_length=24, return_tensors="pt").input_ids
        model(
            torch.randn(2, 4, 16, 16), torch.tensor([10, 500]), [ids], torch.arange(2), torch.zeros(6)
        ).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    after = {name.replace(".base_layer", ""): value for name, value in components.unet.state_dict().items()}
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    moved = model.vectors(components)["text_encoder"]
    assert not torch.equal(moved[:2], vectors["text_encoder"][:2])
    assert torch.equal(moved[2], vectors["text_encoder"][2])  # <c> was in no prompt
    embedded = encoder.model.get_input_embeddings()
    ids = torch.arange(len(table))
    with torch.inference_mode():
        assert torch.equal(embedded(ids), table)


def test_tokens_start_at_the_metaclass(base):
    components = load_base(base)
    encoder = components.encoders[0]
    ids = encoder.tokenizer("bird", add_special_tokens=False).input_ids
    mean = encoder.model.get_input_embeddings().weight[ids].mean(0)
    found = initial_vectors(components, "bird", 2000, noise=0.1, seed=0)["text_encoder"]
    torch.testing.assert_close(found.mean(0), mean, atol=0.01 * float(mean.std()), rtol=0)
    assert float((found - mean).std() / mean.std()) == pytest.approx(0.1, rel=0.02)


def test_the_loss_is_the_velocitys(base, photos, tmp_path):
    """One step of one image by hand, from the equations of DDPM and v-prediction."""
    from sgdmix_albu.refine.finetuning import trainer as module

    seen = {}
    real = module.Trainer._loss

    def spy(self, drawn):
        loss = real(self, drawn)
        seen.setdefault("first", (self, drawn, loss.detach().clone()))
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Trainer, "_loss", spy)
        tune(base, photos, tmp_path / "r", steps=1, batch_size=2)
    run, drawn, loss = seen["first"]
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)[drawn.times][:, None, None, None]
    components = load_base(base)
    images = torch.stack([run.images[int(row)] for row in drawn.rows])
    images = torch.where(drawn.mirrored[:, None, None, None], images.flip(-1), images)
    with torch.inference_mode():
        posterior = components.vae.encode(images / 127.5 - 1).latent_dist
        clean = 0.7 * (posterior.mean + posterior.std * drawn.spread)
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * drawn.noise
        wanted = kept.sqrt() * drawn.noise - (1 - kept).sqrt() * clean
        encoder = components.encoders[0]
        first = len(encoder.tokenizer)
        ids = [ids[label] for ids in run.ids for label in torch.where(drawn.dropped, 3, run.images.labels[drawn.rows])]
        encoder.tokenizer.add_tokens(list(run.tokens))
        encoder.model.resize_token_embeddings(first + 3, mean_resizing=False)
        start = initial_vectors(load_base(base), "x", 3, noise=0.1, seed=0)["text_encoder"]
        encoder.model.get_input_embeddings().weight[first:] = start
        words = encoder.model(torch.stack(ids))[0]
        guess = components.unet(noisy.float(), drawn.times, words).sample
    expected = (guess - wanted).square().mean()
    assert float(loss) == pytest.approx(float(expected), rel=2e-3)  # latents are kept in half precision


def test_killed_and_resumed_it_ends_with_the_same_bytes(base, photos, tmp_path):
    code = (
        "import sys; from sgdmix_albu.refine import finetune, Recipe, RefinerSpec\n"
        "import sgdmix_albu.refine.finetuning.trainer as trainer, os, signal\n"
        "step = trainer.Trainer._step\n"
        "def killed(self, number):\n"
        "    if number == int(sys.argv[4]): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return step(self, number)\n"
        "trainer.Trainer._step = killed\n"
        "spec = RefinerSpec('tiny', 'x', prompt='{token} {metaclass}', resolution=32, base=sys.argv[1], revision=None,"
        " steps=3, recipe=Recipe(steps=8, batch_size=4, learning_rate=1e-3, token_learning_rate=1e-2, rank=2))\n"
        "finetune(sys.argv[2], key=spec, out=sys.argv[3], progress=False, mixed_precision='no', checkpoint_every=2)\n"
    )

    def call(out, kill_at):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        arguments = [sys.executable, "-c", code, str(base), str(photos), str(out), str(kill_at)]
        return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)

    whole = call(tmp_path / "whole", -1)
    assert whole.returncode == 0, whole.stderr
    first = call(tmp_path / "cut", 5)
    assert first.returncode == -signal.SIGKILL
    assert not (tmp_path / "cut" / "refiner.json").exists()
    again = call(tmp_path / "cut", -1)
    assert again.returncode == 0, again.stderr
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    ends = [json.loads((tmp_path / name / "refiner.json").read_text())["training"]["loss"] for name in ("cut", "whole")]
    assert ends[0] == ends[1]


def test_resume_refuses_other_settings_and_other_images(base, photos, tmp_path, stopped_at):
    with stopped_at(3):
        tune(base, photos, tmp_path / "r", checkpoint_every=1)
    with pytest.raises(DataError, match=r"rank was 2, now 3.*--overwrite"):
        tune(base, photos, tmp_path / "r", rank=3)
    (tmp_path / "few").mkdir()
    for name in ("ant", "bee", "cow"):
        (tmp_path / "few" / name).symlink_to(photos / ("ant" if name == "bee" else "bee"))
    with pytest.raises(DataError, match="was started with other images and other classes"):
        tune(base, tmp_path / "few", tmp_path / "r")
    (tmp_path / "r" / "checkpoint.safetensors").write_bytes(b"half a file")
    with pytest.raises(DataError, match="cannot read"):
        tune(base, photos, tmp_path / "r")
    tune(base, photos, tmp_path / "r", rank=3, overwrite=True)
    assert read_refiner(tmp_path / "r").training["rank"] == 3


def test_accumulated_steps_are_whole_steps(base, photos, tmp_path):
    losses = [
        tune(base, photos, tmp_path / str(parts), gradient_accumulation=parts).training["loss"] for parts in (1, 2, 4)
    ]
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-4)
    one, four = (load_file(tmp_path / name / "tokens.safetensors")["text_encoder"] for name in ("1", "4"))
    torch.testing.assert_close(one, four, atol=2e-3, rtol=0)


def test_two_processes_give_one_process_loss_curve(base, photos, tmp_path):
    script = tmp_path / "tune.py"
    script.write_text(
        "import sys, json; from sgdmix_albu.refine import finetune, Recipe, RefinerSpec\n"
        "spec = RefinerSpec('tiny', 'x', prompt='{token} {metaclass}', resolution=32, base=sys.argv[1], revision=None,"
        " steps=3, recipe=Recipe(steps=6, batch_size=4, learning_rate=1e-3, token_learning_rate=1e-2, rank=2))\n"
        "finetune(sys.argv[2], key=spec, out=sys.argv[3], progress=False, mixed_precision='no')\n"
    )
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"]
    for count, how in ((1, ["--num_processes", "1"]), (2, ["--multi_gpu", "--num_processes", "2"])):
        done = subprocess.run(
            [*launch, *how, str(script), str(base), str(photos), str(tmp_path / str(count))],
            env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert read_refiner(tmp_path / str(count)).training["processes"] == count
    curves = [_losses(tmp_path / str(count) / "logs") for count in (1, 2)]
    assert len(curves[0]) == 6
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)


def _losses(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [event.value for event in events.Scalars("loss")]


@given(st.integers(0, 2**32 - 1), st.integers(0, 10_000))
def test_draws_are_the_steps_alone(seed, step):
    settings = settings_for(RefinerSpec("k", "x", recipe=RECIPE), {"seed": seed, **FIXED})
    other = dataclasses.replace(settings, seed=(seed + 1) % 2**32)
    labels = torch.tensor([0, 0, 0, 1])
    first, second = (draw(settings, step, labels, torch.Size([2, 3, 3]), 1000) for _ in range(2))
    assert all(torch.equal(getattr(first, name), getattr(second, name)) for name in vars(first))
    shape = first.noise.shape[1:]
    others = [draw(settings, step + 1, labels, shape, 1000), draw(other, step, labels, shape, 1000)]
    assert not any(torch.equal(each.noise, first.noise) for each in others)
    assert torch.equal(torch.cat([first.part(slice(0, 2)).noise, first.part(slice(2, 4)).noise]), first.noise)


FIXED = {
    "balanced": True,
    "flip": True,
    "saliency_weight": 0.0,
    "gradient_accumulation": 1,
    "gradient_checkpointing": False,
}


@pytest.mark.parametrize(("balanced", "expected"), [(True, [1 / 3] * 3), (False, [0.9, 0.09, 0.01])])
def test_classes_or_images_are_drawn_evenly(balanced, expected):
    labels = torch.tensor([1] * 9 + [0] * 90 + [2])
    recipe = Recipe(batch_size=30_000)
    settings = settings_for(RefinerSpec("k", "x", recipe=recipe), {**FIXED, "seed": 0, "balanced": balanced})
    drawn = draw(settings, 0, labels, torch.Size([1, 1, 1]), 1000)
    shares = labels[drawn.rows].bincount(minlength=3) / 30_000
    np.testing.assert_allclose(shares, expected, atol=0.01)
    assert drawn.rows[labels[drawn.rows] == 1].unique().tolist() == list(range(9))
    assert float(drawn.dropped.float().mean()) == pytest.approx(0.1, abs=0.01)


def test_saliency_weighs_the_loss(base, photos, tmp_path):
    def nowhere(images):
        return torch.zeros(len(images), 8, 8)

    def half(images):
        maps = torch.zeros(len(images), 8, 8)
        maps[:, :, :4] = 1
        return maps

    AcceleratorState._reset_state()  # other tests of this process had one
    theirs = Accelerator(mixed_precision="bf16", cpu=True)  # of another training in the same notebook
    plain = tune(base, photos, tmp_path / "plain").training["loss"]
    assert (theirs.mixed_precision, theirs.device.type) == ("bf16", "cpu")
    AcceleratorState._reset_state()
    assert tune(base, photos, tmp_path / "nowhere", saliency=nowhere).training["loss"] == pytest.approx(plain, rel=1e-5)
    assert tune(base, photos, tmp_path / "half", saliency=half).training["loss"] != pytest.approx(plain, rel=1e-5)


def test_stable_diffusion_xl(photos, tmp_path):
    folder = tiny_base(tmp_path / "sdxl", architecture="sdxl")
    card = tune(folder, photos, tmp_path / "r", steps=2, gradient_checkpointing=True, samples_every=1)
    assert card.architecture == "sdxl"
    assert set(load_file(tmp_path / "r" / "tokens.safetensors")) == {"text_encoder", "text_encoder_2"}
    images = torch.zeros(1, 3, 32, 32)
    assert get_refiner(tmp_path / "r").refine(images, classes=[0], strength=0.9, seeds=[0]).images.shape == images.shape
    assert len(list((tmp_path / "r" / "samples").iterdir())) == 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 0}, InvalidInputError, "steps must be a positive integer"),
        ({"learning_rate": -1.0}, InvalidInputError, "learning_rate"),
        ({"mixed_precision": "half"}, InvalidInputError, "mixed_precision"),
        pytest.param(
            {"mixed_precision": "fp16"},
            InvalidInputError,
            "needs a GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        ({"gradient_accumulation": 3}, InvalidInputError, "batch_size must be a multiple"),
        ({"resolution": 30}, InvalidInputError, "multiple of 4"),
        ({"seed": -1}, InvalidInputError, "seed"),
        ({"checkpoint_every": 0}, InvalidInputError, "checkpoint_every"),
    ],
)
def test_settings_that_mean_nothing(base, photos, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        tune(base, photos, tmp_path / "r", **options)
    assert not (tmp_path / "r" / "refiner.json").exists()


def test_two_at_once(base, photos, tmp_path):
    with (
        locked(tmp_path / "r", "sgdmix finetune"),
        pytest.raises(DataError, match=r"another sgdmix .* sgdmix finetune"),
    ):
        tune(base, photos, tmp_path / "r")
    assert not (tmp_path / "r" / "refiner.json").exists()


def test_data_that_cannot_be_used(base, tmp_path, tuned, photos):
    with pytest.raises(DataError, match="expected a folder of images"):
        tune(base, tmp_path / "nothing", tmp_path / "r")
    with pytest.raises(InvalidInputError, match="classes and targets"):
        tune(base, [1, 2], tmp_path / "r")
    with pytest.raises(DataError, match="already holds a refiner"):
        tune(base, photos, tuned)
    (tmp_path / "bad" / "a").mkdir(parents=True)
    (tmp_path / "bad" / "a" / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1\.png: not an image"):
        tune(base, tmp_path / "bad", tmp_path / "r")


def test_latents_are_encoded_once(base, photos, tmp_path, monkeypatch):
    from sgdmix_albu.refine.finetuning import latents as module

    calls = []
    real = module._encoded
    monkeypatch.setattr(module, "_encoded", lambda *arguments: calls.append(1) or real(*arguments))
    tune(base, photos, tmp_path / "r", steps=1)
    tune(base, photos, tmp_path / "r", steps=1, overwrite=True)
    assert len(calls) == 1
    cached = next((tmp_path / "r" / ".cache").iterdir())
    tensors = load_file(cached)
    assert tensors["mean"].shape == (10, 2, 4, 16, 16)
    with Image.open(photos / "ant" / "0.png") as photo:  # 48 x 40: the middle, then 32 x 32
        square = photo.resize((32, 32), Image.Resampling.BICUBIC, box=(4, 0, 44, 40))
    first = torch.from_numpy(np.array(square))
    with torch.inference_mode():
        expected = load_base(base).vae.encode(first.permute(2, 0, 1)[None] / 127.5 - 1).latent_dist.mean[0]
    torch.testing.assert_close(tensors["mean"][0, 0].float(), expected, atol=5e-3, rtol=5e-3)
