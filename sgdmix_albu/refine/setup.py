"""A refiner's settings, and what follows from them before a model is in memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from sgdmix_albu.arguments import check_counts, check_number
from sgdmix_albu.devices import best_dtype, working_device
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.io.files import sha256_of
from sgdmix_albu.refine.catalogue import RefinerSpec
from sgdmix_albu.refine.components import base_folder, read_index
from sgdmix_albu.refine.folder import CARD, RefinerCard, find_weights, of_label, read_refiner
from sgdmix_albu.refine.schedulers import SCHEDULERS
from sgdmix_albu.refine.tokens import EmbeddingFile, embedding_file
from sgdmix_albu.registry import check_installed, nearest_names

__all__ = ["RefinerSetup"]


class RefinerSetup:
    """What a refiner works with, checked when it is made.

    Args:
        spec: The row of the registry.
        base: Base model, if not the spec's.
        revision: Commit of a hub id.
        weights: The refiner folder; None for the cache or the hub.
        finetuned: False for the base alone.
        class_names: Names of the labels, for prompts without fine-tuned tokens.
        steps: Denoising steps of strength 1; None for the spec's.
        guidance: Scale of classifier-free guidance; None for the spec's.
        scheduler: A diffusers scheduler's class name ("LCMScheduler"), one of
            :data:`sgdmix_albu.refine.schedulers.SCHEDULERS`; None for the base's.
        loras: More LoRA files, such as an LCM-LoRA's, in diffusers' or kohya's format.
        embeddings: Class name to Textual Inversion file, for classes without fine-tuned tokens. Where a file holds
            several tokens, (file, token); for the rows of a pivotal tuning (file, "<s0><s1>").
        device: Device; None for a GPU if there is one.
        dtype: Of the weights; None for half precision on GPUs of NVIDIA, AMD and Intel, single elsewhere.
        batch_size: Images at once; None to measure the free memory.
        compile: Compile the UNet (``torch.compile``): pays from some thousand images on.
        tiny_vae: Folder of a TAESD autoencoder, faster and softer.
        teacher: For ``strength="adaptive"``: a classifier, (B, 3, H, W) float in [0, 1] to logits.
        tau: The confidence that the teacher must have.
        band: Width in pixels of the fade of ``preserve="strict"``; None for a fiftieth of the shorter side.
        hole_strength: Strength in holes, in (0, 1]; 1 fills them from noise alone; None for each
            image's own.

    Raises:
        InvalidInputError: Invalid settings.
        MissingExtraError: The packages of ``sgdmix-albu[diffusion]`` are not installed.
    """

    def __init__(
        self,
        spec: RefinerSpec,
        *,
        base: str | os.PathLike[str] | None = None,
        revision: str | None = None,
        weights: str | os.PathLike[str] | None = None,
        finetuned: bool = True,
        class_names: Sequence[str] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        scheduler: str | None = None,
        loras: Sequence[str | os.PathLike[str]] = (),
        embeddings: Mapping[str, EmbeddingFile] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        batch_size: int | None = None,
        compile: bool = False,  # noqa: A002  # torch's name for it
        tiny_vae: str | os.PathLike[str] | None = None,
        teacher: Callable[[Tensor], Tensor] | None = None,
        tau: float = 0.5,
        band: int | None = None,
        hole_strength: float | None = None,
    ) -> None:
        check_installed("diffusers", "safetensors", "transformers", extra="diffusion")
        check_counts(steps=steps, batch_size=batch_size)
        if scheduler is not None and scheduler not in SCHEDULERS:
            raise InvalidInputError(
                f"scheduler must be one of {', '.join(SCHEDULERS)}, got {scheduler!r}"
                f"{nearest_names(str(scheduler), list(SCHEDULERS))}"
            )
        check_number("tau", tau, "must be a confidence in [0, 1]", low=0, high=1)
        if hole_strength is not None:
            expected = "must lie in (0, 1], or be None"
            check_number("hole_strength", hole_strength, expected, low=0, high=1, open_low=True)
        self.spec, self.finetuned = spec, finetuned
        self.base, self.revision = (spec.base, spec.revision) if base is None else (os.fspath(base), revision)
        self.weights = None if weights is None else Path(weights).expanduser()
        self.class_names = None if class_names is None else tuple(class_names)
        self.steps = spec.steps if steps is None else steps
        self.guidance = spec.guidance if guidance is None else guidance
        self.scheduler, self.loras = scheduler, tuple(loras)
        if embeddings and finetuned:
            raise InvalidInputError(
                "embeddings= needs finetuned=False: a fine-tuned refiner has its own tokens for all of its classes"
            )
        self.embeddings = {name: embedding_file(value, name) for name, value in (embeddings or {}).items()}
        self._tokens = _tokens(spec.key, self.embeddings)
        self.device = working_device(device)
        self.dtype = dtype or best_dtype(self.device)
        self.batch_size, self.compile, self.tiny_vae = batch_size, compile, tiny_vae
        self.teacher, self.tau, self.band = teacher, tau, band
        self.hole_strength = None if hole_strength is None else float(hole_strength)
        self.memory: dict[int, int] = {}  # bytes that one image takes, by its pixels, once measured
        self._lock = threading.RLock()

    @property
    def folder(self) -> Path:
        """The refiner folder, which only a fine-tuned one has."""
        return find_weights(self.spec, self.weights)

    @cached_property
    def card(self) -> RefinerCard | None:
        """What the refiner folder says of itself; None without fine-tuning. Read, and its sums checked, once."""
        return read_refiner(self.folder) if self.finetuned else None

    @property
    def sha256(self) -> str | None:
        """Of the refiner's card, which holds the sums of its files; None without fine-tuning."""
        return None if self.card is None else sha256_of(self.folder / CARD)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their labels; empty where nobody said."""
        return self.card.classes if self.card is not None else self.class_names or ()

    @property
    def embedded_tokens(self) -> dict[str, tuple[str | os.PathLike[str], str | None]]:
        """Token to Textual Inversion file and token in it, for the classes that have one of their own."""
        return {self._tokens[name]: found for name, found in self.embeddings.items()}

    def check(self, class_names: Iterable[str] = ()) -> None:
        """Refuse now what the first image would be refused for, where other work comes before it.

        Args:
            class_names: The classes that will be asked for.

        Raises:
            DataError: No base, no weights, or damaged ones.
            UnknownNameError: The refiner was not trained on a class.
        """
        read_index(base_folder(self.base, self.revision))
        for name in class_names:
            self.prompt_for(name)

    def prompt_for(self, class_: str | int) -> str:
        """The prompt of a class, by name or label.

        Raises:
            UnknownNameError: The refiner was not trained on it.
        """
        if self.card is not None:
            return self.card.prompt_for(class_)
        names = self.class_names
        if not isinstance(class_, str):
            given = f"refiner {self.spec.key!r} was given {len(names or ())} class names"
            class_ = "" if names is None else of_label(class_, names, given)
        token = self._tokens.get(class_) or _spoken(class_)
        return " ".join(self.spec.prompt.format(token=token, metaclass=self.spec.metaclass).split())


def _tokens(key: str, class_names: Iterable[str]) -> dict[str, str]:
    """A token for each class: its name as a word; numbered where "1.moth" and "2.moth" would be one word."""
    found: dict[str, str] = {}
    for name in class_names:
        word = f"{key}-{_spoken(name).replace(' ', '-').lower()}"
        token, number = f"<{word}>", 2
        while token in found.values():
            token, number = f"<{word}-{number}>", number + 1
        found[name] = token
    return found


def _spoken(name: str) -> str:
    """A class folder's name as words: "017.red_tailed_hawk" is a "red tailed hawk"."""
    return name.lstrip("0123456789.-_ ").replace("_", " ") or name
