"""The denoising loop against diffusers' stock image-to-image pipelines."""

from __future__ import annotations

import diffusers
import pytest
import torch
from tiny_diffusion import tiny_base

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.refine.components import load_base
from sgdmix_albu.refine.denoise import denoise, first_step
from sgdmix_albu.refine.prompts import Prompts
from sgdmix_albu.refine.schedulers import SCHEDULERS

PROMPTS = ["a bird", "a red bird", "a cat", "b"]
SEEDS = [3, 1, 4, 159]
IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))

# Schedulers that remember nothing, a history, a position, and those that draw noise while they step.
KINDS = [
    "DDIMScheduler",
    "EulerDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "PNDMScheduler",
    "HeunDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DDPMScheduler",
    "UniPCMultistepScheduler",
    "LCMScheduler",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    return {
        "sd": tiny_base(root / "sd"),
        "v": tiny_base(root / "v", prediction_type="v_prediction", latent_channels=8),
        "sdxl": tiny_base(root / "sdxl", architecture="sdxl"),
        "lcm": tiny_base(root / "lcm", time_cond_proj_dim=10),
        "lcm-odd": tiny_base(root / "lcm-odd", time_cond_proj_dim=7),
        "lcm-sdxl": tiny_base(root / "lcm-sdxl", architecture="sdxl", time_cond_proj_dim=10),
    }


def stock(folder, architecture, scheduler, **options):
    kind = (
        diffusers.StableDiffusionXLImg2ImgPipeline
        if architecture == "sdxl"
        else diffusers.StableDiffusionImg2ImgPipeline
    )
    pipeline = kind.from_pretrained(folder, local_files_only=True)
    pipeline.scheduler = scheduler
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(output_type="pt", **options).images


def with_scheduler(components, name):
    components.scheduler = getattr(diffusers, name).from_config(components.scheduler.config)
    return components


# Every scheduler at one strength, one of each kind at others.
@pytest.mark.parametrize(
    ("name", "strength"),
    [*((name, 0.75) for name in SCHEDULERS), *((name, strength) for name in KINDS for strength in (0.3, 1.0))],
)
def test_one_strength_is_the_stock_pipeline(folders, name, strength):
    components = with_scheduler(load_base(folders["sd"]), name)
    ours = denoise(components, IMAGES, PROMPTS, strengths=[strength] * 4, seeds=SEEDS, steps=8, guidance=5.0).images
    theirs = stock(
        folders["sd"],
        "sd",
        components.scheduler,
        prompt=PROMPTS,
        image=IMAGES,
        strength=strength,
        num_inference_steps=8,
        guidance_scale=5.0,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
    )
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("base", "guidance"),
    [
        ("v", 5.0),
        ("sd", 1.0),
        ("sd", 0.0),
        ("sdxl", 5.0),
        ("sdxl", 0.0),
        # Distilled: the UNet is told the guidance.
        ("lcm", 5.0),
        ("lcm", 1.0),
        ("lcm-odd", 8.0),
        ("lcm-sdxl", 5.0),
    ],
)
def test_other_models_and_guidance(folders, base, guidance):
    components = load_base(folders[base])
    ours = denoise(components, IMAGES, PROMPTS, strengths=[0.6] * 4, seeds=SEEDS, steps=10, guidance=guidance).images
    theirs = stock(
        folders[base],
        components.architecture,
        components.scheduler,
        prompt=PROMPTS,
        # Given four channels, the stock pipeline takes them for latents; three are pixels everywhere.
        image=IMAGES,
        strength=0.6,
        num_inference_steps=10,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
    )
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_few_steps_as_sd_turbo_takes_them(folders, steps):
    components = load_base(folders["sd"])
    components.scheduler = diffusers.EulerDiscreteScheduler.from_config(
        components.scheduler.config, timestep_spacing="trailing"
    )
    ours = denoise(components, IMAGES, PROMPTS, strengths=[1.0] * 4, seeds=SEEDS, steps=steps, guidance=0.0).images
    theirs = stock(
        folders["sd"],
        "sd",
        components.scheduler,
        prompt=PROMPTS,
        image=IMAGES,
        strength=1.0,
        num_inference_steps=steps,
        guidance_scale=0.0,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
    )
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", KINDS)
def test_each_image_of_a_mixed_batch_is_what_it_is_alone(folders, name):
    components = with_scheduler(load_base(folders["sd"]), name)
    strengths = [0.9, 0.3, 0.9, 0.5]
    together = denoise(components, IMAGES, PROMPTS, strengths=strengths, seeds=SEEDS, steps=8, guidance=3.0)
    for row in range(4):
        alone = denoise(
            components,
            IMAGES[row : row + 1],
            PROMPTS[row : row + 1],
            strengths=strengths[row : row + 1],
            seeds=SEEDS[row : row + 1],
            steps=8,
            guidance=3.0,
        )
        torch.testing.assert_close(alone.images[0], together.images[row], atol=2e-5, rtol=0)
        assert alone.timesteps[0] == together.timesteps[row]


