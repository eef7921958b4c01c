"""Refiners: loaded with the first image, and released on demand."""

from __future__ import annotations

import gc
import os
import shlex
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from sgdmix_albu.arguments import accepts, said
from sgdmix_albu.devices import release_memory
from sgdmix_albu.errors import DataError, InvalidInputError, UnknownNameError
from sgdmix_albu.pretrained.hub import HUB_ID, fetch
from sgdmix_albu.refine.catalogue import cache_folder, get_spec, list_refiners
from sgdmix_albu.refine.folder import CARD, LORA, TOKENS, find_weights, read_refiner
from sgdmix_albu.refine.loading import Loaded, load
from sgdmix_albu.refine.preserve import check_preserve
from sgdmix_albu.refine.setup import RefinerSetup
from sgdmix_albu.refine.strength import check_strength, strengths_for
from sgdmix_albu.refine.work import Refined, Work
from sgdmix_albu.registry import nearest_names
from sgdmix_albu.tensors import BOOL, check_images, check_tensor
from sgdmix_albu.types import MixPlan, Preserve

__all__ = ["Refined", "Refiner", "get_refiner"]

_LONGEST = 4  # times the shorter side: memory grows with the square of the area


def get_refiner(
    refiner: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    finetuned: bool = True,
    **options: Any,
) -> Refiner:
    """The refiner of a data set. Nothing heavy is imported or loaded before the first image is refined.

    Args:
        refiner: A key (see :func:`list_refiners`), a folder that :func:`finetune` wrote, or a hub id at a commit:
            ``"owner/name@COMMIT"``.
        base: Base model, if not the refiner's: a folder in diffusers' layout or a hub id.
        revision: Commit of a hub id: of ``base``, or without one of ``refiner``.
        weights: The refiner folder; None to look in the cache, then the hub.
        finetuned: False for the base alone, with class names in the prompts.
        options: As in :class:`Refiner`.

    Raises:
        UnknownNameError: No such key.
        DataError: No such folder, or no weights; the message is the command that makes them.

    Example:
        >>> import torch
        >>> refiner = get_refiner("aviary", finetuned=False)
        >>> mixed = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
        >>> done = refiner.refine(mixed, prompts=["a photo of a red bird"] * 2, strength=0.5, seeds=[1, 2])
        >>> done.images.shape, done.timesteps
        (torch.Size([2, 3, 64, 64]), (441, 441))
    """
    if not isinstance(refiner, str | os.PathLike):
        raise InvalidInputError(f"expected a refiner's key, its folder or owner/name of the Hub, got {said(refiner)}")
    name = os.fspath(refiner)
    if name in list_refiners():
        spec = get_spec(name)
        if finetuned and (weights is not None or spec.weights is None):
            weights = find_weights(spec, weights)  # better to learn now than at the first image that there is none
    else:
        weights = Path(name).expanduser()
        repository, _, commit = name.partition("@")
        if HUB_ID.fullmatch(repository) and not weights.exists() and (commit or (revision and base is None)):
            weights = fetch(repository, commit or revision, patterns=(CARD, LORA, TOKENS), local="a refiner's folder")
        if weights.name == name and not weights.exists():
            known = list_refiners()
            raise UnknownNameError(
                f"unknown refiner {name!r}{nearest_names(name, known) or '.'} Known: {', '.join(known)}; "
                f"or pass a folder that `sgdmix finetune` wrote"
            )
        if not weights.exists():
            raise DataError(
                f"there is no refiner folder {name}; to make one: sgdmix finetune DATA {shlex.quote(name)} --metaclass "
                "WORD --base BASE; a hub id needs its commit: OWNER/NAME@COMMIT"
            )
        if not (weights / CARD).is_file():
            raise InvalidInputError(f"expected a refiner's key or a folder with {CARD}, {name} has none")
        spec = read_refiner(weights).spec
    return Refiner(spec, base=base, revision=revision, weights=weights, finetuned=finetuned, **options)


