"""The descriptions in a base's folders, checked before diffusers and transformers read them.

Both libraries take from them what code to import (``quantization_config``, ``auto_map``), kernels to fetch from the
hub and run (``attn_implementation``), adapters to load beside the weights, and files elsewhere to read. So only
settings that are known pass, and those that are not only where they are no text that could name anything. Numbers
are bounded: a network is built as large as they say.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sgdmix_albu.errors import DataError
from sgdmix_albu.io.files import kind_of_file, read_regular
from sgdmix_albu.io.records import (
    Kind,
    UnsoundError,
    anything,
    flag,
    items,
    mapping,
    number,
    one_of,
    optional,
    parse,
    record,
    text,
    whole,
)

_LARGEST = 10_000_000  # of a number; of a list, a thousandth
_MOST_BYTES = 2**26  # of a JSON file; the longest, a tokenizer's, have four million bytes
_WIDEST = 100_000
_LIBRARYS_OWN = ("_class_name", "_diffusers_version", "_name_or_path", "_use_default_values")
_STATISTICS = ("latents_mean", "latents_std")
_WORD = text(300)
_WIDTH = whole(1, _WIDEST)


def _plain(value: Any, word: Kind | None = None, depth: int = 0) -> Any:
    """Null, true, false, a number, or lists of these; and words where ``word`` says which."""
    if isinstance(value, str) and word is not None:
        return word(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, list) and depth < 3:
        return items(lambda each: _plain(each, word, depth + 1), most=_LARGEST // 1000)(value)
    if isinstance(value, str | dict | list):
        raise UnsoundError(f"is not supported, got {'text' if isinstance(value, str) else 'a nested value'}")
    return number(-_LARGEST, _LARGEST)(value)


def _setting(value: Any) -> Any:
    """The value of a setting that the library takes, by a parameter of this name."""
    return _plain(value, _WORD)


def _several(kind: Kind, most: int) -> Kind:
    """One for all, or a list with one for each (which may be a list again)."""
    return lambda value: (
        items(_several(kind, most), most=most)(value) if isinstance(value, list) else optional(kind)(value)
    )


def _known(kind: Any) -> dict[str, Kind]:
    """The settings of one of diffusers' networks, by the parameters of its class."""
    known: dict[str, Kind] = {}
    for name in (*_LIBRARYS_OWN, *inspect.signature(kind.__init__).parameters):
        if name.endswith(("layers_per_block", "coder_blocks")):
            known[name] = _several(whole(0, 32), 8)
        elif name.endswith("block_out_channels"):
            known[name] = items(_WIDTH, least=1, most=8)
        elif name.endswith("block_types"):
            known[name] = items(_WORD, least=1, most=8)
        else:
            known[name] = _setting
    return known


def _settings(known: dict[str, Kind]) -> Kind:
    """An object of known settings; others only where they are plain."""

    def check(value: Any) -> Any:
        return record({}, may={**dict.fromkeys(mapping(anything)(value), _plain), **known})(value)

    return check


def read_json(path: Path, kind: Kind) -> Any:
    """A JSON file of a base as a value of a kind.

    Raises:
        DataError: It is not there, no regular file, too large, or not of the kind.
    """
    try:
        return parse(read_regular(path, _MOST_BYTES), kind)
    except UnsoundError as error:
        raise DataError(f"cannot use {path}: {error}") from error


def check_model(folder: Path, kind: Any) -> dict[str, Any]:
    """Check the folder of one of diffusers' networks.

    Args:
        folder: With ``config.json`` and weights.
        kind: The network's class.

    Returns:
        The settings.

    Raises:
        DataError: A setting is out of bounds or leads to code, or a file is none.
    """
    _check_files(folder)
    known = _known(kind) | {
        **dict.fromkeys(("in_channels", "out_channels", "latent_channels", "norm_num_groups"), optional(_WIDTH)),
        "scaling_factor": number(0, 1e6, above=True),
        **dict.fromkeys(_STATISTICS, optional(items(number(-1e6, 1e6), least=1, most=1024))),
    }
    return read_json(folder / "config.json", lambda value: _with_statistics(_settings(known)(value)))  # type: ignore[no-any-return]