def test_timesteps_are_those_of_the_schedule(folders):
    # DDIM with 10 steps of 1000, "leading", offset 1: 901, 801, ..., 1; strength 0.5 keeps the last five.
    components = load_base(folders["sd"])
    found = denoise(
        components, IMAGES[:3], PROMPTS[:3], strengths=[0.5, 1.0, 0.05], seeds=SEEDS[:3], steps=10, guidance=1.0
    )
    assert found.timesteps == (401, 901, None)


def test_a_strength_without_a_step_is_the_autoencoder_alone(folders):
    components = load_base(folders["sd"])
    found = denoise(components, IMAGES[:1], ["a"], strengths=[0.01], seeds=[5], steps=10, guidance=5.0).images
    with torch.inference_mode():
        draw = torch.Generator().manual_seed(5)
        latents = components.vae.encode(2 * IMAGES[:1] - 1).latent_dist.sample(draw)
        expected = (components.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"])
def test_a_map_at_the_full_strength_everywhere_changes_nothing(folders, name):
    components = with_scheduler(load_base(folders["sd"]), name)
    options = {"strengths": [0.8] * 4, "seeds": SEEDS, "steps": 10, "guidance": 3.0}
    plain = denoise(components, IMAGES, PROMPTS, **options).images
    mapped = denoise(components, IMAGES, PROMPTS, strength_map=torch.full((4, 16, 16), 0.8), **options).images
    torch.testing.assert_close(mapped, plain, atol=1e-5, rtol=0)


def test_a_map_of_a_lower_strength_everywhere_is_that_strength(folders):
    # Held on the noised original until its turn, DDIM (no memory) then goes the way of the lower strength.
    components = load_base(folders["sd"])
    lower = denoise(components, IMAGES, PROMPTS, strengths=[0.4] * 4, seeds=SEEDS, steps=10, guidance=3.0).images
    held = denoise(
        components,
        IMAGES,
        PROMPTS,
        strengths=[0.9] * 4,
        seeds=SEEDS,
        steps=10,
        guidance=3.0,
        strength_map=torch.full((4, 16, 16), 0.4),
    ).images
    torch.testing.assert_close(held, lower, atol=1e-5, rtol=0)


def test_where_the_map_is_zero_only_the_autoencoder_has_been(folders):
    components = load_base(folders["sd"])
    decoded = []
    components.vae.post_quant_conv.register_forward_pre_hook(lambda _, inputs: decoded.append(inputs[0]))
    change = torch.zeros(1, 16, 16)
    change[:, :, 8:] = 0.9
    options = {"seeds": [1], "steps": 10, "guidance": 3.0}
    denoise(components, IMAGES[:1], ["a"], strengths=[0.9], strength_map=change, **options)
    denoise(components, IMAGES[:1], ["a"], strengths=[0.01], **options)
    held, still = decoded
    assert torch.equal(held[..., :8], still[..., :8])
    assert not torch.isclose(held[..., 8:], still[..., 8:]).any(dim=1).all()


@pytest.mark.parametrize("name", KINDS)
def test_a_hole_everywhere_is_drawn_from_noise_without_a_prompt(folders, name):
    components = with_scheduler(load_base(folders["sd"]), name)
    options = {"seeds": SEEDS, "steps": 6, "guidance": 3.0}
    holes = {"holes": torch.ones(4, 16, 16), "hole_strength": 1.0}
    filled = denoise(components, IMAGES, PROMPTS, strengths=[0.4] * 4, **holes, **options).images
    expected = stock(
        folders["sd"],
        "sd",
        components.scheduler,
        image=IMAGES,
        prompt=[""] * 4,
        strength=1.0,
        guidance_scale=1.0,
        num_inference_steps=6,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
    )
    torch.testing.assert_close(filled, expected, atol=2e-5, rtol=0)


def test_holes_at_the_images_own_strength_lose_the_prompt_alone(folders):
    components = load_base(folders["sd"])
    options = {"strengths": [0.9, 0.5, 0.4, 0.7], "seeds": SEEDS, "steps": 8}
    holes = torch.ones(4, 16, 16)
    filled = denoise(components, IMAGES, PROMPTS, guidance=3.0, holes=holes, **options).images
    expected = denoise(components, IMAGES, [""] * 4, guidance=1.0, **options).images
    torch.testing.assert_close(filled, expected, atol=2e-5, rtol=0)
    # A strength that lies above is not lowered.
    raised = denoise(components, IMAGES, PROMPTS, guidance=3.0, holes=holes, hole_strength=0.5, **options).images
    torch.testing.assert_close(raised[[0, 1, 3]], expected[[0, 1, 3]], atol=2e-5, rtol=0)
    assert (raised[2] - expected[2]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("folder", "guidance"), [("sd", 3.0), ("sd", 1.0), ("sdxl", 0.0), ("sdxl", 3.0), ("lcm", 3.0), ("lcm-sdxl", 3.0)]
)
def test_holes_of_other_images_change_nothing(folders, folder, guidance):
    components = load_base(folders[folder])
    options = {"steps": 10, "guidance": guidance, "hole_strength": 0.8}
    holes = torch.zeros(4, 16, 16)
    holes[1, :8], holes[3, 4:6] = 1, 0.3
    strengths = [0.29, 0.5, 1.0, 0.05]
    together = denoise(components, IMAGES, PROMPTS, strengths=strengths, seeds=SEEDS, holes=holes, **options)
    for row in range(4):
        one = slice(row, row + 1)
        alone = {"strengths": strengths[one], "seeds": SEEDS[one], **options}
        alone |= {"holes": holes[one]} if holes[row].any() else {}
        found = denoise(components, IMAGES[one], PROMPTS[one], **alone)
        torch.testing.assert_close(found.images[0], together.images[row], atol=2e-5, rtol=0)
        assert found.timesteps[0] == together.timesteps[row]
    plain = denoise(components, IMAGES, PROMPTS, strengths=strengths, seeds=SEEDS, **options)
    assert together.timesteps == plain.timesteps
    moved = (together.images - plain.images).abs().amax((1, 2, 3)) > 1e-3
    assert moved.tolist() == [False, True, False, True]


def test_where_no_hole_is_a_strength_without_a_step_leaves_the_latents_alone(folders):
    components = load_base(folders["sd"])
    decoded = []
    components.vae.post_quant_conv.register_forward_pre_hook(lambda _, inputs: decoded.append(inputs[0]))
    holes = torch.zeros(1, 16, 16)
    holes[:, :, 8:] = 1
    options = {"strengths": [0.01], "seeds": [1], "steps": 10, "guidance": 3.0, "hole_strength": 0.9}
    denoise(components, IMAGES[:1], ["a"], holes=holes, **options)
    denoise(components, IMAGES[:1], ["a"], **options)
    filled, still = decoded
    assert torch.equal(filled[..., :8], still[..., :8])
    assert not torch.isclose(filled[..., 8:], still[..., 8:]).any(dim=1).all()


@pytest.mark.parametrize(("folder", "guidance"), [("sd", 3.0), ("sd", 1.0), ("sdxl", 3.0), ("sdxl", 0.0)])
def test_the_prompt_is_followed_as_far_as_said_and_by_no_means_where_not(folders, folder, guidance):
    """One step of DDIM is linear in the guess, and the guess in how far the prompt is followed."""
    components = load_base(folders[folder])
    components.scheduler = diffusers.DDIMScheduler.from_config(components.scheduler.config, timestep_spacing="trailing")
    decoded = []
    components.vae.post_quant_conv.register_forward_pre_hook(lambda _, inputs: decoded.append(inputs[0]))
    options = {"strengths": [1.0] * 4, "seeds": SEEDS, "steps": 1, "guidance": guidance}
    off = torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(1))
    off[:, :4], off[:, 12:] = 0, 1
    for unprompted in (off, torch.zeros_like(off), torch.ones_like(off)):
        denoise(components, IMAGES, PROMPTS, unprompted=unprompted, **options)
    partly, followed, empty = decoded
    share = off[:, None]
    torch.testing.assert_close(partly, (1 - share) * followed + share * empty, atol=2e-5, rtol=0)
    assert (followed - empty).abs().mean() > 1e-3
    plain = denoise(components, IMAGES, PROMPTS, **options).images
    named = denoise(components, IMAGES, PROMPTS, unprompted=torch.zeros_like(off), **options).images
    if guidance >= 1:  # without guidance nothing is asked but the image's own prompt
        torch.testing.assert_close(named, plain, atol=2e-5, rtol=0)


