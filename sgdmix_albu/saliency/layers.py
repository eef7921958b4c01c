"""Finding the layer that Grad-CAM and the other layer attributions look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sgdmix_albu.arguments import said
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.registry import nearest_names
from sgdmix_albu.saliency.tokens import Layout, find_layout, from_grid, to_grid

_LISTED = 8  # candidates named in an error


@dataclass(frozen=True)
class _Event:
    """A layer has given a feature map, or (layout None) an attention layer has begun."""

    order: int
    name: str
    module: nn.Module
    layout: Layout | None

    @property
    def is_norm(self) -> bool:
        return "norm" in type(self.module).__name__.lower()

    @property
    def size(self) -> tuple[int, int] | None:
        return (self.layout.height, self.layout.width) if self.layout else None


def check_layer(layer: Any) -> None:
    """Refuse what is no layer, nor the name of one."""
    if layer is not None and not isinstance(layer, str | nn.Module):
        raise InvalidInputError(f"layer must be a module or a dotted name, got {said(layer)}")


def find_layer(model: nn.Module, layer: str | nn.Module | None, images: Tensor) -> str:
    """The dotted name of the layer to look at; one image is run through the model to see what its layers give.

    With ``layer=None`` it is the layer with the last feature map that tells where things are. In a
    convolutional network that is the last layer whose map has the size of the last convolution's (so after the
    last block's sum and activation, before any pooling). Where tokens follow, as in ViT, DeiT and Swin, it is
    the last normalisation layer; but if a class token gathers the result, patch tokens do not reach the output
    any more by then, so it is the one before the last attention.

    Args:
        model: In evaluation mode.
        layer: A module of ``model``, its dotted name, or None.
        images: (B, C, H, W) model inputs.

    Raises:
        InvalidInputError: ``layer`` is not in the model or gives no feature map, or None fits; the layers that
            do give one are listed.
    """
    events = _run(model, images)
    if layer is None:
        return _last_map(events, type(model).__name__)
    modules = dict(model.named_modules())
    name = layer if isinstance(layer, str) else next((n for n, m in modules.items() if m is layer), None)
    if name is None or name not in modules:
        what = f"layer {layer!r}" if isinstance(layer, str) else f"the {type(layer).__name__} passed as layer"
        near = nearest_names(layer, list(modules)) if isinstance(layer, str) else ""
        raise InvalidInputError(f"{what} is not in {type(model).__name__}{near or '.'} {_candidates(events)}")
    if not any(event.module is modules[name] and event.layout for event in events):
        raise InvalidInputError(f"layer {name!r} of {type(model).__name__} gives no feature map. {_candidates(events)}")
    return name


@contextmanager
def gridded(layer: nn.Module, image_size: tuple[int, int]) -> Iterator[nn.Module]:
    """A module through which the layer's feature map passes as (B, C, h, w), whatever its own layout.

    Attribution methods take the channels to be in dimension 1. So that they see tokens and channels-last maps
    that way, they are given this module in the layer's place; its output goes back into the layer's layout.
    """
    grid = nn.Identity()

    def reroute(_: nn.Module, inputs: Any, output: Any) -> Any:
        tensor = _first_tensor(output)
        layout = None if tensor is None else find_layout(tuple(tensor.shape), image_size)
        if tensor is None or layout is None:
            return output  # a layer that is used more than once may have other outputs too
        passed = from_grid(grid(to_grid(tensor, layout)), tensor, layout)
        return passed if isinstance(output, Tensor) else type(output)([passed, *output[1:]])

    handle = layer.register_forward_hook(reroute)
    try:
        yield grid
    finally:
        handle.remove()


def _first_tensor(output: Any) -> Tensor | None:
    """A layer's output, or the first of several."""
    if isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def _last_map(events: list[_Event], model: str) -> str:
    maps = [event for event in events if event.layout and event.layout.kind == "nchw"]
    convolutions = [event for event in maps if isinstance(event.module, nn.Conv2d)]
    # Attention weights look like maps too, hence the comparison with a convolution's size.
    maps = [event for event in maps if convolutions and event.size == convolutions[-1].size]
    since = maps[-1].order if maps else -1
    tokens = [e for e in events if e.layout and e.layout.kind != "nchw" and e.order > since]
    if not tokens and maps:
        return maps[-1].name
    if any(event.layout and event.layout.prefix for event in tokens):
        attention = max((event.order for event in events if event.layout is None), default=-1)
        tokens = [event for event in tokens if event.is_norm and event.order < attention]
    else:
        tokens = [event for event in tokens if event.is_norm] or tokens
    if not tokens:
        if not any(event.layout for event in events):
            raise InvalidInputError(
                f"{model} has no feature map; use a convolutional network or a ViT, or saliency that needs no layer"
            )
        raise InvalidInputError(f"found no feature map for layer=None in {model}; pass layer=. {_candidates(events)}")
    return tokens[-1].name


def _run(model: nn.Module, images: Tensor) -> list[_Event]:
    """What the layers give for the first image, in the order in which they finish."""
    events: list[_Event] = []
    handles = []
    for name, module in model.named_modules():
        if module is model:
            continue

        def finished(module: nn.Module, _: Any, output: Any, name: str = name) -> None:
            tensor = _first_tensor(output)
            # Windows of an attention layer are stacked into the batch; those are no maps of the image.
            if tensor is not None and tensor.shape[:1] == (1,):
                layout = find_layout(tuple(tensor.shape), (images.shape[-2], images.shape[-1]))
                if layout is not None:
                    events.append(_Event(len(events), name, module, layout))

        def begun(module: nn.Module, _: Any, name: str = name) -> None:
            events.append(_Event(len(events), name, module, None))

        handles.append(module.register_forward_hook(finished))
        if any(word in type(module).__name__.lower() for word in ("attention", "attn")):
            handles.append(module.register_forward_pre_hook(begun))
    try:
        with torch.no_grad():
            model(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    return events


def _candidates(events: list[_Event]) -> str:
    names = list(dict.fromkeys(event.name for event in reversed(events) if event.layout))[:_LISTED]
    return f"Layers with a feature map, last first: {', '.join(names)}" if names else "It has no feature map at all."