def _with_statistics(config: dict[str, Any]) -> dict[str, Any]:
    """Latents have a mean and a deviation in each channel, if in any."""
    channels = config.get("latent_channels", 4)
    for name in _STATISTICS:
        values = config.get(name)
        if values is not None and (len(values) != channels or (name == "latents_std" and min(values) <= 0)):
            raise UnsoundError(
                f"{name!r} must have a number for each of {channels} channels"
                f"{', above 0' if name == 'latents_std' else ''}, got {len(values)}"
            )
    return config


# What may stand in the settings of any of transformers' networks.
_DTYPE = one_of("float32", "float16", "bfloat16", None)
_TRANSFORMERS: dict[str, Kind] = {
    "_name_or_path": _WORD,
    "architectures": optional(items(_WORD, most=8)),
    "dtype": _DTYPE,
    "hidden_size": _WIDTH,
    "id2label": optional(mapping(_WORD)),
    "intermediate_size": _WIDTH,
    "label2id": optional(mapping(whole(0, _WIDEST))),
    "num_hidden_layers": whole(1, 200),
    "torch_dtype": _DTYPE,
    "transformers_version": optional(_WORD),
    "vocab_size": whole(1, _LARGEST),
}


def check_encoder(folder: Path) -> dict[str, Any]:
    """Check the folder of a text encoder.

    Returns:
        The settings.

    Raises:
        DataError: As of :func:`check_model`.
    """
    _check_files(folder)
    known = {
        **_TRANSFORMERS,
        "hidden_act": one_of("quick_gelu", "gelu"),
        "max_position_embeddings": whole(1, 4096),
        "model_type": one_of("clip_text_model"),
        "num_attention_heads": _WIDTH,
        "projection_dim": _WIDTH,
        "return_dict": one_of(True),
    }
    return read_json(folder / "config.json", _settings(known))  # type: ignore[no-any-return]


# The parts that a segmenter is made of, to any depth.
_SEGMENTER_PARTS = (
    "backbone_config",
    "detr_decoder_config",
    "detr_encoder_config",
    "geometry_encoder_config",
    "mask_decoder_config",
    "text_config",
    "text_config_dict",
    "vision_config",
    "vision_config_dict",
)
_SEGMENTER_MODELS = (
    "clip_text_model",
    "clipseg",
    "clipseg_text_model",
    "clipseg_vision_model",
    "sam3",
    "sam3_detr_decoder",
    "sam3_detr_encoder",
    "sam3_geometry_encoder",
    "sam3_mask_decoder",
    "sam3_vision_model",
    "sam3_vit_model",
)


def _part(value: Any) -> Any:
    """The settings of a part of a segmenter."""
    known: dict[str, Kind] = {
        **_TRANSFORMERS,
        **dict.fromkeys(("decoder_hidden_act", "hidden_act"), one_of("quick_gelu", "gelu", "relu")),
        "model_type": one_of(*_SEGMENTER_MODELS),
        "num_layers": whole(1, 200),
        "problem_type": optional(_WORD),
        "pruned_heads": optional(mapping(anything, most=0)),
        "rope_parameters": optional(_settings({"rope_type": _WORD})),
        **{part: optional(_part) for part in _SEGMENTER_PARTS},
    }
    return _settings(known)(value)


def _segmenter(value: Any) -> Any:
    """The settings of a segmenter, which SAM 3 has as a part of what follows objects through films."""
    found = record({"model_type": _WORD}, others=True)(value)
    if found["model_type"] == "sam3_video":
        found = found.get("detector_config", {})
    return record({"model_type": one_of("clipseg", "sam3")}, others=True)(_part(found))


def check_segmenter(folder: Path) -> dict[str, Any]:
    """Check the folder of a segmenter that is told in words what to look for.

    SAM 3 is published as one part, ``detector_config``, of what follows objects through films; the rest is not read.

    Returns:
        The settings; their ``model_type`` is "clipseg" or "sam3".

    Raises:
        DataError: As of :func:`check_model`, or another kind of network.
    """
    _check_files(folder)
    return read_json(folder / "config.json", _segmenter)  # type: ignore[no-any-return]