class Refiner(RefinerSetup):
    """A refiner: its settings, and the model once it is needed. Pickles as settings only; threads may share it.

    Made by :func:`get_refiner`; takes what :class:`sgdmix_albu.refine.setup.RefinerSetup` takes.
    """

    _loaded: Loaded | None = None

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._loaded is not None

    def load(self) -> Loaded:
        """Load the model now, if it is not; :meth:`refine` does it by itself."""
        with self._lock:
            if self._loaded is None:
                self._loaded = load(self)
            return self._loaded

    def release(self) -> None:
        """Let go of the model and its memory; the next image loads it again."""
        with self._lock:
            self._loaded = None
        gc.collect()
        release_memory(self.device)

    def check_size(self, height: int, width: int) -> None:
        """Refuse images so long that one of them would take the memory of many.

        Raises:
            InvalidInputError: One side is more than four times the other.
        """
        if min(height, width) < 1 or max(height, width) > _LONGEST * min(height, width):
            raise InvalidInputError(
                f"expected images at most {_LONGEST} times as long as wide, got {height} x {width} (H x W): at the "
                "refiner's resolution such a strip takes the memory of many images; crop it"
            )

    def refine(
        self,
        images: Tensor,
        *,
        classes: Sequence[str | int] | Tensor | None = None,
        prompts: Sequence[str] | None = None,
        strength: float | Sequence[float] | Tensor | str | None = None,
        seeds: Sequence[int] | Tensor,
        masks: Tensor | None = None,
        holes: Tensor | None = None,
        preserve: Preserve = "none",
    ) -> Refined:
        """Refine mixed images (SGD-Mix, section 5.3).

        With "soft" and "strict", the prompt, which names the object, is used on the object and next to it; everything
        else uses the empty prompt, and so keeps the target's scene. Where paint of ``fill="inpaint"`` shows, every mode
        uses the empty prompt: the image's own would put a second object there.

        Args:
            images: (B, 3, H, W) uint8, or float in [0, 1]. Refined at the refiner's resolution, returned at theirs.
            classes: B class names or labels, the sources'.
            prompts: B prompts instead of classes.
            strength: Translation strength: a number in (0, 1]; a tuple to draw from, by each image's seed; a tensor
                (B,); or "adaptive", the largest of the refiner's strengths at which its teacher still predicts the
                source's class. None for the refiner's own set.
            seeds: B seeds. An image's result depends only on its own seed, up to rounding.
            masks: (B, H, W) bool, where the source is kept, for "soft" and "strict".
            holes: (B, H, W) bool, where the image shows paint instead of the target's object: pixels of its
                (grown) mask that the source's does not cover. None where nothing was painted.
            preserve: "none", the paper's; "soft", a third of the strength on the mask; "strict", the same, and inside
                the mask's core the source's pixels bit by bit.

        Returns:
            The images, and what was done to each. If the model's numbers are not finite, in single
            precision too, the image comes back unrefined, ``broken``, with a warning.

        Raises:
            InvalidInputError: Arguments that do not fit; images more than four times as long as wide.
            DataError: No weights, no base, or damaged ones.
            UnknownNameError: A class that the refiner does not know.
        """
        check_images(images, "to refine, before Normalize")
        count = len(images)
        numbers = tuple(int(seed) for seed in seeds)
        strength = self.spec.strengths if strength is None else strength
        _check_counts(count, seeds=numbers, classes=classes, prompts=prompts)
        size = (count, *images.shape[2:])
        for name, given in (("masks", masks), ("holes", holes)):
            if given is not None:
                check_tensor(given, f"bool {name} {size}", size, BOOL)
        check_preserve(preserve, masks)
        check_strength(strength)
        self.check_size(*images.shape[-2:])
        if not count:
            return Refined(images.clone(), (), (), (), (), (), preserve)
        said = tuple(map(self.prompt_for, _listed(classes)) if prompts is None else prompts)
        work = Work(self, self.load, images, said, numbers, masks, holes, preserve)
        if isinstance(strength, str):
            return work.adaptive(self._labels(classes), sorted(self.spec.strengths, reverse=True))
        return work.fixed(strengths_for(strength, numbers))

    def _labels(self, classes: Sequence[str | int] | Tensor | None) -> list[int]:
        if self.teacher is None:
            raise InvalidInputError("strength='adaptive' needs a teacher: get_refiner(..., teacher=classifier)")
        if classes is None:
            raise InvalidInputError("strength='adaptive' needs classes, to ask the teacher about")
        return [self.classes.index(name) if isinstance(name, str) else int(name) for name in _listed(classes)]

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name != "card"}  # read again where it goes
        return {**kept, "memory": {}, "_loaded": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def __repr__(self) -> str:
        where = self.weights or (cache_folder(self.spec.key) if self.finetuned else "the base alone")
        return f"Refiner({self.spec.key!r}, {where}, {'loaded' if self.loaded else 'not loaded'})"


def refine_rows(refiner: Any, mixed: Tensor, plan: MixPlan, rows: Tensor, **options: Any) -> Refined:
    """Refine images that were mixed by some rows of a plan: the masks go with them, and the holes.

    Args:
        refiner: What does it: a :class:`Refiner`, or a user's own, which need not know of holes.
        mixed: (N, C, H, W).
        plan: What was done to them, and to others.
        rows: (N,) int64, which of the plan's rows are theirs.
        options: As in :meth:`Refiner.refine`.
    """
    painted = plan.painted
    if painted is not None and accepts(refiner.refine, "holes"):
        options["holes"] = painted[rows.to(painted.device)]
    refined: Refined = refiner.refine(mixed, masks=plan.masks[rows.to(plan.masks.device)], **options)
    return refined


def _check_counts(count: int, **given: Any) -> None:
    if (given["classes"] is None) == (given["prompts"] is None):
        raise InvalidInputError("expected either classes or prompts, one for each image")
    for name, values in given.items():
        if values is not None and len(values) != count:
            raise InvalidInputError(f"expected {count} {name}, one for each image, got {len(values)}")
    for seed in given["seeds"]:
        if not 0 <= seed < 2**63:
            raise InvalidInputError(f"a seed must lie between 0 and 2**63 - 1, got {seed}")


def _listed(classes: Sequence[str | int] | Tensor | None) -> list[str | int]:
    return classes.tolist() if isinstance(classes, Tensor) else list(classes or ())
