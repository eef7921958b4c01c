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
# The two matrices of a layer as kohya, peft and older diffusers name them.
_MATRICES = (("lora_down", "lora_up"), ("lora_A", "lora_B"), ("lora.down", "lora.up"))
_DORA = ("dora_scale", "lora_magnitude_vector")


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file.

    Raises:
        DataError: No such file, damaged, NaN or infinite numbers in it, or a pickle (``.bin``, ``.pt``, ``.ckpt``),
            with the way to convert it.
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
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise DataError(f"cannot read {path}: no such file") from error
    except Exception as error:  # SafetensorError has no stable home, and a folder or odd bytes raise others
        raise DataError(f"cannot read {path}: {error}") from error
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise DataError(f"{path} holds NaN or infinite numbers, in {broken[0]!r} and {len(broken)} tensor(s) in all")
    return tensors, header


def apply_lora(
    components: Components, path: str | os.PathLike[str], *, scale: float = 1.0, name: str = "refiner"
) -> int:
    """Merge a LoRA file into UNet and text encoder: W + scale * alpha / rank * up @ down, layer by layer.

    Args:
        components: The base model, changed in place.
        path: A safetensors file in the format of this package, diffusers or kohya.
        scale: How much of it is added.
        name: The adapter's name while it is being merged.

    Returns:
        Number of layers that it changed.

    Raises:
        DataError: It fits another kind of base, or no layer of this one; or it is a DoRA, whose weights are scaled
            by lengths of their own besides.
    """
    state, header = read_safetensors(path)
    if any(name.endswith(_DORA) or ".lora_magnitude_vector." in name for name in state):
        raise DataError(f"{path} is a DoRA file, which is not read here; let its trainer export it merged, as a base")
    state = _without_alphas(state, path)
    mixin = _mixin(components)
    try:
        layers = mixin.lora_state_dict(dict(state), unet_config=components.unet.config, return_lora_metadata=True)[0]
    # Converters meet files of foreign make with errors of many kinds.
    except Exception as error:
        raise DataError(f"{path} is no LoRA file that can be read: {error}") from error
    layers = {f"unet.{key}" if key.startswith(_BLOCKS) else key: value for key, value in layers.items()}
    _check_width(components, layers, path)
    applied = 0
    for part, model in _targets(components):
        own = {key: value for key, value in layers.items() if key.startswith(f"{part}.")}
        if own:
            applied += _merge(mixin, part, model, own, _metadata(header), scale, name, path)
    if not applied:
        example = next(iter(state), "nothing at all")
        raise DataError(
            f"no layer of {path} fits the base {components.folder}: none of its {len(state)} tensors "
            f"(such as {example!r}) names an attention layer that is there"
        )
    return applied


def _without_alphas(state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The same LoRA with each layer's alpha / rank multiplied into its second matrix.

    diffusers carries alphas in a pattern of names, of which some match no layer: where alphas differ, most layers
    then get another layer's.
    """
    folded = {name: value for name, value in state.items() if not name.endswith(".alpha")}
    for name, alpha in state.items():
        if not name.endswith(".alpha"):
            continue
        layer = name.removesuffix(".alpha")
        pairs = [(f"{layer}.{down}.weight", f"{layer}.{up}.weight") for down, up in _MATRICES]
        down, up = next((pair for pair in pairs if set(pair) <= set(folded)), (None, None))
        if down is None or up is None or alpha.numel() != 1:
            raise DataError(f"{path} holds {name!r}, but not the two matrices of that layer")
        folded[up] = folded[up].float() * (alpha.item() / folded[down].shape[0])
    return folded


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
    metadata: Any,
    scale: float,
    name: str,
    path: str | os.PathLike[str],
) -> int:
    """Load, count, add to the weights, and take the adapter out again; the number of layers."""
    tuners = import_optional("peft.tuners.tuners_utils", extra="diffusion")
    try:
        if part == "unet":
            mixin.load_lora_into_unet(layers, None, model, adapter_name=name, metadata=metadata)
        else:
            mixin.load_lora_into_text_encoder(layers, None, model, prefix=part, adapter_name=name, metadata=metadata)
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