def check_scheduler(folder: Path) -> None:
    """Check the folder of a scheduler, whose settings go by names of its library alone.

    Raises:
        DataError: As of :func:`check_model`.
    """
    _check_files(folder)
    # Settings of other schedulers are kept there by diffusers, words included; no scheduler imports by any.
    bounded = record({}, may={"num_train_timesteps": _WIDTH}, others=True)
    read_json(folder / "scheduler_config.json", lambda value: bounded(mapping(_setting)(value)))


def _token(value: Any) -> Any:
    """A token as tokenizers write one: a word, or a word and how it is cut out."""
    if isinstance(value, dict):
        plain = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word", "special"), flag)
        return record({"content": _WORD}, may={"__type": one_of("AddedToken"), **plain})(value)
    return optional(_WORD)(value)


_TOKENS = ("bos_token", "cls_token", "eos_token", "mask_token", "pad_token", "sep_token", "unk_token")
_MORE = ("additional_special_tokens", "extra_special_tokens")
_SPECIAL = {
    **dict.fromkeys(_TOKENS, _token),
    **dict.fromkeys(_MORE, lambda value: (mapping if isinstance(value, dict) else items)(_token)(value)),
}


def check_tokenizer(folder: Path) -> None:
    """Check the folder of a tokenizer.

    Raises:
        DataError: As of :func:`check_model`.
    """
    _check_files(folder)
    known = {
        **_SPECIAL,
        "added_tokens_decoder": mapping(_token),
        "backend": one_of("tokenizers"),
        "errors": one_of("replace", "strict", "ignore"),
        "model_max_length": whole(1, 10**31),  # transformers writes 10**30 for "any"
        "name_or_path": optional(_WORD),
        "processor_class": optional(_WORD),  # nothing goes by it where the tokenizer's class is named
        "special_tokens_map_file": optional(_WORD),  # of the machine that it was made on, and not read
        # What transformers 5 writes of a tokenizer that was used before it was saved.
        **dict.fromkeys(("padding_side", "truncation_side"), one_of("left", "right")),
        "truncation_strategy": one_of("longest_first", "only_first", "only_second", "do_not_truncate"),
        "tokenizer_class": one_of("CLIPTokenizer", "CLIPTokenizerFast", None),
    }
    kinds = {
        "tokenizer_config.json": _settings(known),
        "special_tokens_map.json": record({}, may=_SPECIAL),
        "added_tokens.json": mapping(whole(0, _LARGEST)),
        "vocab.json": mapping(whole(0, _LARGEST), most=_LARGEST),
        "tokenizer.json": anything,
    }
    for name, kind in kinds.items():
        if (folder / name).exists():
            read_json(folder / name, kind)
    if (folder / "merges.txt").exists():
        read_regular(folder / "merges.txt", _MOST_BYTES)


def _check_files(folder: Path) -> None:
    """Refuse what is no file, adapters, and lists of weights that name files elsewhere."""
    for path in sorted(folder.iterdir()):
        kind = kind_of_file(path.stat().st_mode) if path.exists() else "a link to nothing"
        if kind is not None and not path.is_dir():
            raise DataError(f"cannot use {folder}: {path.name} is {kind}, not a file")
        if path.name.startswith("adapter_"):
            raise DataError(
                f"cannot use {folder}: {path.name} belongs to an adapter, which would be loaded unseen with the base; "
                "take it out, and pass it as a LoRA file: loras=[FILE]"
            )
        if ".safetensors.index" in path.name and path.suffix == ".json":
            files = [item.name for item in folder.glob("*.safetensors")]
            read_json(path, record({"weight_map": mapping(_one_of_the_files(files))}, others=True))


def _one_of_the_files(names: Collection[str]) -> Kind:
    def check(value: Any) -> str:
        if value not in names:
            raise UnsoundError(f"expected a .safetensors file of the same folder, got {_WORD(value)!r}")
        return value  # type: ignore[no-any-return]

    return check
