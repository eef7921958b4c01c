"""The run: from a data set and a base model to a refiner folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from sgdmix_albu.arguments import check_counts
from sgdmix_albu.devices import accelerator as found_accelerator
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.io.lock import locked
from sgdmix_albu.io.outputs import check_unclaimed, local_output
from sgdmix_albu.io.places import check_apart
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.refine.catalogue import RefinerSpec
from sgdmix_albu.refine.components import base_folder
from sgdmix_albu.refine.finetuning.data import MapsOfFiles, listed
from sgdmix_albu.refine.finetuning.labelled import Labelled
from sgdmix_albu.refine.finetuning.row import described, row_for
from sgdmix_albu.refine.finetuning.settings import Settings, best_precision, settings_for
from sgdmix_albu.refine.finetuning.trainer import CACHE, CHECKPOINT, Trainer
from sgdmix_albu.refine.folder import CARD, RefinerCard
from sgdmix_albu.refine.sides import Sides, sides_of
from sgdmix_albu.registry import check_installed, import_optional

_PACKAGES = ("accelerate", "diffusers", "peft", "safetensors", "tensorboard", "transformers")


def finetune(
    data: Any,
    *,
    out: str | os.PathLike[str],
    metaclass: str | None = None,
    key: str | RefinerSpec | None = None,
    prompt: str | None = None,
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

    The paper uses Textual Inversion and a DreamBooth-style LoRA and gives no numbers; the *assumed* ones
    follow Diff-Mix (CVPR 2024), see :class:`sgdmix_albu.refine.Recipe`. The rate rises over the first
    fiftieth of the steps and falls to zero over the last quarter. If interrupted, make the same call to resume from the
    last checkpoint, on a CPU with the same bits. Under ``accelerate launch``, several processes share each batch.

    Args:
        data: A folder with one folder of images per class; or a data set of (PIL image, label): this package's,
            torchvision's, a Hugging Face ``Dataset`` with an ``Image`` and a ``ClassLabel`` column, a ``Subset`` or
            ``ConcatDataset`` of these. Unreadable images are left out; ``training["skipped"]`` of the card
            names them.
        out: The refiner's folder. Checkpoint, sample grids (``samples/``), TensorBoard logs (``logs/``) and the
            latents' cache go there too.
        metaclass: A word for what all classes are: "insect". Your own data needs only this and a base.
        key: A refiner of the registry ("cub"), or a row: its metaclass, prompt, resolution, base and recipe are the
            defaults. Not needed with ``metaclass``; other arguments override the row.
        prompt: Template with ``{token}`` and ``{metaclass}``; None for the row's, or
            "a photo of a {token} {metaclass}".
        base: The base model: a folder in diffusers' layout, a hub id or "embedded:aviary"; None for the row's, or
            Stable Diffusion 1.5 from the hub.
        revision: Commit of a hub id.
        steps: Optimiser steps; None, here and below, for the row's recipe, or the defaults of
            :class:`sgdmix_albu.refine.Recipe`.
        batch_size: Images per step, over all processes.
        learning_rate: Learning rate of the LoRA matrices.
        token_learning_rate: Learning rate of the new tokens.
        rank: Rank of the LoRA matrices.
        resolution: Side in pixels. None for the row's; without a key, for the side that the base was trained at.
        balanced: Draw classes evenly, then an image of the class; False to draw images evenly.
        flip: Train on mirror images as well.
        saliency: (B, 3, R, R) uint8 to maps (B, h, w) in [0, 1], or a saliency bank of the folder
            ``data``: the loss is weighted by these maps.
        saliency_weight: How strongly: a salient pixel weighs 1 + this.
        gradient_accumulation: Split each step into so many parts, to save memory.
        gradient_checkpointing: Recompute activations: less memory, more time.
        mixed_precision: "no", "fp16" or "bf16"; None for bf16 on CUDA or a CPU that has it, fp16 on CUDA without,
            "no" on other GPUs. The trained weights stay in single precision.
        seed: The same seed gives the same refiner.
        checkpoint_every: Steps between checkpoints; None for a tenth of the steps.
        samples_every: Steps between sample grids; None for one at the end.
        overwrite: Replace an existing refiner, and start over.
        progress: Print the settings, defaults included, and show bars.

    Returns:
        The card of the refiner written.

    Raises:
        DataError: No data, a class without a readable image, no base, an existing refiner, a checkpoint of
            another run (with the differences).
        InvalidInputError: Invalid settings.
        MissingExtraError: The packages of ``sgdmix-albu[diffusion]`` are not installed.
    """
    check_installed(*_PACKAGES, extra="diffusion")
    # What costs nothing to look at comes first: a base may have to come from the hub.
    if saliency is None and saliency_weight != 1.0:
        raise InvalidInputError(f"saliency_weight needs saliency (--saliency), got only {saliency_weight!r}")
    check_counts(checkpoint_every=checkpoint_every, samples_every=samples_every)
    root = data if isinstance(data, str | os.PathLike) else getattr(data, "root", None)
    if isinstance(root, str | os.PathLike):
        check_apart(out, root)
    folder = local_output(out)
    _check_free(folder, overwrite)
    images = listed(data)
    if images.items:  # a folder; a part of a data set may lack classes
        _check_filled(images.source)
    spec = row_for(key, metaclass=metaclass, prompt=prompt, base=base, revision=revision, resolution=resolution)
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
    settings = settings_for(spec, given, precision=best_precision())
    sides = _checked_sides(spec, settings.resolution)
    with (
        _accelerator(settings) as accelerator,
        # No other fine-tuning writes into the folder; the processes of this one share it.
        locked(folder, "sgdmix finetune") if accelerator.is_main_process else contextlib.nullcontext(),
    ):
        if accelerator.is_main_process:
            for line in described(spec, settings, out, sides.trained):
                Progress(quiet=not progress).tell(line)
        trainer = Trainer(images, spec, settings, folder, accelerator, saliency, progress=progress)
        if overwrite:
            trainer.forget()
        checkpoint_every = checkpoint_every or max(1, settings.steps // 10)
        return trainer.train(checkpoint_every=checkpoint_every, samples_every=samples_every)


def _check_free(folder: Path, overwrite: bool) -> None:
    """A refiner's folder may hold an earlier run, and nothing that is somebody else's."""
    if (folder / CARD).exists() and not overwrite:
        raise DataError(f"{folder} already holds a refiner; choose another folder, or pass --overwrite")
    known = any((folder / name).exists() for name in (CARD, CHECKPOINT, CACHE))
    check_unclaimed(folder, [] if known else [path.name for path in folder.glob("[!.]*")], "a fine-tuning")


def _check_filled(source: Labelled) -> None:
    """A class without an image would get a word that means nothing."""
    empty = sorted(set(range(len(source.classes))) - set(source.labels))
    if empty:
        raise DataError(
            f"expected images of each class, found none of {source.classes[empty[0]]!r}; remove its folder, or add some"
        )


def _checked_sides(spec: RefinerSpec, resolution: int) -> Sides:
    folder = base_folder(spec.base, spec.revision)
    sides = sides_of(folder)
    if resolution % sides.multiple:
        raise InvalidInputError(
            f"resolution must be a multiple of {sides.multiple} for the base {folder}, got {resolution}"
        )
    return sides


@contextlib.contextmanager
def _accelerator(settings: Settings) -> Iterator[Any]:
    accelerate = import_optional("accelerate", extra="diffusion")
    kind = found_accelerator()
    if settings.mixed_precision == "fp16" and kind not in ("cuda", "xpu"):
        raise InvalidInputError("mixed_precision='fp16' needs a GPU of NVIDIA, AMD or Intel; pass 'bf16' or 'no'")
    with _precision_of_our_own(accelerate.state.AcceleratorState):
        accelerator = accelerate.Accelerator(mixed_precision=settings.mixed_precision, cpu=kind is None)
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


@contextlib.contextmanager
def _precision_of_our_own(state: Any) -> Iterator[None]:
    """Accelerate knows one precision per process: a caller's, of a Trainer in the same notebook, waits meanwhile."""
    theirs = dict(state._shared_state)
    state._reset_state()
    try:
        yield
    finally:
        state._reset_state()
        state._shared_state.update(theirs)
