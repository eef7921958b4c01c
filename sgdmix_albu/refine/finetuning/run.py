"""The run: from a data set and a base model to a refiner folder."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from sgdmix_albu import __version__
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.io.lock import locked
from sgdmix_albu.io.places import check_apart
from sgdmix_albu.refine.catalogue import RefinerSpec, get_spec
from sgdmix_albu.refine.components import Components, fingerprint_of, load_base, settled_base
from sgdmix_albu.refine.finetuning.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from sgdmix_albu.refine.finetuning.data import MapsOfFiles, TrainingImages
from sgdmix_albu.refine.finetuning.draws import Draws, draw
from sgdmix_albu.refine.finetuning.latents import Latents, cached_latents
from sgdmix_albu.refine.finetuning.logs import LossLog
from sgdmix_albu.refine.finetuning.samples import save_samples
from sgdmix_albu.refine.finetuning.settings import Settings, settings_for
from sgdmix_albu.refine.finetuning.trained import Trained, initial_vectors
from sgdmix_albu.refine.folder import CARD, RefinerCard, class_tokens, write_refiner
from sgdmix_albu.registry import import_optional

__all__ = ["finetune"]

_WARM_UP, _COOL_DOWN = 0.02, 0.25  # shares of the steps


def finetune(
    data: Any,
    *,
    key: str | RefinerSpec,
    out: str | os.PathLike[str],
    base: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    token_learning_rate: float | None = None,
    rank: int | None = None,
    resolution: int | None = None,
    balanced: bool = True,
    flip: bool = True,
    saliency: Callable[[Tensor], Tensor] | MapsOfFiles | None = None,
    saliency_weight: float = 1.0,
    gradient_accumulation: int = 1,
    gradient_checkpointing: bool = False,
    mixed_precision: str | None = None,
    seed: int = 0,
    checkpoint_every: int | None = None,
    samples_every: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> RefinerCard:
    """Fine-tune a refiner: a token for each class and LoRA on the UNet's attention, learned together.

    The specification asks for Textual Inversion and a DreamBooth-style LoRA and is silent about the rest; what is
    *assumed* follows Diff-Mix (CVPR 2024), see :class:`sgdmix_albu.refine.Recipe`. The rate rises over the first
    fiftieth of the steps and falls to nothing over the last quarter. Interrupted, the same call goes on from the last
    checkpoint, bit by bit on a CPU. Under ``accelerate launch`` several processes share each batch.

    Args:
        data: A folder with one folder of images per class; or a data set of (PIL image, label): this package's,
            torchvision's, a Hugging Face ``Dataset`` with an ``Image`` and a ``ClassLabel`` column, a ``Subset`` or
            ``ConcatDataset`` of such. Images that cannot be read are left out; ``training["skipped"]`` of the card
            names them.
        key: The registry's key, or a row of your own.
        out: The refiner's folder. Checkpoint, sample grids (``samples/``), TensorBoard logs (``logs/``) and the
            latents' cache go there too.
        base: Another base model than the row's: a folder in diffusers' layout, a hub id or "embedded:aviary".
        revision: Commit of a hub id.
        steps: Optimiser steps; None, here and below, for the row's recipe.
        batch_size: Images of one step, over all processes.
        learning_rate: Of the LoRA matrices.
        token_learning_rate: Of the new tokens.
        rank: Of the LoRA matrices.
        resolution: Side in pixels.
        balanced: Draw classes evenly, then an image of the class; False to draw images evenly.
        flip: Train on mirror images as well.
        saliency: (B, 3, R, R) uint8 to maps (B, h, w) in [0, 1], or a saliency bank that knows the files of the folder
            ``data``: where they are high the loss weighs more.
        saliency_weight: By how much: a salient pixel weighs 1 + this.
        gradient_accumulation: Parts that a step is cut into, for little memory.
        gradient_checkpointing: Forget activations and compute them again: less memory, more time.
        mixed_precision: "no", "fp16" or "bf16"; None for fp16 on a GPU and bf16 on a CPU that has it.
        seed: The same seed, the same refiner.
        checkpoint_every: Steps between checkpoints; None for a tenth of the steps.
        samples_every: Steps between sample grids; None for one at the end.
        overwrite: Replace a refiner that is there, and begin afresh.
        progress: Show bars.

    Returns:
        The card of the refiner written.

    Raises:
        DataError: No data, a class of which no image can be read, no base, a refiner in the way, a checkpoint of
            another run (it says in what they differ).
        InvalidInputError: A setting means nothing.
        MissingExtraError: The packages of ``sgdmix-albu[diffusion]`` are not installed.
    """
    spec = get_spec(key) if isinstance(key, str) else key
    if base is not None:
        spec = dataclasses.replace(spec, base=settled_base(base), revision=revision)
    spec = dataclasses.replace(spec, resolution=resolution or spec.resolution)
    given = {
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "token_learning_rate": token_learning_rate,
        "rank": rank,
        "balanced": balanced,
        "flip": flip,
        "saliency_weight": saliency_weight if saliency is not None else 0.0,
        "gradient_accumulation": gradient_accumulation,
        "gradient_checkpointing": gradient_checkpointing,
        "mixed_precision": mixed_precision,
        "seed": seed,
    }
    settings = settings_for(spec, given, on_gpu=torch.cuda.is_available())
    for name, value in (("checkpoint_every", checkpoint_every), ("samples_every", samples_every)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InvalidInputError(f"{name} must be a positive integer, got {value!r}")
    root = data if isinstance(data, str | os.PathLike) else getattr(data, "root", None)
    if isinstance(root, str | os.PathLike):
        check_apart(out, root)
    folder = Path(out).expanduser()
    if (folder / CARD).exists() and not overwrite:
        raise DataError(f"{folder} holds a refiner already; choose another folder, or pass --overwrite")
    with _accelerator(settings) as accelerator, _alone(folder, accelerator):
        run = _Run(data, spec, settings, folder, accelerator, saliency, progress=progress)
        if overwrite:
            run.forget()
        return run.train(checkpoint_every=checkpoint_every or max(1, settings.steps // 10), samples_every=samples_every)


def _alone(folder: Path, accelerator: Any) -> contextlib.AbstractContextManager[None]:
    """No other fine-tuning writes into the folder; the processes of this one share it."""
    return locked(folder, "sgdmix finetune") if accelerator.is_main_process else contextlib.nullcontext()


@contextlib.contextmanager
def _accelerator(settings: Settings) -> Iterator[Any]:
    accelerate = import_optional("accelerate", extra="diffusion")
    if settings.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise InvalidInputError("mixed_precision='fp16' needs a GPU; pass 'bf16' or 'no'")
    accelerator = accelerate.Accelerator(mixed_precision=settings.mixed_precision, cpu=not torch.cuda.is_available())
    parts = accelerator.num_processes * settings.gradient_accumulation
    if settings.batch_size % parts:
        raise InvalidInputError(
            f"batch_size must be a multiple of processes x gradient_accumulation, {accelerator.num_processes} x "
            f"{settings.gradient_accumulation}, got {settings.batch_size}"
        )
    try:
        yield accelerator
    finally:
        accelerator.free_memory()
        accelerate.state.AcceleratorState._reset_state()  # the next run may want another precision


class _Run:
    """One fine-tuning: everything loaded, and the steps."""

    def __init__(
        self,
        data: Any,
        spec: RefinerSpec,
        settings: Settings,
        folder: Path,
        accelerator: Any,
        saliency: Callable[[Tensor], Tensor] | MapsOfFiles | None,
        *,
        progress: bool,
    ) -> None:
        self.spec, self.settings, self.folder, self.accelerator = spec, settings, folder, accelerator
        self.progress = progress and accelerator.is_main_process
        self.images = TrainingImages(data, settings.resolution, progress=self.progress)
        self.tokens = class_tokens(spec.key, len(self.images.classes))
        half = {"fp16": torch.float16, "bf16": torch.bfloat16}
        on_gpu = accelerator.device.type == "cuda"
        dtype = half.get(settings.mixed_precision, torch.float32) if on_gpu else torch.float32
        self.components = load_base(spec.base, revision=spec.revision, dtype=dtype, device=accelerator.device)
        _check_resolution(self.components, settings.resolution)
        self.components.widen_vae()
        with accelerator.main_process_first():
            cache = cached_latents(
                self.images, self.components, folder / ".cache", saliency=saliency, progress=self.progress
            )
        self.latents = Latents(cache)
        self.basis = _basis(self.images, self.components, spec, self.latents)
        vectors = initial_vectors(
            self.components, spec.metaclass, len(self.tokens), noise=settings.token_noise, seed=settings.seed
        )
        self.model = Trained(self.components, self.tokens, vectors, rank=settings.rank, seed=settings.seed)
        if settings.gradient_checkpointing:
            self.model.unet.enable_gradient_checkpointing()
        groups = self.model.groups()
        self.learning = groups["lora"] | groups["tokens"]
        optimizer = torch.optim.AdamW(
            [
                {"params": list(groups["lora"].values()), "rate": settings.learning_rate},
                {
                    "params": list(groups["tokens"].values()),
                    "rate": settings.token_learning_rate,
                    "weight_decay": 0.0,
                },
            ]
        )
        self.wrapped, self.optimizer = accelerator.prepare(self.model, optimizer)
        self.schedule = import_optional("diffusers", extra="diffusion").DDPMScheduler.from_config(
            self.components.scheduler.config
        )
        self.ids = [_token_ids(encoder, [*map(self._prompt, self.tokens), ""]) for encoder in self.components.encoders]

    def forget(self) -> None:
        """Begin afresh: what an earlier run left is removed by the main process."""
        if self.accelerator.is_main_process:
            for name in (CARD, CHECKPOINT):
                (self.folder / name).unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()

    def train(self, *, checkpoint_every: int, samples_every: int | None) -> RefinerCard:
        checkpoint = self.folder / CHECKPOINT
        losses = load_checkpoint(checkpoint, self.learning, self.optimizer, self.settings, self.basis)
        main, last = self.accelerator.is_main_process, self.settings.steps
        writer = LossLog(self.folder / "logs", len(losses)) if main else None
        bar = tqdm(
            total=last, initial=len(losses), desc="fine-tuning", unit="step", disable=None if self.progress else True
        )
        for step in range(len(losses), last):
            losses.append(self._step(step))
            bar.update()
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
            if not main:
                continue
            if writer is not None:
                writer.add(losses[-1], step)
            if (step + 1) % checkpoint_every == 0 and step + 1 < last:
                save_checkpoint(checkpoint, self.learning, self.optimizer, losses, self.settings, self.basis)
            if samples_every and (step + 1) % samples_every == 0 and step + 1 < last:
                self._sample(step + 1)
        bar.close()
        card = self._card(losses)
        if main:
            self._sample(last)
            card = write_refiner(
                self.folder,
                card,
                self.model.lora(),
                self.model.vectors(self.components),
                lora_metadata={"format": "pt"},
            )
            checkpoint.unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()
        return card

    def _step(self, step: int) -> float:
        """One optimiser step; the mean loss over all processes."""
        shape = torch.Size(self.latents.rows(torch.tensor([0]), torch.tensor([False]))["mean"].shape[1:])
        drawn = draw(self.settings, step, self.images.labels, shape, self.schedule.config.num_train_timesteps)
        parts = self.settings.gradient_accumulation
        size = self.settings.batch_size // self.accelerator.num_processes // parts
        first = self.accelerator.process_index * size * parts
        total = torch.zeros((), device=self.accelerator.device)
        for part in range(parts):
            chosen = slice(first + part * size, first + (part + 1) * size)
            waiting = contextlib.nullcontext() if part == parts - 1 else self.accelerator.no_sync(self.wrapped)
            with waiting:
                loss = self._loss(drawn.part(chosen)) / parts
                self.accelerator.backward(loss)
            total += loss.detach()
        self.accelerator.clip_grad_norm_(list(self.learning.values()), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * _pace(step, self.settings.steps)
        self.optimizer.step()
        self.optimizer.zero_grad()
        mean = float(self.accelerator.reduce(total, "mean"))
        if not mean < float("inf"):
            raise DataError(f"the loss is no number any more at step {step}; pass a smaller --learning-rate")
        return mean

    def _loss(self, drawn: Draws) -> Tensor:
        device = self.accelerator.device
        found = {name: value.to(device) for name, value in self.latents.rows(drawn.rows, drawn.mirrored).items()}
        noise, times = drawn.noise.to(device), drawn.times.to(device)
        clean = self.components.scaled(found["mean"] + found["deviation"] * drawn.spread.to(device))
        labels = torch.where(drawn.dropped, len(self.tokens), self.images.labels[drawn.rows])
        noisy = self.schedule.add_noise(clean, noise, times)
        guess = self.wrapped(
            noisy.to(self.components.dtype),
            times,
            [ids[labels].to(device) for ids in self.ids],
            self.settings.resolution,
        )
        epsilon = self.schedule.config.prediction_type == "epsilon"
        wanted = noise if epsilon else self.schedule.get_velocity(clean, noise, times)
        error = F.mse_loss(guess.float(), wanted, reduction="none").mean(1)
        if "saliency" in found:
            weight = 1 + self.settings.saliency_weight * found["saliency"]
            error = error * weight / weight.mean((1, 2), keepdim=True)
        return error.mean()

    def _prompt(self, token: str) -> str:
        return self.spec.prompt.format(token=token, metaclass=self.spec.metaclass)

    def _sample(self, step: int) -> None:
        self.model.eval()
        name = f"step-{step:06d}.png"
        save_samples(
            self.folder / "samples" / name, self.components, self.spec, self.tokens, self.images, self.settings.seed
        )
        self.model.train()

    def _card(self, losses: list[float]) -> RefinerCard:
        recent = losses[-50:]
        return RefinerCard(
            key=self.spec.key,
            base=self.spec.base,
            revision=self.spec.revision,
            architecture=self.components.architecture,
            metaclass=self.spec.metaclass,
            prompt=self.spec.prompt,
            resolution=self.settings.resolution,
            classes=self.images.classes,
            tokens=self.tokens,
            strengths=self.spec.strengths,
            steps=self.spec.steps,
            guidance=self.spec.guidance,
            training={
                **dataclasses.asdict(self.settings),
                "images": len(self.images),
                "skipped": [list(one) for one in self.images.skipped],
                "loss": sum(recent) / len(recent),
                "processes": self.accelerator.num_processes,
                "sgdmix_albu": __version__,
            },
        )


def _basis(images: TrainingImages, components: Components, spec: RefinerSpec, latents: Latents) -> dict[str, str]:
    """Fingerprints of what a run's result depends on besides its settings."""
    texts = [path for path in components.folder.iterdir() if path.name.startswith(("text_encoder", "tokenizer"))]
    return {
        "images": images.pixels,
        "classes": _sum(images.classes, images.labels.tolist()),
        "saliency": latents.saliency_sum() or "none",
        "prompt or metaclass": _sum(spec.prompt, spec.metaclass),
        "UNet": fingerprint_of(components.folder / "unet"),
        "autoencoder": fingerprint_of(components.folder / "vae"),
        "scheduler": fingerprint_of(components.folder / "scheduler"),
        "text encoder": fingerprint_of(*texts),
    }


def _sum(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _pace(step: int, steps: int) -> float:
    """Share of the learning rate: a short rise, level, and down over the last quarter."""
    return min(1.0, (step + 1) / max(1, _WARM_UP * steps), (steps - step) / max(1, _COOL_DOWN * steps))


def _token_ids(encoder: Any, prompts: list[str]) -> Tensor:
    longest = encoder.tokenizer.model_max_length
    ids = encoder.tokenizer(prompts, padding="max_length", max_length=longest, return_tensors="pt").input_ids
    if ids.shape[1] > longest:
        raise InvalidInputError(f"a prompt may have {longest} tokens, {prompts[0]!r} has {ids.shape[1]}")
    return ids  # type: ignore[no-any-return]


def _check_resolution(components: Components, resolution: int) -> None:
    if resolution % components.multiple:
        raise InvalidInputError(
            f"resolution must be a multiple of {components.multiple} for the base {components.folder}, got {resolution}"
        )
    if components.scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
        raise DataError(
            f"{components.folder} predicts {components.scheduler.config.prediction_type!r}; "
            "bases that predict 'epsilon' or 'v_prediction' can be fine-tuned"
        )
