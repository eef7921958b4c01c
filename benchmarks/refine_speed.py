"""Images a second of image-to-image: the stock pipeline, one image at a time, against ours, in the same run.

On a GPU with a UNet of Stable Diffusion 1.5's size and random weights (the architecture is what counts) at 512
pixels; without one, with the embedded base at 64 pixels.

    python benchmarks/refine_speed.py [--images 16] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sgdmix_albu.refine import RefinerSpec
from sgdmix_albu.refine.components import base_folder
from sgdmix_albu.refine.refiner import Refiner

STEPS, STRENGTH, GUIDANCE = 25, 0.5, 7.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        if device.type == "cuda":
            base, side = stable_diffusion_sized(Path(folder) / "base"), 512
        else:
            base, side = base_folder("embedded:aviary"), 64
            print("no GPU: the embedded base at 64 pixels on", torch.get_num_threads(), "threads")
        compare(base, side, device, arguments.images, arguments.repeats)


def compare(base: Path, side: int, device: torch.device, count: int, repeats: int) -> None:
    images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    prompts, seeds = ["a photo of a bird"] * count, list(range(count))
    spec = RefinerSpec("speed", "bird", resolution=side, base=str(base), revision=None, steps=STEPS, guidance=GUIDANCE)
    stock = stock_pipeline(base, device)

    def one_by_one() -> None:
        for image, prompt, seed in zip(images, prompts, seeds, strict=True):
            stock(
                prompt=prompt,
                image=image[None],
                strength=STRENGTH,
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
                generator=torch.Generator().manual_seed(seed),
                output_type="pt",
            )

    ways: dict[str, Callable[[], object]] = {"stock pipeline, batch 1": one_by_one}
    for size in (1, None):
        refiner = Refiner(spec, finetuned=False, batch_size=size, device=device)
        ways[f"ours, batch {size or 'by memory'}"] = lambda refiner=refiner: refiner.refine(
            images, prompts=prompts, strength=STRENGTH, seeds=seeds
        )
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peaks = dict.fromkeys(ways, 0)
    for run in ways.values():
        run()  # warm-up
    for _ in range(repeats):  # in turns, so that a slow minute hits all alike
        for name, run in ways.items():
            seconds[name].append(timed(run, device))
            if device.type == "cuda":
                peaks[name] = max(peaks[name], torch.cuda.max_memory_allocated(device))
    first = statistics.median(next(iter(seconds.values())))
    print(f"{count} images of {side} pixels, {STEPS} steps, S = {STRENGTH}, {repeats} repeats, medians [least, most]")
    for name, times in seconds.items():
        median = statistics.median(times)
        memory = f", peak {peaks[name] / 2**30:.2f} GiB" if peaks[name] else ""
        print(
            f"{name:28} {count / median:7.2f} images/s [{count / max(times):.2f}, {count / min(times):.2f}], "
            f"{first / median:.2f} x stock{memory}"
        )
    parts(refiner, images, device)


def parts(refiner: Refiner, images: torch.Tensor, device: torch.device) -> None:
    """Where the time of one batch goes."""
    loaded, batch = refiner.load().components, images[:8].to(device, refiner.dtype)
    unet_calls = int(STEPS * STRENGTH)
    with torch.inference_mode():
        latents = loaded.vae.encode(batch).latent_dist.mean
        words = refiner.load().prompts.embed(["a photo of a bird"] * 16)[0]
        noisy = torch.cat([latents, latents])
        found = {
            "encode": timed(lambda: loaded.vae.encode(batch), device),
            "UNet": unet_calls
            * timed(lambda: loaded.unet(noisy, 500, encoder_hidden_states=words, return_dict=False), device),
            "decode": timed(lambda: loaded.vae.decode(latents), device),
        }
    total = sum(found.values())
    print("of a batch of 8:", ", ".join(f"{name} {value / total:.0%}" for name, value in found.items()))


def timed(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def stock_pipeline(base: Path, device: torch.device):  # type: ignore[no-untyped-def]
    from diffusers import StableDiffusionImg2ImgPipeline

    dtype = torch.float16 if device.type == "cuda" else torch.float32
    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(base, torch_dtype=dtype, local_files_only=True).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stable_diffusion_sized(folder: Path) -> Path:
    """UNet and autoencoder of Stable Diffusion 1.5's architecture with random weights; the embedded text encoder's."""
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

    small = StableDiffusionPipeline.from_pretrained(base_folder("embedded:aviary"), local_files_only=True)
    unet = UNet2DConditionModel(
        sample_size=64,
        cross_attention_dim=small.text_encoder.config.hidden_size,
        attention_head_dim=8,
        block_out_channels=(320, 640, 1280, 1280),
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        sample_size=512,
    )
    pipeline = StableDiffusionPipeline(
        unet=unet.half(),
        vae=vae.half(),
        text_encoder=small.text_encoder.half(),
        tokenizer=small.tokenizer,
        scheduler=small.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
