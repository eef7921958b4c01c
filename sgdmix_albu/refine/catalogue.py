"""The refiners by key, with their settings. Torch-free; nothing is loaded here."""

from __future__ import annotations

import os
import re
import shlex
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.io.records import Kind, UnsoundError, items, number, text, whole
from sgdmix_albu.registry import Registry

__all__ = ["Recipe", "RefinerSpec", "get_spec", "list_refiners", "refiners_table", "register_refiner"]

# The commit is the one this package was written against; no other is fetched unless a user names it.
_SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
_SD15_REVISION = "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"
# Of its repository: no .ckpt, no .bin, no half precision, no safety checker.
_SD15_FILES = ("*.json", "*.txt", "text_encoder/model.safetensors", "*/diffusion_pytorch_model.safetensors")


def plain_name(value: Any) -> str:
    """A kind: a name as people write it, in one line and not blank.

    Example:
        >>> plain_name("Lazuli Bunting")
        'Lazuli Bunting'
    """
    found: str = text(300)(value)
    if not found.strip() or not found.isprintable():
        raise UnsoundError(f"expected a name, got {found!r:.80}")
    return found


def _key(value: Any) -> str:
    """It becomes part of a folder's name and of tokens."""
    found: str = text(100)(value)
    if not re.fullmatch(r"[\w-]+", found):
        raise UnsoundError(f"is made of letters, digits, - and _, got {found!r}")
    return found


SETTINGS: Mapping[str, Kind] = {
    "key": _key,
    "metaclass": plain_name,
    "resolution": whole(8, 8192),
    "strengths": items(number(0, 1, above=True), least=1, most=1000),
    "steps": whole(1, 10_000),
    "guidance": number(0, 1000),
}
"""What may stand in the row of a refiner, and in its card."""

SHARED = (*SETTINGS, "base", "revision", "prompt")
"""What a refiner's card repeats of the row that it was made by."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a refiner is fine-tuned.

    The paper gives no numbers. The defaults are *assumed*: joint Textual Inversion and LoRA, rank 10,
    learning rate 5e-5, batches of 8 and 35,000 steps follow Diff-Mix (Wang et al., CVPR 2024).

    Attributes:
        steps: Optimiser steps.
        batch_size: Images per step, over all processes.
        learning_rate: Learning rate of the LoRA matrices.
        token_learning_rate: Learning rate of the new token embeddings.
        rank: Rank of the LoRA matrices.
        token_noise: Deviation of the noise between the new embeddings, as a share of the metaclass embedding's.
        drop_prompt: Share of images trained with an empty prompt, which guidance needs.
    """

    steps: int = 35_000
    batch_size: int = 8
    learning_rate: float = 5e-5
    token_learning_rate: float = 5e-5
    rank: int = 10
    token_noise: float = 0.1
    drop_prompt: float = 0.1


@dataclass(frozen=True, slots=True)
class RefinerSpec:
    """A row of the registry.

    Attributes:
        key: The name that users type, also part of the tokens, ``<key-017>``.
        metaclass: What all classes are: "bird".
        prompt: Template with ``{token}`` and ``{metaclass}``.
        resolution: Side in pixels that the refiner works at.
        base: A hub id, a folder in diffusers' layout, or ``"embedded:NAME"``.
        revision: Commit of a hub id, 40 hexadecimal digits; nothing else is fetched.
        strengths: Translation strengths to draw from.
        steps: Denoising steps of strength 1.
        guidance: Scale of classifier-free guidance; 1 or less for none.
        weights: Hub id of a ready refiner folder, if there is one.
        weights_revision: Its commit.
        recipe: How to fine-tune.

    Raises:
        InvalidInputError: A template without ``{token}``, a strength outside (0, 1], a resolution of no image, ...

    Example:
        >>> RefinerSpec("moths", "moth").prompt
        'a photo of a {token} {metaclass}'
    """

    key: str
    metaclass: str
    prompt: str = "a photo of a {token} {metaclass}"
    resolution: int = 512
    base: str = _SD15
    revision: str | None = _SD15_REVISION
    strengths: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9)
    steps: int = 25
    guidance: float = 7.5
    weights: str | None = None
    weights_revision: str | None = None
    recipe: Recipe = Recipe()

    def __post_init__(self) -> None:
        for setting, kind in SETTINGS.items():
            value = getattr(self, setting)
            try:
                kind(list(value) if isinstance(value, tuple) else value)
            except UnsoundError as error:
                raise InvalidInputError(f"refiner {self.key!r:.80}: {setting}: {error}") from None
        check_template(self.prompt, f"refiner {self.key!r}")


def check_template(prompt: str, whose: str) -> None:
    """Refuse a prompt that ``{token}`` and ``{metaclass}`` alone cannot fill.

    Raises:
        InvalidInputError: Another name in braces, a brace by itself, no ``{token}``, or no text at all.
    """
    try:
        parts = list(string.Formatter().parse(text(2000)(prompt)))
    except ValueError as error:  # not text; a lone brace
        raise InvalidInputError(
            f"the prompt of {whose} must be text with {{token}} and {{metaclass}}, got {prompt!r:.200}: {error}"
        ) from error
    names = [name for _, name, *_ in parts if name is not None]
    plain = all(not form and not change for _, _, form, change in parts)
    if not plain or "token" not in names or not set(names) <= {"token", "metaclass"}:
        raise InvalidInputError(
            f"the prompt of {whose} must hold {{token}}, and may hold {{metaclass}}, as they are and nothing else in "
            f"braces, got {prompt!r:.200}"
        )


