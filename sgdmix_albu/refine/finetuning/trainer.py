"""One fine-tuning from its first step to its last: what is loaded, the loss, and the refiner that is written."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu import __version__
from sgdmix_albu.errors import DataError
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.refine.catalogue import SHARED, RefinerSpec
from sgdmix_albu.refine.components import Components, fingerprint_of, load_base
from sgdmix_albu.refine.finetuning.checkpoint import Checkpoint
from sgdmix_albu.refine.finetuning.data import Listed, Saliency, TrainingImages
from sgdmix_albu.refine.finetuning.draws import Draws, draw
from sgdmix_albu.refine.finetuning.latents import Latents, cached_latents
from sgdmix_albu.refine.finetuning.logs import Losses, LossLog
from sgdmix_albu.refine.finetuning.samples import save_samples
from sgdmix_albu.refine.finetuning.settings import Settings
from sgdmix_albu.refine.finetuning.trained import Trained, initial_vectors
from sgdmix_albu.refine.folder import CARD, RefinerCard, class_tokens, write_refiner
from sgdmix_albu.refine.prompts import token_ids
from sgdmix_albu.registry import import_optional
from sgdmix_albu.tensors import sent

CACHE, CHECKPOINT = ".cache", "checkpoint.safetensors"
_WARM_UP, _COOL_DOWN = 0.02, 0.25  # shares of the steps


class Trainer:
    """One fine-tuning: everything loaded, and the steps."""

    def __init__(
        self,
        data: Listed,
        spec: RefinerSpec,
        settings: Settings,
        folder: Path,
        accelerator: Any,
        saliency: Saliency | None,
        *,
        progress: bool,
    ) -> None:
        self.spec, self.settings, self.folder, self.accelerator = spec, settings, folder, accelerator
        self.progress = progress and accelerator.is_main_process
        half = {"fp16": torch.float16, "bf16": torch.bfloat16} if accelerator.device.type in ("cuda", "xpu") else {}
        dtype = half.get(settings.mixed_precision, torch.float32)
        self.components = load_base(spec.base, revision=spec.revision, dtype=dtype, device=accelerator.device)
        _check_prediction(self.components)
        self.images = TrainingImages(data, settings.resolution, progress=self.progress)
        self.tokens = class_tokens(spec.key, len(self.images.classes))
        self.components.widen_vae()
        if dtype == torch.bfloat16:  # whose eight bits are too few for what all steps learn from
            self.components.vae = self.components.vae.float()
        with accelerator.main_process_first():
            cache = cached_latents(
                self.images, self.components, folder / CACHE, saliency=saliency, progress=self.progress
            )
        self.latents = Latents(cache)
        basis = _basis(self.images, self.components, spec, self.latents)  # before training changes anything
        vectors = initial_vectors(
            self.components, spec.metaclass, len(self.tokens), noise=settings.token_noise, seed=settings.seed
        )
        self.model = Trained(self.components, self.tokens, vectors, rank=settings.rank, seed=settings.seed)
        if settings.gradient_checkpointing:
            self.model.unet.enable_gradient_checkpointing()
        groups = self.model.groups()
        self.learning = groups["lora"] | groups["tokens"]
        lora, tokens = (list(groups[name].values()) for name in ("lora", "tokens"))
        optimizer = torch.optim.AdamW(
            [
                {"params": lora, "rate": settings.learning_rate},
                {"params": tokens, "rate": settings.token_learning_rate, "weight_decay": 0.0},
            ]
        )
        self.wrapped, self.optimizer = accelerator.prepare(self.model, optimizer)
        path = folder / CHECKPOINT
        self.checkpoint = Checkpoint(path, self.learning, self.optimizer, settings, basis)
        schedulers = import_optional("diffusers", extra="diffusion")
        self.schedule = schedulers.DDPMScheduler.from_config(self.components.scheduler.config)
        self.prompts = [spec.prompt.format(token=token, metaclass=spec.metaclass) for token in self.tokens]
        self.ids = [token_ids(encoder, [*self.prompts, ""]) for encoder in self.components.encoders]
        side = settings.resolution
        self.sizes = sent(torch.tensor([side, side, 0, 0, side, side]), accelerator.device)

    def forget(self) -> None:
        """Begin afresh: what an earlier run left is removed by the main process."""
        if self.accelerator.is_main_process:
            for path in (self.folder / CARD, self.checkpoint.path):
                path.unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()

    def train(self, *, checkpoint_every: int, samples_every: int | None) -> RefinerCard:
        """Do the steps that are left, then write the refiner.

        Args:
            checkpoint_every: Steps between checkpoints.
            samples_every: Steps between sample grids; None for one at the end.
        """
        known = self.checkpoint.load()
        main, begun, last = self.accelerator.is_main_process, len(known), self.settings.steps
        losses = Losses(known, LossLog(self.folder / "logs", begun) if main else None)
        with Progress(quiet=not self.progress).meter("fine-tuning", last, unit="step", begun=begun) as meter:
            for step in range(begun, last):
                losses.add(self._step(step))
                meter(loss=losses.last)
                if not main:
                    continue
                if (step + 1) % checkpoint_every == 0 and step + 1 < last:
                    self.checkpoint.save(losses.read())
                if samples_every and (step + 1) % samples_every == 0 and step + 1 < last:
                    self._sample(step + 1)
        card = self._card(losses.read())
        if main:
            self._sample(last)
            vectors = self.model.vectors(self.components)
            card = write_refiner(self.folder, card, self.model.lora(), vectors, lora_metadata={"format": "pt"})
            self.checkpoint.path.unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()
        return card

    def _step(self, step: int) -> Tensor:
        """One optimiser step; the mean loss over all processes, a number that may still be computed."""
        horizon = self.schedule.config.num_train_timesteps
        drawn = draw(self.settings, step, self.images.labels, self.latents.shape, horizon)
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
        return self.accelerator.reduce(total, "mean")  # type: ignore[no-any-return]

    def _loss(self, drawn: Draws) -> Tensor:
        device = self.accelerator.device
        found = {name: sent(value, device) for name, value in self.latents.rows(drawn.rows, drawn.mirrored).items()}
        noise, times = sent(drawn.noise, device), sent(drawn.times, device)
        clean = self.components.scaled(found["mean"] + found["deviation"] * sent(drawn.spread, device))
        labels = torch.where(drawn.dropped, len(self.tokens), self.images.labels[drawn.rows])
        noisy = self.schedule.add_noise(clean, noise, times)
        # Which prompts are the same is asked here: a GPU would be waited for.
        different, rows = torch.unique(
            torch.stack([ids[labels] for ids in self.ids], dim=1), dim=0, return_inverse=True
        )
        guess = self.wrapped(
            noisy.to(self.components.dtype),
            times,
            [sent(ids.contiguous(), device) for ids in different.unbind(1)],
            sent(rows, device),
            self.sizes,
        )
        epsilon = self.schedule.config.prediction_type == "epsilon"
        wanted = noise if epsilon else self.schedule.get_velocity(clean, noise, times)
        error = F.mse_loss(guess.float(), wanted, reduction="none").mean(1)
        if "saliency" in found:
            weight = 1 + self.settings.saliency_weight * found["saliency"]
            error = error * weight / weight.mean((1, 2), keepdim=True)
        return error.mean()

    def _sample(self, step: int) -> None:
        self.model.eval()
        path = self.folder / "samples" / f"step-{step:06d}.png"
        save_samples(path, self.components, self.spec, self.prompts, self.images, self.settings.seed)
        self.model.train()

    def _card(self, losses: list[float]) -> RefinerCard:
        recent = losses[-50:]
        return RefinerCard(
            **{name: getattr(self.spec, name) for name in SHARED},
            architecture=self.components.architecture,
            classes=self.images.classes,
            tokens=self.tokens,
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


def _check_prediction(components: Components) -> None:
    if components.scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
        raise DataError(
            f"{components.folder} predicts {components.scheduler.config.prediction_type!r}; "
            "bases that predict 'epsilon' or 'v_prediction' can be fine-tuned"
        )
