"""A refiner on disk: ``refiner.json``, ``unet_lora.safetensors``, ``tokens.safetensors``. Nothing is unpickled."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgdmix_albu.errors import DataError, InvalidInputError, UnknownNameError
from sgdmix_albu.io.files import open_regular, read_regular, sha256_of, write_whole
from sgdmix_albu.io.records import (
    Kind,
    UnsoundError,
    anything,
    items,
    mapping,
    one_of,
    optional,
    parse,
    record,
    sha256,
    text,
    whole,
)
from sgdmix_albu.refine.catalogue import (
    SETTINGS,
    SHARED,
    RefinerSpec,
    cache_folder,
    check_template,
    finetune_command,
    plain_name,
)
from sgdmix_albu.refine.tensors import write_safetensors
from sgdmix_albu.registry import nearest_names

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CARD", "LORA", "TOKENS", "RefinerCard", "class_tokens", "find_weights", "read_refiner", "write_refiner"]

CARD, LORA, TOKENS = "refiner.json", "unet_lora.safetensors", "tokens.safetensors"
_SCHEMA = 1
_MOST_CLASSES = 100_000
_MOST_BYTES, _MOST_BYTES_OF_TENSORS = 2**26, 2**34


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

    def __repr__(self) -> str:
        what = f"{len(self.classes)} classes of {self.metaclass}, {self.resolution} x {self.resolution} pixels"
        return f"RefinerCard({self.key!r}, {what}, base {self.base})"

    @property
    def spec(self) -> RefinerSpec:
        """The row that the refiner was made by, as far as its card tells."""
        return RefinerSpec(**{name: getattr(self, name) for name in SHARED})

    def token(self, class_: str | int) -> str:
        """The token of a class, by name or label.

        Raises:
            UnknownNameError: The refiner was not trained on such a class.
        """
        if isinstance(class_, str):
            if class_ not in self.classes:
                raise UnknownNameError(
                    f"refiner {self.key!r} was not trained on class {class_!r}"
                    f"{nearest_names(class_, self.classes) or '.'} It knows {len(self.classes)} classes, such as "
                    f"{self.classes[0]!r}"
                )
            return self.tokens[self.classes.index(class_)]
        return of_label(class_, self.tokens, f"refiner {self.key!r} has {len(self.classes)} classes")

    def prompt_for(self, class_: str | int) -> str:
        """The prompt of a class, by name or label."""
        return self.prompt.format(token=self.token(class_), metaclass=self.metaclass)


def of_label(label: int, names: Sequence[str], what: str) -> str:
    """What a class is called, by its label.

    Raises:
        UnknownNameError: There is no such label; begins with ``what`` there is.
    """
    if not 0 <= label < len(names):
        raise UnknownNameError(f"{what}, labels 0 to {len(names) - 1}; got label {label}")
    return names[label]


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
    """Write a refiner folder; the card is written last: if it exists, the folder is complete.

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
    for name, vectors in tokens.items():
        if len(vectors) != len(card.tokens):
            raise InvalidInputError(f"expected {len(card.tokens)} embeddings for {name}, got {len(vectors)}")
    folder = Path(folder).expanduser()
    (folder / CARD).unlink(missing_ok=True)
    write_safetensors(folder / LORA, lora, lora_metadata)
    write_safetensors(folder / TOKENS, tokens)
    card = dataclasses.replace(card, files={name: sha256_of(folder / name) for name in (LORA, TOKENS)})
    described = json.dumps(dataclasses.asdict(card), indent=2, ensure_ascii=True, allow_nan=False) + "\n"
    write_whole(folder / CARD, lambda file: file.write(described.encode()))
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
    if not path.exists():
        raise DataError(f"expected a refiner folder with {CARD}, found none in {folder}")
    card = _card(path)
    for file, wanted in card.files.items():
        with open_regular(folder / file) as opened:
            size = opened.seek(0, os.SEEK_END)
        if size > _MOST_BYTES_OF_TENSORS:
            raise DataError(f"cannot read {folder / file}: it has {size} bytes, too many for a refiner")
        found = sha256_of(folder / file)
        if found != wanted:
            raise DataError(
                f"{folder / file} was changed after it was written: sha256 {found[:12]}..., "
                f"{CARD} says {wanted[:12]}...; fine-tune again, or fetch the folder again"
            )
    return card


def find_weights(spec: RefinerSpec, folder: str | os.PathLike[str] | None = None) -> Path:
    """The refiner folder of a row: the one given, else the cache's, else the hub's.

    Raises:
        DataError: There is none; the message is the command that makes one.
    """
    if folder is not None:
        if not (Path(folder).expanduser() / CARD).is_file():
            raise DataError(
                f"expected a refiner folder with {CARD}, found none in {folder}; to make one: "
                f"{finetune_command(spec, folder)}"
            )
        return Path(folder).expanduser()
    cached = cache_folder(spec.key)
    if (cached / CARD).is_file():
        return cached
    if spec.weights is not None:
        from sgdmix_albu.pretrained.hub import fetch

        return fetch(spec.weights, spec.weights_revision, patterns=(CARD, LORA, TOKENS))
    raise DataError(f"no weights of refiner {spec.key!r} in {cached}; to make them: {finetune_command(spec)}")


def _token(value: Any) -> str:
    """In angle brackets, so that no word of any language is one."""
    if not re.fullmatch(r"<[\w-]{1,120}>", text(200)(value)):
        raise UnsoundError(f"expected a token such as '<cub-017>', got {value!r:.80}")
    return value  # type: ignore[no-any-return]


_FIELDS: Mapping[str, Kind] = {
    **SETTINGS,
    "schema_version": one_of(_SCHEMA),
    "base": text(4096),
    "revision": optional(plain_name),
    "architecture": one_of("sd", "sdxl"),
    "prompt": text(2000),
    "classes": items(text(1000), least=1, most=_MOST_CLASSES),
    "tokens": items(_token, least=1, most=_MOST_CLASSES),
    "training": mapping(anything),
    "files": record({LORA: sha256, TOKENS: sha256}),
}


def _card(path: Path) -> RefinerCard:
    content = read_regular(path, _MOST_BYTES)
    try:
        version = parse(content, record({"schema_version": whole()}, others=True))["schema_version"]
        if version != _SCHEMA:
            raise DataError(
                f"{path} has schema version {version}, this package reads {_SCHEMA}; "
                "run: pip install --upgrade sgdmix-albu"
            )
        found = parse(content, record(_FIELDS))
        check_template(found["prompt"], "it")
        _check_each_has_its_own(found["classes"], found["tokens"])
    except (UnsoundError, InvalidInputError) as error:
        raise DataError(f"{path} is no refiner's card: {error}; fine-tune again, or fetch the folder again") from error
    values: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in found.items()}
    return RefinerCard(**values)


def _check_each_has_its_own(classes: Sequence[str], tokens: Sequence[str]) -> None:
    """Tokens must differ for a tokenizer, which makes letters small and composes them."""
    seen = {unicodedata.normalize("NFC", token).lower() for token in tokens}
    if len(tokens) != len(classes) or len(seen) != len(tokens) or len(set(classes)) != len(classes):
        raise UnsoundError(
            f"expected a different token for each class, got {len(classes)} classes, {len(set(classes))} names and "
            f"{len(seen)} tokens"
        )
