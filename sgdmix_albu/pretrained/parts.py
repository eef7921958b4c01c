"""One part of a base at a time: a folder that was checked, into a network or a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sgdmix_albu.errors import DataError
from sgdmix_albu.pretrained.configs import check_tokenizer
from sgdmix_albu.pretrained.hub import first_line
from sgdmix_albu.registry import import_optional

PICKLES = (".bin", ".ckpt", ".pt", ".pth")


def load_model(kind: Any, folder: Path, config: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """A network from safetensors alone.

    Args:
        kind: Its class, of diffusers or transformers.
        folder: With ``config.json`` and weights.
        config: What ``config.json`` says, checked; of transformers' networks also what is to be taken instead.
        dtype: Of the weights.

    Raises:
        DataError: No weights, pickles only, or weights that do not fit the settings.
    """
    variant = _variant(kind, folder)
    _check_size(kind, folder, config)
    options: dict[str, Any] = {"torch_dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    if hasattr(kind, "config_class"):  # transformers is given what was checked, and reads no settings of its own
        options["config"] = kind.config_class.from_dict(dict(config))
    model, told = loaded(kind, folder, **options, **({"variant": variant} if variant else {}))
    missing = told["missing_keys"]
    if missing:  # they would be random, and the libraries only warn
        raise DataError(
            f"the weights in {folder} do not fit their config.json: {len(missing)} are missing, "
            f"such as {min(missing)!r}"
        )
    return model.eval().requires_grad_(False)


def load_tokenizer(folder: Path, encoder: Mapping[str, Any]) -> Any:
    """A CLIP tokenizer.

    Args:
        folder: Its folder.
        encoder: The settings of the text encoder that it is for.

    Raises:
        DataError: It is damaged, or knows more or longer prompts than the text encoder reads.
    """
    check_tokenizer(folder)
    tokenizer = loaded(import_optional("transformers", extra="diffusion").CLIPTokenizer, folder)
    for name in ("bos_token", "eos_token", "pad_token"):
        if getattr(tokenizer, f"{name}_id") is None:
            raise DataError(f"the tokenizer in {folder} has no {name}")
    words, longest = encoder.get("vocab_size", 49408), encoder.get("max_position_embeddings", 77)
    if max(tokenizer.get_vocab().values()) >= words or tokenizer.model_max_length > longest:
        raise DataError(
            f"the tokenizer in {folder} has {len(tokenizer)} words and prompts of {tokenizer.model_max_length} tokens, "
            f"its text encoder reads {words} and {longest}"
        )
    return tokenizer


def _variant(kind: Any, folder: Path) -> str | None:
    """Which weights to load: the plain ones (None), or "fp16" where there are no others.

    Raises:
        DataError: No safetensors.
    """
    names = [path.name for path in folder.glob("*.safetensors")]
    if names:
        return "fp16" if all(".fp16" in name for name in names) else None
    pickles = [path.name for path in folder.glob("*") if path.suffix in PICKLES]
    if not pickles:
        raise DataError(f"expected safetensors in {folder}, found none")
    # A network alone, or one of a pipeline's.
    whole, package, reads = folder, "transformers", kind.__name__
    if (folder.parent / "model_index.json").exists():
        whole, package, reads = folder.parent, "diffusers", "DiffusionPipeline"
    raise DataError(
        f"{folder / pickles[0]} is a pickle, which can run any code when it is read, so it is not opened. "
        f'If you trust it, convert it once: python -c "from {package} import {reads} as P; '
        f"P.from_pretrained('{whole}').save_pretrained('{whole}-safe', safe_serialization=True)\""
    )


def _check_size(kind: Any, folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a network that is larger than its weights, before memory is taken for it."""
    held = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    try:
        with torch.device("meta"):  # shapes alone
            settings = kind.config_class.from_dict(dict(config)) if hasattr(kind, "config_class") else None
            model = kind.from_config(dict(config)) if settings is None else kind(settings)
    # What settings do not go together, the libraries find out in many ways.
    except Exception as error:
        raise DataError(f"cannot use {folder / 'config.json'}: {first_line(error)}") from error
    described = sum(value.numel() for value in model.parameters())
    if described > held:  # a number takes a byte or more
        raise DataError(
            f"cannot load {folder}: its config.json describes {described} numbers, its weights have {held} bytes"
        )


def loaded(kind: Any, folder: Path, **options: Any) -> Any:
    """What a class of diffusers or transformers makes of a folder.

    Raises:
        DataError: It is damaged.
    """
    try:
        with _no_bars():
            return kind.from_pretrained(folder, local_files_only=True, **options)
    # diffusers, transformers and safetensors each have errors of their own for files that are damaged.
    except Exception as error:
        raise DataError(f"cannot load {folder}: {first_line(error)}") from error


@contextmanager
def _no_bars() -> Iterator[None]:
    """Loading takes a moment; a bar for each of five parts is noise."""
    logging = import_optional("transformers.utils.logging", extra="diffusion")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
