"""LoRA files: our own, diffusers' and kohya's, onto a base model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sgdmix_albu.errors import DataError
from sgdmix_albu.optional import import_optional
from sgdmix_albu.refine.components import Components

__all__ = ["apply_lora", "read_safetensors"]

_NAMES = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}
_BLOCKS = ("down_blocks.", "mid_block.", "up_blocks.")  # how a UNet's names begin where a file leaves "unet." out


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file.

    Raises:
        DataError: No such file, damaged, or a pickle (``.bin``, ``.pt``, ``.ckpt``), with the way to convert it.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise DataError(
            f"expected a .safetensors file, got {path}. Files like .bin, .pt and .ckpt are pickles, which can run any "
            "code when they are read. If you trust it, convert it once: "
            'python -c "import torch, safetensors.torch as s; '
            f"s.save_file(torch.load('{path}', weights_only=True), '{path.with_suffix('.safetensors')}')\""
        )
    safetensors = import_optional("safetensors", extra="diffusion")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError as error:
        raise DataError(f"cannot read {path}: no such file") from error
    except Exception as error:  # SafetensorError has no stable home, and a folder or odd bytes raise others
        raise DataError(f"cannot read {path}: {error}") from error


def apply_lora(
    components: Components, path: str | os.PathLike[str], *, scale: float = 1.0, name: str = "refiner"
) -> int:
    """Merge a LoRA file into UNet and text encoder.

    Args:
        components: The base model, changed in place.
        path: A safetensors file in the format of this package, diffusers or kohya.
        scale: How much of it is added.
        name: The adapter's name while it is being merged.

    Returns:
        Number of layers that it changed.

    Raises:
        DataError: It fits another kind of base, or no layer of this one.
    """
    state, header = read_safetensors(path)
    mixin = _mixin(components)
    try:
        found = mixin.lora_state_dict(dict(state), unet_config=components.unet.config, return_lora_metadata=True)
        layers, alphas = found[0], found[1]
    # Converters meet files of foreign make with errors of many kinds.
    except Exception as error:
        raise DataError(f"{path} is no LoRA file that can be read: {error}") from error
    layers = {f"unet.{key}" if key.startswith(_BLOCKS) else key: value for key, value in layers.items()}
    _check_width(components, layers, path)
    applied = 0
    for part, model in _targets(components):
        own = {key: value for key, value in layers.items() if key.startswith(f"{part}.")}
        if own:
            applied += _merge(mixin, part, model, own, alphas, _metadata(header), scale, name, path)
    if not applied:
        example = next(iter(state), "nothing at all")
        raise DataError(
            f"no layer of {path} fits the base {components.folder}: none of its {len(state)} tensors "
            f"(such as {example!r}) names an attention layer that is there"
        )
    return applied


def _mixin(components: Components) -> Any:
    loaders = import_optional("diffusers.loaders", extra="diffusion")
    xl = components.architecture == "sdxl"
    return loaders.StableDiffusionXLLoraLoaderMixin if xl else loaders.StableDiffusionLoraLoaderMixin


def _targets(components: Components) -> list[tuple[str, Any]]:
    return [("unet", components.unet), *((encoder.name, encoder.model) for encoder in components.encoders)]


def _merge(
    mixin: Any,
    part: str,
    model: Any,
    layers: dict[str, Tensor],
    alphas: Mapping[str, float] | None,
    metadata: Any,
    scale: float,
    name: str,
    path: str | os.PathLike[str],
) -> int:
    """Load, count, add to the weights, and take the adapter out again; the number of layers."""
    tuners = import_optional("peft.tuners.tuners_utils", extra="diffusion")
    known = {key: value for key, value in (alphas or {}).items() if key.startswith(f"{part}.")} or None
    try:
        if part == "unet":
            mixin.load_lora_into_unet(layers, known, model, adapter_name=name, metadata=metadata)
        else:
            mixin.load_lora_into_text_encoder(layers, known, model, prefix=part, adapter_name=name, metadata=metadata)
    except Exception as error:  # peft: shapes that differ (RuntimeError), no module of such a name (ValueError)
        raise DataError(f"{path} does not fit this base: {str(error).strip().splitlines()[0]}") from error
    tuned = [
        layer for layer in model.modules() if isinstance(layer, tuners.BaseTunerLayer) and name in layer.active_adapters
    ]
    for layer in tuned:
        layer.set_scale(name, scale)  # type: ignore[operator, unused-ignore]
        layer.merge(adapter_names=[name])  # type: ignore[operator, unused-ignore]
    utils = import_optional("diffusers.utils.peft_utils", extra="diffusion")
    utils.recurse_remove_peft_layers(model)
    for left in ("peft_config", "_hf_peft_config_loaded"):
        if hasattr(model, left):
            delattr(model, left)
    return len(tuned)


def _metadata(header: Mapping[str, str]) -> Any:
    """The adapter's settings as diffusers keeps them in the header, or None."""
    try:
        return json.loads(header["lora_adapter_metadata"])
    except (KeyError, ValueError):
        return None


def _check_width(components: Components, layers: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """A LoRA for another base shows in how many numbers its attention to the text takes in."""
    here = components.unet.config.cross_attention_dim
    for key, value in layers.items():
        if ".attn2.to_k." in key and key.endswith(("lora_A.weight", "lora.down.weight", "lora_down.weight")):
            if value.shape[-1] != here:
                made, is_ = (
                    f"{_NAMES.get(size, 'another base')} (text width {size})" for size in (value.shape[-1], here)
                )
                raise DataError(
                    f"{path} was made for {made}, the base {components.folder} is {is_}; pass base= to match"
                )
            return
