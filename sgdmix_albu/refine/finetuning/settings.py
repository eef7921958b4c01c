"""Everything that a fine-tuning's result depends on, besides the data and the base."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sgdmix_albu.arguments import check_choice, check_count, check_number
from sgdmix_albu.devices import accelerator
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.refine.catalogue import Recipe, RefinerSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Recipe):
    """How to train: a recipe, and what else there is; see :func:`sgdmix_albu.refine.finetune`."""

    key: str
    base: str
    revision: str | None
    resolution: int
    balanced: bool
    flip: bool
    saliency_weight: float
    gradient_accumulation: int
    gradient_checkpointing: bool
    mixed_precision: str
    seed: int

    def __post_init__(self) -> None:
        counts = ("resolution", "steps", "batch_size", "rank", "gradient_accumulation")
        for name in counts:
            check_count(name, getattr(self, name), "must be a positive integer")
        for name in ("learning_rate", "token_learning_rate"):
            if not 0 < getattr(self, name) < 1:
                raise InvalidInputError(f"{name} must lie between 0 and 1, got {getattr(self, name)!r}")
        check_number("saliency_weight", self.saliency_weight, "must be 0 or more", low=0, high=math.inf)
        check_choice("mixed_precision", self.mixed_precision, ("no", "fp16", "bf16"))
        check_count("seed", self.seed, "must be an integer from 0 to 2**32 - 1", least=0, most=2**32 - 1)
        for name in (*counts, "seed"):  # written as JSON, which knows Python's own numbers only
            object.__setattr__(self, name, int(getattr(self, name)))


def settings_for(spec: RefinerSpec, given: Mapping[str, Any], *, precision: str = "no") -> Settings:
    """What the caller gave, and the recipe and ``precision`` where they did not say."""
    recipe = dataclasses.asdict(spec.recipe)
    values = {"key": spec.key, "base": spec.base, "revision": spec.revision, "resolution": spec.resolution, **recipe}
    values["mixed_precision"] = precision
    return Settings(**{**values, **{name: value for name, value in given.items() if value is not None}})


def best_precision() -> str:
    """Half precision where it is fast: bfloat16, whose range Stable Diffusion XL needs, before float16.

    With float16 losses are scaled, and each step waits for the GPU to say whether the scale was too large.
    """
    kind = accelerator()
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if kind is None and bf16_pays() else "no"  # of other GPUs nobody has measured what is sound


def bf16_pays() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; where it does not, it is slower than single precision."""
    try:
        return "bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
