"""The settings of an adapter in a LoRA file's header, as diffusers writes them: read here, never by peft.

They can name a module of Python, which releases of peft before 0.20 import. What is needed of them is how much each
layer counts; that is worked out here, and peft has no part in it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from sgdmix_albu.errors import DataError
from sgdmix_albu.io.records import UnsoundError, anything, flag, mapping, number, one_of, parse, record, whole

Scales: TypeAlias = Callable[[str, int], float]
"""The name of a layer, and its rank, to what the product of its matrices is multiplied by."""

_SETTINGS = "lora_adapter_metadata"  # diffusers' name for them in the header
_PARTS = ("unet", "text_encoder", "text_encoder_2")
_ALPHA = number(-1e6, 1e6)


def _by_name(kind: Any) -> Any:
    """Values by the names of layers: peft takes regular expressions, of which some are matched for ever."""

    def check(value: Any) -> dict[str, Any]:
        for name in mapping(anything)(value):
            if not re.fullmatch(r"[\w.]{1,500}", name):
                raise UnsoundError(f"{name[:60]!r} is a pattern, expected the name of a layer")
        return mapping(kind)(value)  # type: ignore[no-any-return]

    return check


_READ = {
    "r": whole(1, 100_000),
    "lora_alpha": _ALPHA,
    "alpha_pattern": _by_name(_ALPHA),
    "rank_pattern": _by_name(whole(1, 100_000)),
    "use_rslora": flag,
}
# Of interest to the training alone, or already in the names of the tensors.
_OF_TRAINING = (
    "base_model_name_or_path",
    "ensure_weight_tying",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "lora_dropout",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
)
_FIXED = {"peft_type": one_of("LORA", None), "bias": one_of("none"), "megatron_core": one_of("megatron.core", None)}


def _unset(value: Any) -> Any:
    """What is not known here may be there, but must not be in use: it could change what the layers mean."""
    if value not in (None, False) and value != {} and value != []:
        raise UnsoundError("is set, which is not supported")
    return value


def _settings(value: Any) -> dict[str, Any]:
    found = mapping(anything)(value)
    others = dict.fromkeys((name for name in found if name not in _OF_TRAINING), _unset)
    return record({}, may={**dict.fromkeys(_OF_TRAINING, anything), **others, **_FIXED, **_READ})(found)  # type: ignore[no-any-return]


def adapter_scales(header: Mapping[str, str], path: str | os.PathLike[str]) -> Scales:
    """How much each layer counts: alpha / rank, or 1 where the header says nothing.

    Args:
        header: The file's.
        path: The file, for errors.

    Raises:
        DataError: The settings are damaged, or use something of peft that is not read here.

    Example:
        >>> scales = adapter_scales({"lora_adapter_metadata": '{"unet.lora_alpha": 2}'}, "lora.safetensors")
        >>> scales("unet.mid_block.attentions.0.proj_in", 4)
        0.5
    """
    if _SETTINGS not in header:
        return lambda layer, rank: 1.0
    parts: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
    try:
        for name, value in parse(header[_SETTINGS], mapping(anything)).items():
            part, _, setting = name.partition(".")
            if part in parts:
                parts[part][setting] = value
            else:  # of a network by itself, whose tensors have no prefix either
                parts["unet"][name] = value
        checked = {part: _settings(settings) for part, settings in parts.items()}
    except UnsoundError as error:
        raise DataError(f"{path}: its header's {_SETTINGS} cannot be used: {error}") from error
    return lambda layer, rank: _scale(checked, layer, rank)


def _scale(parts: Mapping[str, Mapping[str, Any]], layer: str, rank: int) -> float:
    part, _, name = layer.partition(".")
    settings, name = (parts[part], name) if part in parts else (parts["unet"], layer)
    alphas = settings.get("alpha_pattern", {})
    alpha = next(
        (alphas[known] for known in alphas if name == known or name.endswith(f".{known}")),
        settings.get("lora_alpha"),
    )
    if alpha is None:
        return 1.0
    return float(alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank))
