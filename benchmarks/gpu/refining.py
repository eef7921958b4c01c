"""Part four: image-to-image, diffusers' stock loop at batch 1 against ours, with Stable Diffusion 1.5's networks.

Our prompts are encoded while warming up and kept from then on, as in a run over many images; the stock loop runs its
text encoder for each image. ``share_text`` says what that is.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.base import stable_diffusion_sized, tiny_autoencoder
from benchmarks.gpu.clock import timed
from benchmarks.gpu.report import Report
from benchmarks.gpu.sizes import Size
from benchmarks.gpu.watch import Watch
from sgdmix_albu.refine import RefinerSpec
from sgdmix_albu.refine.components import base_folder
from sgdmix_albu.refine.refiner import Refiner

STRENGTH, GUIDANCE, FEW = 0.5, 7.5, 4
_PROMPT = "a photo of a bird"

# Refined images, and how many came back as they were.
Loop = Callable[[Tensor], tuple[Tensor, int]]


def run(report: Report, size: Size, device: torch.device) -> None:
    """Images a second, memory and where the time goes: stock, ours at batch 1, ours by memory; then with few steps."""
    torch.backends.cudnn.benchmark = True
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        base = stable_diffusion_sized(place / "base", device, dtype) if size.big else base_folder("embedded:aviary")
        tiny = tiny_autoencoder(place / "tiny", base)
        images = torch.rand(max(size.stock, size.ours), 3, size.refined, size.refined)
        stock_images, our_images = images[: size.stock], images[: size.ours]
        for few in (False, True):
            name = f"{FEW} steps, LCM" if few else f"{size.steps} steps"
            stock = _row(
                report, f"{name}: stock loop, batch 1", _stock(base, size, device, dtype, few), stock_images, device
            )
            one = _ours(base, size, device, dtype, few, batch_size=1)
            _row(report, f"{name}: ours, batch 1", one, stock_images, device, stock)
            _row(
                report,
                f"{name}: ours, batch by memory",
                _ours(base, size, device, dtype, few),
                our_images,
                device,
                stock,
            )
        fast = _ours(base, size, device, dtype, True, tiny_vae=tiny)
        _row(report, f"{FEW} steps, LCM: ours, TAESD", fast, our_images, device, stock)


def _stock(base: Path, size: Size, device: torch.device, dtype: torch.dtype, few: bool) -> Loop:
    """Diffusers' own pipeline, an image at a time, as its documentation has it."""
    from diffusers import LCMScheduler, StableDiffusionImg2ImgPipeline

    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(base, torch_dtype=dtype, local_files_only=True).to(device)
    pipeline.set_progress_bar_config(disable=True)
    if few:
        pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    options = {"num_inference_steps": FEW if few else size.steps, "guidance_scale": 1.0 if few else GUIDANCE}

    def refine(images: Tensor) -> tuple[Tensor, int]:
        done: list[Tensor] = []
        for number, image in enumerate(images):
            own = torch.Generator().manual_seed(number)
            one = {"prompt": _PROMPT, "image": image[None], "generator": own}
            done.extend(pipeline(**one, **options, strength=STRENGTH, output_type="pt").images)
        return torch.stack(done).float().cpu(), 0

    return refine


def _ours(base: Path, size: Size, device: torch.device, dtype: torch.dtype, few: bool, **options: Any) -> Loop:
    """A :class:`Refiner` without fine-tuning, on all images at once; few steps as with an LCM-LoRA."""
    spec = RefinerSpec("speed", "bird", resolution=size.refined, base=str(base), revision=None, steps=size.steps)
    if few:
        options |= {"scheduler": "LCMScheduler", "steps": FEW, "guidance": 1.0}
    refiner = Refiner(spec, finetuned=False, device=device, dtype=dtype, **options)

    def refine(images: Tensor) -> tuple[Tensor, int]:
        done = refiner.refine(images, prompts=[_PROMPT] * len(images), strength=STRENGTH, seeds=range(len(images)))
        return done.images.float().cpu(), sum(done.broken)

    return refine


def _row(
    report: Report, name: str, refine: Loop, images: Tensor, device: torch.device, stock: float | None = None
) -> float:
    """Images a second of one way: the better of two runs after one to warm up; its networks are watched in a fourth."""
    made: list[tuple[Tensor, int]] = []

    def once() -> None:
        made[:] = [refine(images)]

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()  # of the way before: ours goes by the memory that is free
    once()
    runs = [timed(once, device) for _ in range(2)]
    rate = 1000 * len(images) / min(wall for _, wall, _ in runs)
    watch = Watch(device)
    with watch.watching():
        watched = timed(once, device)[1] / 1000
    shares = {f"share_{part}": seconds / watched for part, seconds in watch.seconds().items()}
    refined, broken = made[0]
    more: dict[str, Any] = {} if stock is None else {"x_stock": rate / stock}
    if device.type == "cuda":
        more["peak_gib"] = max(peak for _, _, peak in runs) / 1024
    more |= {**shares, "share_rest": 1 - sum(shares.values()), "broken": broken}
    report.add(name, images=len(images), images_per_s=rate, **more, finite=bool(torch.isfinite(refined).all()))
    return rate