REFINERS = Registry("refiner", group="sgdmix_albu.refiners")


def register_refiner(key: str, spec: RefinerSpec | str) -> None:
    """Give a refiner a key.

    A package can do the same without being imported, through the entry-point group ``sgdmix_albu.refiners``.

    Args:
        key: The name that users type.
        spec: The row, or ``"module:SPEC"``, imported on first use.

    Raises:
        InvalidInputError: The key is taken or empty, or ``spec`` is neither.

    Example:
        >>> register_refiner("my-moths", RefinerSpec("my-moths", "moth", resolution=256))
        >>> get_spec("my-moths").metaclass
        'moth'
    """
    if not isinstance(spec, RefinerSpec | str):
        raise InvalidInputError(f"expected a RefinerSpec or 'module:SPEC' for {key!r}, got {type(spec).__name__}")
    REFINERS.register(key, spec)


def list_refiners() -> list[str]:
    """Keys that :func:`sgdmix_albu.refine.get_refiner` knows, sorted; nothing is imported.

    Example:
        >>> "cub" in list_refiners()
        True
    """
    return REFINERS.names()


def metaclass_of(dataset: str | None) -> str | None:
    """What all classes of a data set are, where it has a row here.

    Example:
        >>> metaclass_of("aviary"), metaclass_of("my-moths"), metaclass_of(None)
        ('bird', None, None)
    """
    return get_spec(dataset).metaclass if dataset in list_refiners() else None


def get_spec(key: str) -> RefinerSpec:
    """The row of a key.

    Raises:
        UnknownNameError: No such key; the nearest ones are suggested.
        InvalidInputError: What the row leads to is no ``RefinerSpec``.

    Example:
        >>> get_spec("aircraft").metaclass
        'aircraft'
    """
    spec: Any = REFINERS.load(key)
    if not isinstance(spec, RefinerSpec):
        raise InvalidInputError(f"the row of refiner {key!r} must lead to a RefinerSpec, got {type(spec).__name__}")
    return spec


def cache_folder(key: str) -> Path:
    """Where the refiner of ``key`` is looked for when no folder is given: below ``$SGDMIX_CACHE``."""
    home = os.environ.get("SGDMIX_CACHE") or Path("~/.cache/sgdmix_albu").expanduser()
    return Path(home) / "refiners" / key


def finetune_command(spec: RefinerSpec, folder: str | os.PathLike[str] | None = None) -> str:
    """The command that makes the weights of a row, in a folder or where they are looked for."""
    out = shlex.quote(os.fspath(folder or cache_folder(spec.key)))
    if spec.base == f"embedded:{spec.key}":  # a data set of the package: nothing of the user's is needed
        return f"sgdmix finetune --dataset {spec.key} {out}"
    return f"sgdmix finetune DATA {out} --key {spec.key}"


def download_command(folder: str) -> str:
    """The command that fetches what is needed of Stable Diffusion 1.5 into a folder, at the commit that the rows name.

    Example:
        >>> import shlex
        >>> shlex.split(download_command("sd15"))[-4:]
        ['--include', '*/diffusion_pytorch_model.safetensors', '--local-dir', 'sd15']
    """
    include = " ".join(f"--include {shlex.quote(pattern)}" for pattern in _SD15_FILES)
    return f"hf download {_SD15} --revision {_SD15_REVISION} {include} --local-dir {shlex.quote(folder)}"


def refiner_rows() -> list[dict[str, Any]]:
    """All rows as JSON has them; ``ready`` says whether the weights are here.

    Example:
        >>> [row["metaclass"] for row in refiner_rows() if row["key"] == "cub"]
        ['bird']
    """
    found = []
    for key in list_refiners():
        spec, folder = get_spec(key), cache_folder(key)
        ready = (folder / "refiner.json").is_file()
        weights = str(folder) if ready else spec.weights or finetune_command(spec)
        row = {"key": key, "metaclass": spec.metaclass, "pixels": spec.resolution, "base": spec.base}
        found.append({**row, "weights": weights, "ready": ready})
    return found


def refiners_table() -> str:
    """All rows as text: key, metaclass, resolution, base, and where the weights are or which command makes them.

    Example:
        >>> refiners_table().split()[:5]
        ['key', 'metaclass', 'pixels', 'base', 'weights']
    """
    columns = ("key", "metaclass", "pixels", "base", "weights")
    rows = [columns, *(tuple(str(row[name]) for name in columns) for row in refiner_rows())]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]) for row in rows
    )


for _name, _metaclass in (
    ("aircraft", "aircraft"),
    ("cars", "car"),
    ("cub", "bird"),
    ("cub-lt", "bird"),
    ("dogs", "dog"),
    ("flowers", "flower"),
    ("pets", "pet"),
    ("waterbirds", "bird"),
):
    register_refiner(_name, RefinerSpec(_name, _metaclass))

# Small and trained from scratch, the embedded base takes in new species at a pace that would ruin Stable Diffusion.
register_refiner(
    "aviary",
    RefinerSpec(
        "aviary",
        "bird",
        resolution=64,
        base="embedded:aviary",
        revision=None,
        guidance=3.0,
        recipe=Recipe(steps=120, batch_size=32, learning_rate=2e-3, token_learning_rate=1e-2, rank=10),
    ),
)
