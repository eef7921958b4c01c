"""How often refining on a GPU makes the host wait: counted on one that is not there, whose numbers are the CPU's."""

from __future__ import annotations

from dataclasses import replace

import diffusers
import pytest
import torch
from fake_gpu import back, fake_gpu, on_gpu
from tiny_diffusion import tiny_base, tiny_refiner

from sgdmix_albu.refine import get_refiner
from sgdmix_albu.refine.components import load_base
from sgdmix_albu.refine.denoise import denoise
from sgdmix_albu.refine.prompts import Prompts
from sgdmix_albu.refine.schedulers import SCHEDULERS

CLASSES = ("000.red_bird", "001.blue_bird")
BYTES = torch.randint(0, 256, (6, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
IMAGES = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SEEDS = list(range(6))
STRENGTHS = [0.9, 0.3, 0.9, 0.5, 0.04, 0.6]
MASKS = torch.zeros(6, 40, 40, dtype=torch.bool)
MASKS[:, 8:24, 8:24] = True
HOLES = torch.zeros(6, 40, 40, dtype=torch.bool)
HOLES[:2, 30:, 30:] = True
MAP = {"strength_map": torch.rand(6, 16, 16, generator=torch.Generator().manual_seed(1)) * 0.3}
HOLE = {"holes": torch.nn.functional.pad(torch.ones(6, 8, 8), (8, 0, 8, 0))}


class Loop:
    """The same base on the CPU and on the GPU, with the prompts embedded."""

    def __init__(self, folder, **settings):
        tiny_base(folder, **settings)
        self.cpu = self.load(folder, "cpu")
        with fake_gpu():
            self.gpu = self.load(folder, "cuda")

    @staticmethod
    def load(folder, device):
        components = load_base(folder, device=device)
        texts = Prompts(components)
        texts.embed(["a", "b", ""])
        return components, texts

    @staticmethod
    def run(loaded, scheduler, images, **options):
        components, texts = loaded
        components = replace(components, scheduler=scheduler.from_config(components.scheduler.config))
        return denoise(components, images, ["a", "b"] * 3, strengths=STRENGTHS, seeds=SEEDS, texts=texts, **options)

    def check(self, scheduler, options, **settings):
        expected = self.run(self.cpu, scheduler, IMAGES, **settings, **options)
        with fake_gpu() as gpu:
            there = {name: on_gpu(value) for name, value in options.items()}
            found = self.run(self.gpu, scheduler, on_gpu(IMAGES), **settings, **there)
            assert len(gpu.waits) == 1, gpu.waits
            assert found.images.device.type == "cuda"
            torch.testing.assert_close(back(found.images), expected.images, atol=2e-5, rtol=0)
        assert found.timesteps == expected.timesteps
        assert found.finite == (True,) * 6


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    return Loop(tmp_path_factory.mktemp("base") / "sd")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory):
    return Loop(tmp_path_factory.mktemp("base") / "sdxl", architecture="sdxl", time_cond_proj_dim=10)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_loop_waits_once_at_its_end(sd, name):
    sd.check(getattr(diffusers, name), MAP | HOLE, steps=4, guidance=3.0)


@pytest.mark.parametrize("steps", [3, 8])
@pytest.mark.parametrize("options", [{}, MAP, HOLE], ids=["plain", "map", "holes"])
def test_whatever_the_steps_and_the_latents_told_apart(sd, steps, options):
    sd.check(diffusers.DDIMScheduler, options, steps=steps, guidance=3.0)


def test_of_few_steps_without_guidance(sd):
    sd.check(diffusers.EulerDiscreteScheduler, {}, steps=4, guidance=0.0)


def test_of_sdxl_that_is_told_the_guidance(sdxl):
    sdxl.check(diffusers.LCMScheduler, HOLE, steps=4, guidance=3.0)


@pytest.fixture(scope="module")
def refiners(tmp_path_factory):
    """On the CPU and on the GPU."""
    folder = tiny_base(tmp_path_factory.mktemp("base") / "sd")
    folder = tiny_refiner(tmp_path_factory.mktemp("refiner"), folder, CLASSES)
    made = [
        get_refiner(folder, device=device, dtype=torch.float32, batch_size=6, hole_strength=0.8)
        for device in ("cpu", "cuda")
    ]
    with fake_gpu():
        for refiner in made:
            refiner.load().prompts.embed(["", *map(refiner.prompt_for, CLASSES)])
    return made


@pytest.mark.parametrize("there", [False, True], ids=["images on the CPU", "images on the GPU"])
@pytest.mark.parametrize("preserve", ["none", "soft", "strict"])
def test_a_call_waits_three_times(refiners, preserve, there):
    """For which images have holes, which latents do, and which numbers are finite; or for the images, to go back."""
    on_cpu, on_fake = refiners
    options = {"classes": [0, 1] * 3, "strength": torch.tensor(STRENGTHS), "seeds": SEEDS, "preserve": preserve}
    expected = on_cpu.refine(BYTES, masks=MASKS, holes=HOLES, **options)
    with fake_gpu() as gpu:
        images, masks, holes = (on_gpu(value) if there else value for value in (BYTES, MASKS, HOLES))
        found = on_fake.refine(images, masks=masks, holes=holes, **options)
        assert len(gpu.waits) == 3, gpu.waits
        assert found.images.device == images.device
        assert (back(found.images).int() - expected.images.int()).abs().max() <= 1
    assert found.timesteps == expected.timesteps


@pytest.fixture
def narrow(monkeypatch):
    """A GPU that refuses float64, as Apple's do."""
    for module in ("devices", "refine.denoise"):
        monkeypatch.setattr(f"sgdmix_albu.{module}.has_float64", lambda device: device.type == "cpu")
    with fake_gpu(float64=False):
        yield


def test_the_same_on_a_device_without_float64(refiners, narrow):
    on_cpu, on_fake = refiners
    options = {"classes": [0, 1] * 3, "strength": torch.tensor(STRENGTHS), "seeds": SEEDS, "preserve": "strict"}
    expected = on_cpu.refine(BYTES, masks=MASKS, holes=HOLES, **options)
    found = on_fake.refine(on_gpu(BYTES), masks=on_gpu(MASKS), holes=on_gpu(HOLES), **options)
    assert found.images.device.type == "cuda"
    assert (back(found.images).int() - expected.images.int()).abs().max() <= 1
    assert found.timesteps == expected.timesteps


def test_a_scheduler_whose_times_are_float64(sd, narrow):
    """The only one of them; all were tried once."""
    scheduler = diffusers.CMStochasticIterativeScheduler
    expected = sd.run(sd.cpu, scheduler, IMAGES, steps=2, guidance=1.0)
    found = sd.run(sd.gpu, scheduler, IMAGES, steps=2, guidance=1.0)
    torch.testing.assert_close(back(found.images), expected.images, atol=2e-5, rtol=0)
