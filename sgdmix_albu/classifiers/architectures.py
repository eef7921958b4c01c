"""Networks by name: those that torchvision and timm know, with any number of classes, for images of any size."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import nn

from sgdmix_albu.errors import InvalidInputError, UnknownNameError
from sgdmix_albu.registry import import_optional, nearest_names


def libraries(arch: str, side: int | None = None) -> Iterator[tuple[str, Callable[[int], nn.Module]]]:
    """Each library that knows the name, and how it builds the model with a number of classes."""
    models = import_optional("torchvision.models")
    known = models.list_models(module=models)
    found = False
    if arch in known:
        found = True
        options = {} if side is None or patch_of(arch) is None else {"image_size": side}
        yield "torchvision", lambda classes: models.get_model(arch, weights=None, num_classes=classes, **options)
    try:
        timm = import_optional("timm")
    except ImportError:
        timm = None
    if timm is not None and timm.is_model(arch):
        found = True
        yield "timm", lambda classes: timm.create_model(arch, pretrained=False, num_classes=classes)
    if not found:
        where = "torchvision" if timm is None else "torchvision and timm"
        everything = known if timm is None else known + timm.list_models()
        note = "; timm, which knows more, is not installed" if timm is None else ""
        raise UnknownNameError(f"{where} know no classifier {arch!r}{nearest_names(arch, everything)}{note}")


def patch_of(arch: str) -> int | None:
    """Side of the patches of torchvision's vision transformers, ``vit_b_16``; they are made for images of one size."""
    name = re.fullmatch(r"vit_[blh]_(\d+)", arch)
    return int(name[1]) if name else None


def check_size(arch: str, size: int | None) -> None:
    """Refuse images that are not made of whole patches.

    Raises:
        InvalidInputError: They are not.
    """
    patch = patch_of(arch)
    if size is not None and patch is not None and size % patch:
        raise InvalidInputError(f"{arch} takes images whose side is a multiple of {patch} pixels, got {size}")


def at_size(model: nn.Module, arch: str, classes: int, size: int | None) -> nn.Module:
    """The same model for images of another size, where it is one that cares."""
    transformers = import_optional("torchvision.models.vision_transformer")
    if size is None or not isinstance(model, transformers.VisionTransformer) or model.image_size == size:
        return model
    other = build(next(libraries(arch, size))[1], classes)
    other.load_state_dict(transformers.interpolate_embeddings(size, model.patch_size, model.state_dict()))
    return other


def build(builder: Callable[[int], nn.Module], classes: int) -> nn.Module:
    """A model with random weights, which are about to be replaced: the caller's random state does not notice."""
    with torch.random.fork_rng():
        return quietly(builder, classes)


def quietly(builder: Callable[[int], nn.Module], classes: int) -> nn.Module:
    """The same with weights from torch's generator."""
    with warnings.catch_warnings():  # some torchvision models warn of their slow initialisation
        warnings.simplefilter("ignore")
        return builder(classes)
