"""A refiner on disk: ``refiner.json``, ``unet_lora.safetensors``, ``tokens.safetensors``. Nothing is unpickled."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgdmix_albu.errors import DataError, InvalidInputError, UnknownNameError
from sgdmix_albu.files import sha256_of, write_whole
from sgdmix_albu.optional import import_optional
from sgdmix_albu.refine.catalogue import RefinerSpec, cache_folder, finetune_command
from sgdmix_albu.registry import nearest_names

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CARD", "LORA", "TOKENS", "RefinerCard", "class_tokens", "find_weights", "read_refiner", "write_refiner"]

CARD, LORA, TOKENS = "refiner.json", "unet_lora.safetensors", "tokens.safetensors"
_SCHEMA = 1
_ARCHITECTURES = ("sd", "sdxl")


@dataclass(frozen=True, slots=True)
class RefinerCard:
    """What ``refiner.json`` says.

    Attributes:
        key: The registry's key.
        base: The base model: hub id, folder or ``"embedded:NAME"``.
        revision: Commit of a hub id.
        architecture: "sd" (one text encoder) or "sdxl" (two).
        metaclass: What all classes are.
        prompt: Template with ``{token}`` and ``{metaclass}``.
        resolution: Side in pixels that the refiner was trained at.
        classes: Class names in the order of their labels.
        tokens: Their tokens, ``<key-017>``, in the same order.
        strengths: Translation strengths to draw from.
        steps: Denoising steps of strength 1.
        guidance: Scale of classifier-free guidance.
        training: Settings of the fine-tuning, for the record.
        files: SHA-256 of each file.
        schema_version: Of this description.
    """

    key: str
    base: str
    revision: str | None
    architecture: str
    metaclass: str
    prompt: str
    resolution: int
    classes: tuple[str, ...]
    tokens: tuple[str, ...]
    strengths: tuple[float, ...]
    steps: int
    guidance: float
    training: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = _SCHEMA

    def token(self, class_: str | int) -> str:
        """The token of a class, by name or label.

        Raises:
            UnknownNameError: The refiner was not trained on such a class.
        """
        if isinstance(class_, str):
            if class_ not in self.classes:
                raise UnknownNameError(
                    f"refiner {self.key!r} knows no class {class_!r}{nearest_names(class_, list(self.classes))}"
                    f" It has {len(self.classes)} classes, such as {self.classes[0]!r}"
                )
            return self.tokens[self.classes.index(class_)]
        if not 0 <= class_ < len(self.classes):
            raise UnknownNameError(
                f"refiner {self.key!r} has {len(self.classes)} classes, labels 0 to {len(self.classes) - 1}; "
                f"got label {class_}"
            )
        return self.tokens[class_]

    def prompt_for(self, class_: str | int) -> str:
        """The prompt of a class, by name or label."""
        return self.prompt.format(token=self.token(class_), metaclass=self.metaclass)


def class_tokens(key: str, count: int) -> tuple[str, ...]:
    """Tokens for ``count`` classes, generated, never made of class names.

    Example:
        >>> class_tokens("cub", 2)
        ('<cub-000>', '<cub-001>')
    """
    return tuple(f"<{key}-{number:03d}>" for number in range(count))


def write_refiner(
    folder: str | os.PathLike[str],
    card: RefinerCard,
    lora: Mapping[str, Tensor],
    tokens: Mapping[str, Tensor],
    *,
    lora_metadata: Mapping[str, str] | None = None,
) -> RefinerCard:
    """Write a refiner folder; the card comes last, so a folder with a card is whole.

    Args:
        folder: Where to write; other files there are left alone.
        card: The description; ``files`` is filled in.
        lora: LoRA matrices by diffusers' names, ``unet.down_blocks.0...lora_A.weight``.
        tokens: For each text encoder ("text_encoder", "text_encoder_2") the embeddings (K, D) of ``card.tokens``.
        lora_metadata: Goes into the LoRA file's header, as diffusers writes it.

    Returns:
        The card with the sums.

    Raises:
        InvalidInputError: Embeddings and tokens differ in number.
        DataError: The operating system refused.
    """
    save = import_optional("safetensors.torch", extra="diffusion").save
    for name, vectors in tokens.items():
        if len(vectors) != len(card.tokens):
            raise InvalidInputError(f"expected {len(card.tokens)} embeddings for {name}, got {len(vectors)}")
    folder = Path(folder).expanduser()
    (folder / CARD).unlink(missing_ok=True)
    contents = {
        LORA: save(
            {name: value.detach().cpu().contiguous() for name, value in lora.items()}, dict(lora_metadata or {})
        ),
        TOKENS: save({name: value.detach().cpu().contiguous() for name, value in tokens.items()}),
    }
    for name, content in contents.items():
        write_whole(folder / name, lambda file, content=content: file.write(content))  # type: ignore[misc]
    card = dataclasses.replace(card, files={name: sha256_of(folder / name) for name in contents})
    text = json.dumps(dataclasses.asdict(card), indent=2, ensure_ascii=True, allow_nan=False) + "\n"
    write_whole(folder / CARD, lambda file: file.write(text.encode()))
    return card


def read_refiner(folder: str | os.PathLike[str]) -> RefinerCard:
    """Read a refiner's card, and check that the files beside it are those it was written with.

    Args:
        folder: A folder that :func:`finetune` wrote.

    Raises:
        DataError: No card, a card that is damaged or of a later version, a file that is missing or was changed.
    """
    folder = Path(folder).expanduser()
    path = folder / CARD
    if not path.is_file():
        raise DataError(f"expected a refiner folder with {CARD}, found none in {folder}")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    card = _card(content, path)
    for name in (LORA, TOKENS):
        if name not in card.files:
            raise DataError(f"{path} names no sum for {name}; it was not written by this package")
        found = sha256_of(folder / name)
        if found != card.files[name]:
            raise DataError(
                f"{folder / name} was changed after it was written: sha256 {found[:12]}..., "
                f"{CARD} says {card.files[name][:12]}...; fine-tune again, or fetch the folder again"
            )
    return card


def find_weights(spec: RefinerSpec, folder: str | os.PathLike[str] | None = None) -> Path:
    """The refiner folder of a row: the one given, else the cache's, else the hub's.

    Raises:
        DataError: There is none; the message is the command that makes one.
    """
    if folder is not None:
        if not (Path(folder).expanduser() / CARD).is_file():
            raise DataError(f"expected a refiner folder with {CARD}, found none in {folder}; {_make(spec, folder)}")
        return Path(folder).expanduser()
    cached = cache_folder(spec.key)
    if (cached / CARD).is_file():
        return cached
    if spec.weights is not None:
        from sgdmix_albu.refine.hub import fetch

        return fetch(spec.weights, spec.weights_revision, patterns=(CARD, LORA, TOKENS))
    raise DataError(f"no weights of refiner {spec.key!r} in {cached}; to make them: {finetune_command(spec)}")


def _make(spec: RefinerSpec, folder: str | os.PathLike[str]) -> str:
    return f"to make one: sgdmix finetune DATA --dataset {spec.key} --out {folder}"


# Field of the card, the type of its value, and of the items where it is a list.
_FIELDS: Mapping[str, tuple[type | tuple[type, ...], type | tuple[type, ...] | None]] = {
    "key": (str, None),
    "base": (str, None),
    "revision": ((str, type(None)), None),
    "architecture": (str, None),
    "metaclass": (str, None),
    "prompt": (str, None),
    "resolution": (int, None),
    "classes": (list, str),
    "tokens": (list, str),
    "strengths": (list, (int, float)),
    "steps": (int, None),
    "guidance": ((int, float), None),
    "training": (dict, None),
    "files": (dict, None),
}


def _card(content: Any, path: Path) -> RefinerCard:
    if not isinstance(content, dict) or not isinstance(content.get("schema_version"), int):
        raise DataError(f"{path} is no refiner's card: expected an object with a schema_version")
    if content["schema_version"] != _SCHEMA:
        raise DataError(
            f"{path} has schema version {content['schema_version']}, this package reads {_SCHEMA}; "
            "run: pip install --upgrade sgdmix-albu"
        )
    for name, (kind, items) in _FIELDS.items():
        value: Any = content.get(name)
        right = name in content and isinstance(value, kind) and not isinstance(value, bool)
        if right and items is not None:
            right = all(isinstance(item, items) and not isinstance(item, bool) for item in value)
        if not right:
            raise DataError(f"{path}: {name!r} is missing or of the wrong kind, got {value!r:.60}")
    _check_values(content, path)
    lists: Sequence[str] = ("classes", "tokens", "strengths")
    values: dict[str, Any] = {name: tuple(content[name]) if name in lists else content[name] for name in _FIELDS}
    return RefinerCard(**values)


def _check_values(content: dict[str, Any], path: Path) -> None:
    tokens = content["tokens"]
    if not tokens or len(tokens) != len(content["classes"]) or len(set(tokens)) != len(tokens):
        raise DataError(
            f"{path}: expected one token of its own for each class, "
            f"got {len(content['classes'])} classes and {len(set(tokens))} tokens"
        )
    if content["architecture"] not in _ARCHITECTURES:
        raise DataError(f"{path}: architecture must be one of {_ARCHITECTURES}, got {content['architecture']!r}")
    if not all(isinstance(value, str) for value in content["files"].values()):
        raise DataError(f"{path}: 'files' must give a sum for each name")
    try:
        RefinerSpec(
            key=content["key"],
            metaclass=content["metaclass"],
            prompt=content["prompt"],
            resolution=content["resolution"],
            strengths=tuple(content["strengths"]),
            steps=content["steps"],
        )
    except InvalidInputError as error:
        raise DataError(f"{path}: {error}") from error