def test_holes_may_follow_another_map_than_their_own(folders):
    components = load_base(folders["sd"])
    options = {"strengths": [0.4] * 4, "seeds": SEEDS, "steps": 6, "guidance": 3.0}
    holes = {"holes": torch.ones(4, 16, 16), "hole_strength": 1.0}
    filled = denoise(components, IMAGES, PROMPTS, unprompted=torch.zeros(4, 16, 16), **holes, **options).images
    expected = denoise(components, IMAGES, PROMPTS, **options | {"strengths": [1.0] * 4}).images
    torch.testing.assert_close(filled, expected, atol=2e-5, rtol=0)


def test_first_step_is_diffusers_own(folders):
    pipeline = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(folders["sd"], local_files_only=True)
    for steps in (1, 4, 25, 50):
        pipeline.scheduler.set_timesteps(steps)
        for strength in (0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
            _, left = pipeline.get_timesteps(steps, strength, "cpu")
            assert first_step(strength, steps) == steps - left


def test_prompts_are_embedded_once(folders):
    components = load_base(folders["sd"])
    calls = []
    components.encoders[0].model.register_forward_hook(lambda *_: calls.append(1))
    texts = Prompts(components)
    for _ in range(3):
        texts.embed(["a", "b", "a"])
    assert len(calls) == 2


def test_a_prompt_that_is_too_long_is_refused(folders):
    with pytest.raises(InvalidInputError, match="may have 24 tokens, this has"):
        Prompts(load_base(folders["sd"])).embed(["a long prompt of very many letters"])


def test_steps_that_the_scheduler_refuses(folders):
    with pytest.raises(InvalidInputError, match="DDIMScheduler cannot take 2000 steps"):
        denoise(load_base(folders["sd"]), IMAGES[:1], ["a"], strengths=[0.5], seeds=[0], steps=2000, guidance=1.0)
