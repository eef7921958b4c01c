"""The row that a fine-tuning works by: one of the registry, or one for data of your own."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

from sgdmix_albu.arguments import check_text, said
from sgdmix_albu.errors import InvalidInputError, UnknownNameError
from sgdmix_albu.refine.catalogue import RefinerSpec, get_spec
from sgdmix_albu.refine.components import EMBEDDED, base_folder, settled_base
from sgdmix_albu.refine.finetuning.settings import Settings
from sgdmix_albu.refine.sides import sides_of

_EMBEDDED = "aviary"  # the row of the embedded base, which learns at other rates than Stable Diffusion


def row_for(
    key: str | RefinerSpec | None,
    *,
    metaclass: str | None,
    prompt: str | None,
    base: str | os.PathLike[str] | None,
    revision: str | None,
    resolution: int | None,
) -> RefinerSpec:
    """The row, with what the caller said in the place of what it says.

    Args:
        key: Of the registry, or a row; None for data of your own.
        metaclass: What all classes are; needed where there is no key.
        prompt: Template with ``{token}`` and ``{metaclass}``.
        base: The base model.
        revision: Commit of a hub id.
        resolution: Side in pixels. None for the row's; without a key, for the side that the base was trained at.

    Raises:
        InvalidInputError: Neither key nor metaclass, or a value that means nothing.
        UnknownNameError: No such key.
        DataError: No such base.
    """
    given = {"metaclass": metaclass, "prompt": prompt, "resolution": resolution}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if revision is not None and (base is None or str(base).startswith(EMBEDDED) or Path(base).expanduser().is_dir()):
        raise InvalidInputError(f"revision needs a hub id as base, got base {None if base is None else str(base)!r}")
    if base is not None:
        changes |= {"base": settled_base(base), "revision": revision}
    if key is not None:
        return dataclasses.replace(_known(key), **changes)
    if metaclass is None:
        raise InvalidInputError(
            "expected metaclass=, a word for what all classes are, such as 'insect' (--metaclass insect); or key=, a "
            "refiner of the registry (--key KEY); got neither"
        )
    check_text(metaclass=metaclass)
    own = dataclasses.replace(RefinerSpec(key_of(metaclass), metaclass), **changes)
    folder = base_folder(own.base, own.revision)
    embedded = get_spec(_EMBEDDED)
    if folder.samefile(base_folder(embedded.base)):
        same = {name: getattr(embedded, name) for name in ("base", "recipe", "guidance")}
        own = dataclasses.replace(own, **same)
    return dataclasses.replace(own, resolution=resolution or sides_of(folder).trained or own.resolution)


def key_of(metaclass: str) -> str:
    """The key of a refiner without a row: it stands in its tokens, ``<insect-017>``.

    Example:
        >>> key_of("insect"), key_of("Sports car"), key_of("?")
        ('insect', 'sports-car', 'own')
    """
    return re.sub(r"[^\w-]+", "-", metaclass.lower()).strip("-")[:100] or "own"


def described(spec: RefinerSpec, settings: Settings, out: str | os.PathLike[str], trained: int | None) -> list[str]:
    """What a fine-tuning is about to do, a line for each group of settings, defaults included.

    Args:
        spec: The row.
        settings: How it is trained.
        out: The refiner's folder.
        trained: The side that the base was trained at.
    """
    side = settings.resolution
    other = "" if trained in (None, side) else f" (the base was trained at {trained}; --resolution {trained} fits it)"
    rates = f"{settings.learning_rate:g} (LoRA) and {settings.token_learning_rate:g} (tokens)"
    return [
        f"metaclass {spec.metaclass!r}, prompt {spec.prompt!r}",
        f"base {spec.base}, {side} x {side} pixels{other}",
        f"{settings.steps} steps of {settings.batch_size} images, rank {settings.rank}, learning rates {rates}",
        f"mixed precision {settings.mixed_precision}, seed {settings.seed}, refiner to {os.fspath(out)}",
    ]


def _known(key: str | RefinerSpec) -> RefinerSpec:
    if isinstance(key, RefinerSpec):
        return key
    if not isinstance(key, str):
        raise InvalidInputError(f"key must be a refiner's key or a RefinerSpec, got {said(key)}")
    try:
        return get_spec(key)
    except UnknownNameError as error:
        raise UnknownNameError(
            f"{error}. For data of your own leave key out and say what all classes are: metaclass='insect' "
            "(--metaclass insect)"
        ) from None
