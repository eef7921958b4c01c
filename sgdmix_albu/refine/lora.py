"""LoRA files: our own, diffusers' and kohya's, onto a base model."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from sgdmix_albu.errors import DataError
from sgdmix_albu.refine.adapters import Scales, adapter_scales
from sgdmix_albu.refine.components import Components
from sgdmix_albu.refine.tensors import read_safetensors
from sgdmix_albu.registry import import_optional

_NAMES = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}
_BLOCKS = ("down_blocks.", "mid_block.", "up_blocks.")  # how a UNet's names begin where a file leaves "unet." out
# The two matrices of a layer as kohya, peft, older diffusers and its text encoders name them.
_MATRICES = (
    ("lora_down", "lora_up"),
    ("lora_A", "lora_B"),
    ("lora.down", "lora.up"),
    ("lora_linear_layer.down", "lora_linear_layer.up"),
)
_DORA = ("dora_scale", "lora_magnitude_vector")


def apply_lora(components: Components, path: str | os.PathLike[str], *, scale: float = 1.0) -> int:
    """Merge a LoRA file into UNet and text encoder: W + scale * alpha / rank * up @ down, layer by layer.

    Args:
        components: The base model, changed in place.
        path: A safetensors file in the format of this package, diffusers or kohya.
        scale: How much of it is added.

    Returns:
        Number of layers that it changed.

    Raises:
        DataError: It fits another kind of base, or no layer of this one; or it is a DoRA, whose weights are scaled
            by lengths of their own besides.
    """
    # A LoRA is a part of its base, in single precision at most.
    parameters = sum(value.numel() for _, model in _targets(components) for value in model.parameters())
    state, header = read_safetensors(path, most=8 * parameters)
    if any(name.endswith(_DORA) or ".lora_magnitude_vector." in name for name in state):
        raise DataError(f"{path} is a DoRA file, which is not supported; export it merged into a base")
    state = _scaled(state, adapter_scales(header, path), path)
    loaders = import_optional("diffusers.loaders", extra="diffusion")
    xl = "XL" if components.architecture == "sdxl" else ""
    mixin = getattr(loaders, f"StableDiffusion{xl}LoraLoaderMixin")
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
            applied += _merge(part, model, _named_as_modules(part, own, path), scale, path)
    if not applied:
        example = next(iter(state), "nothing at all")
        raise DataError(
            f"no layer of {path} fits the base {components.folder}: none of its {len(state)} tensors "
            f"(such as {example!r}) names one of its attention layers"
        )
    return applied


def _scaled(state: Mapping[str, Tensor], scales: Scales, path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The same LoRA with each layer's alpha / rank multiplied into its second matrix.

    Done before any conversion: diffusers' carry alphas in a pattern of names, of which some match no layer.
    """
    folded = {name: value for name, value in state.items() if not name.endswith(".alpha")}
    pairs = _pairs(folded)
    alphas = {name.removesuffix(".alpha"): value for name, value in state.items() if name.endswith(".alpha")}
    for layer, alpha in alphas.items():
        if not set(pairs.get(layer, [layer])) <= set(folded) or alpha.numel() != 1:
            raise DataError(f"{path} holds {f'{layer}.alpha'!r}, but not the two matrices of that layer")
    for layer, (down, up) in pairs.items():
        if down not in folded or up not in folded:
            raise DataError(f"{path} holds one matrix of {layer!r}, but not the other")
        inside, out = tuple(folded[down].shape), tuple(folded[up].shape)
        if not {len(inside), len(out)} <= {2, 4} or inside[0] != out[1] or any(side != 1 for side in out[2:]):
            raise DataError(
                f"{path}: the matrices of {layer!r} must be (rank, inputs) and (outputs, rank), got {inside} and {out}"
            )
        rank = inside[0]
        scale = alphas[layer].item() / rank if layer in alphas else scales(layer, rank)
        if scale == 0:
            raise DataError(f"{path} gives {layer!r} an alpha of 0, with which it would do nothing")
        if scale != 1:
            folded[up] = folded[up].float() * scale
    return folded


def _pairs(names: Collection[str]) -> dict[str, tuple[str, str]]:
    """The names of the two matrices of each layer that any of the names is of."""
    pairs = {}
    for name, (down, up) in itertools.product(names, _MATRICES):
        for part in (down, up):
            layer = name.removesuffix(f".{part}.weight")
            if layer != name:
                pairs[layer] = f"{layer}.{down}.weight", f"{layer}.{up}.weight"
    return pairs


def _targets(components: Components) -> list[tuple[str, Any]]:
    return [("unet", components.unet), *((encoder.name, encoder.model) for encoder in components.encoders)]


def _named_as_modules(part: str, layers: Mapping[str, Tensor], path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The matrices as ``MODULE.lora_A.weight`` and ``MODULE.lora_B.weight``, whichever of diffusers' names they had."""
    utils = import_optional("diffusers.utils", extra="diffusion")
    state = {key.removeprefix(f"{part}."): value for key, value in layers.items()}
    try:
        if part == "unet":
            return dict(utils.convert_unet_state_dict_to_peft(state))
        return dict(utils.convert_state_dict_to_peft(utils.convert_state_dict_to_diffusers(state)))
    except Exception as error:  # a converter that knows no such names
        raise DataError(f"{path} does not fit this base: {error}") from error


@torch.no_grad()
def _merge(part: str, model: Any, layers: Mapping[str, Tensor], scale: float, path: str | os.PathLike[str]) -> int:
    """Add the product of each layer's matrices to its weights; the number of layers."""
    modules = dict(model.named_modules())
    pairs = _pairs(layers)
    more = set(layers).difference(*pairs.values())
    if more:
        raise DataError(f"{path} holds {min(more)!r}: more than the two matrices of a LoRA's layer are not supported")
    merged = 0
    for name, (down, up) in pairs.items():
        # transformers 5 flattened the text model, and files of before have its name in theirs.
        weight = getattr(modules.get(name, modules.get(name.removeprefix("text_model."))), "weight", None)
        if weight is None:
            continue
        first, second = (layers[key].to(weight.device).float() for key in (down, up))
        if first[0].numel() * len(second) != weight.numel() or len(second) != len(weight):
            raise DataError(
                f"{path} does not fit this base: {part}.{name} has weights {tuple(weight.shape)}, the file is for "
                f"{len(second)} outputs of {tuple(first.shape[1:])} inputs"
            )
        change = second.flatten(1) @ first.flatten(1)
        weight.copy_(weight.float() + scale * change.view(weight.shape))
        merged += 1
    return merged


def _check_width(components: Components, layers: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """A LoRA for another base shows in how many numbers its attention to the text takes in."""
    here = components.unet.config.cross_attention_dim
    for key, value in layers.items():
        if ".attn2.to_k." in key and key.endswith(("lora_A.weight", "lora.down.weight", "lora_down.weight")):
            if value.shape[-1] != here:
                sizes = (value.shape[-1], here)
                made, is_ = (f"{_NAMES.get(size, 'another base')} (text width {size})" for size in sizes)
                raise DataError(
                    f"{path} was made for {made}, the base {components.folder} is {is_}; pass base= to match"
                )
            return
