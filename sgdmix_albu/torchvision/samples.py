"""Finding one's way in a torchvision sample: labels, maps and ids; what to mix, what to cut, what to leave alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten_with_path
from torchvision import tv_tensors

from sgdmix_albu.arguments import said
from sgdmix_albu.errors import InvalidInputError, InvalidTypeError
from sgdmix_albu.saliency.given import SaliencyMap
from sgdmix_albu.tensors import PIXELS, check_tensor
from sgdmix_albu.torchvision.roles import IMAGE_WORDS, MASK_WORDS, OBJECT_WORDS, Leaf, Name, Role, role_of


@dataclass(frozen=True)
class Mixed:
    """A batch to composite: an image, or a mask of one map for each image.

    Attributes:
        batch: (B, ..., H, W), an Image, a plain tensor or a Mask.
        places: Where it lies among the leaves: one place, or one for each image.
        hard: A mask, whose values cannot fade into each other.
        like: The leaf that the result is wrapped like; None if it was a plain tensor.
        stacked: The batch was put together from a list.
    """

    batch: Tensor
    places: tuple[int, ...]
    hard: bool
    like: Any = None
    stacked: bool = False


def read_sample(sample: Any, *, roles: Mapping[Name, Role], aside: Sequence[Any]) -> tuple[list[Mixed], list[Leaf]]:
    """What to mix, the image that saliency looks at first, and leaves of objects that the mix may erase.

    Types decide, then ``roles``, then keys that hold a word like "image", "mask" or "depth". A tensor that could be a
    map of the images, and of which nothing is known, is refused: left as it is, it would no longer fit them.

    Args:
        sample: The input of the transform, any nested structure.
        roles: What lies under a key, or at a place of a tuple.
        aside: Tensors that are known to be something else: labels, saliency maps, ids.

    Raises:
        InvalidInputError: PIL images, videos, shapes that do not belong together, tensors that nothing explains.
        InvalidTypeError: No image.
    """
    leaves = _leaves(sample)
    _check_found(roles, leaves)
    if any(isinstance(leaf.value, PIL.Image.Image) for leaf in leaves):
        raise InvalidInputError("SGDMix() works on batches and does not support PIL images; use v2.PILToTensor()")
    if any(isinstance(leaf.value, tv_tensors.Video) for leaf in leaves):
        raise InvalidInputError("SGDMix() does not support videos; expected batches of images (B, C, H, W)")
    leaves = [leaf for leaf in leaves if not any(leaf.value is other for other in aside)]
    images = _images(leaves, roles)
    first = images[0].value
    if first.ndim != 4:
        raise InvalidInputError(
            f"Expected a batched input with 4 dims (B, C, H, W), but got {first.ndim} dimensions "
            f"{tuple(first.shape)} instead."
        )
    check_tensor(first, "a batch of images (B, C, H, W)", (-1, None, None, None), PIXELS)
    leaves = [replace(leaf, row=_row_of(leaf, sample, len(first), images[0])) for leaf in leaves]
    _check_lists(leaves, len(first), roles)
    places = {leaf.place for leaf in images}
    with_boxes = [leaf for leaf in leaves if isinstance(leaf.value, tv_tensors.BoundingBoxes)]
    mixed = [_as_mixed(leaf, hard=False) for leaf in images]
    erasable: list[Leaf] = []
    maps: dict[Name, list[Leaf]] = {}
    for leaf in leaves:
        role = "image" if leaf.place in places else role_of(leaf, first, roles, leaves, with_boxes)
        if role == "mask" and leaf.row is not None:
            maps.setdefault(leaf.group, []).append(leaf)
        elif role == "mask":
            mixed.append(_as_mixed(leaf, hard=True))
        elif role == "image" and leaf.place not in places:
            mixed.append(_as_mixed(leaf, hard=False))
        elif role == "instances":
            objects = isinstance(leaf.value, tv_tensors.BoundingBoxes | tv_tensors.KeyPoints)
            erasable.append(replace(leaf, row=0) if objects and len(first) == 1 else leaf)
    for name, parts in maps.items():
        mixed.append(_one_batch(name, parts, first))
    for part in mixed[1:]:
        _check_fits(part, first)
    return mixed, erasable


def _leaves(sample: Any) -> list[Leaf]:
    leaves = []
    for place, (path, value) in enumerate(tree_flatten_with_path(sample)[0]):
        names = [getattr(key, "key", getattr(key, "name", None)) for key in path]
        spoken = [name for name in names if isinstance(name, str)]
        numbers = tuple(key.idx for key in path if hasattr(key, "idx"))
        name = spoken[-1] if spoken else numbers[0] if len(numbers) == 1 else numbers
        leaves.append(Leaf(place, value, name, path))
    return leaves


def _check_found(roles: Mapping[Name, Role], leaves: list[Leaf]) -> None:
    """Refuse roles for what is not there: a slip of the pen would leave a tensor as it was."""
    names = {leaf.name for leaf in leaves}
    missing = [name for name in roles if name not in names]
    if missing:
        raise InvalidInputError(
            f"roles names {missing[0]!r}, and the sample holds {', '.join(sorted(map(repr, names))) or 'nothing'}"
        )
    for leaf in leaves:
        if isinstance(leaf.value, np.ndarray) and roles.get(leaf.name, "keep") != "keep":
            raise InvalidInputError(
                f"roles: {roles[leaf.name]!r} must be a tensor, and {leaf} is not: use torch.from_numpy, or say 'keep'"
            )


def _images(leaves: list[Leaf], roles: Mapping[Name, Role]) -> list[Leaf]:
    """The images, the one that saliency looks at first."""
    free = [leaf for leaf in leaves if leaf.name not in roles]
    said = [leaf for leaf in leaves if roles.get(leaf.name) == "image" and isinstance(leaf.value, Tensor)]
    typed = [leaf for leaf in free if isinstance(leaf.value, tv_tensors.Image)]
    plain = [leaf for leaf in free if leaf.plain and isinstance(leaf.value, Tensor)]
    named = [leaf for leaf in plain if leaf.words & IMAGE_WORDS and not leaf.words & MASK_WORDS and leaf.value.ndim > 2]
    unknown = [leaf for leaf in plain if not leaf.words & (MASK_WORDS | OBJECT_WORDS | {"saliency", "label", "labels"})]
    # A tensor of an image's dimensions before tensors of any: indices, lengths and the like come first in some samples.
    unknown.sort(key=lambda leaf: leaf.value.ndim != 4)
    # Features of images (B, n, d) are no images where there is a batch of them.
    named = [leaf for leaf in named if leaf.value.ndim == 4] or named
    found = said + typed if typed else said + named
    images = sorted(found, key=lambda leaf: (leaf.value.ndim != 4, leaf.place)) or unknown[:1]
    if not images:
        kinds = sorted({type(leaf.value).__name__ for leaf in leaves})
        raise InvalidTypeError(f"No image was found in the sample; it holds {', '.join(kinds) or 'nothing'}.")
    return images


def _row_of(leaf: Leaf, sample: Any, count: int, images: Leaf) -> int | None:
    """The image that a leaf belongs to, where the sample holds a list with an entry for each image.

    A list that holds the batch of images itself is none.
    """
    node = sample
    for depth, key in enumerate(leaf.path):
        apart = leaf.path[:depth] != images.path[:depth]
        if apart and hasattr(key, "idx") and _one_for_each(node, count):
            row: int = key.idx
            return row
        node = key.get(node)
    return None


def _check_lists(leaves: list[Leaf], count: int, roles: Mapping[Name, Role]) -> None:
    """Refuse as many Masks as images, each with as many maps: the images' instances, or whole batches of masks.

    Where boxes stand in a list too, so do instances; a dictionary for each image, or one for all, has its own name.
    """
    bare = [leaf for leaf in leaves if leaf.row is not None and leaf.listed]
    if any(isinstance(leaf.value, tv_tensors.BoundingBoxes) for leaf in bare):
        return
    masks = [leaf for leaf in bare if isinstance(leaf.value, tv_tensors.Mask) and leaf.name not in roles]
    if count > 1 and masks and all(leaf.value.ndim == 3 and len(leaf.value) == count for leaf in masks):
        raise InvalidInputError(
            f"{masks[0]} is in a list of {count}, as many as there are images, so these may be instances of each "
            "image or semantic masks of all. Give instances as one dictionary for each image ([{'masks': ...}, ...]), "
            "semantic masks as entries of one ({'first': ..., 'second': ...})"
        )


def _one_for_each(node: Any, count: int) -> bool:
    """Whether this list has an entry for each image: targets as detection models take them."""
    if not isinstance(node, list | tuple) or len(node) != count:
        return False
    if all(isinstance(entry, Mapping) for entry in node):
        return True
    objects = (tv_tensors.BoundingBoxes, tv_tensors.KeyPoints, tv_tensors.Mask)
    return all(isinstance(entry, objects) for entry in node) and len({type(entry) for entry in node}) == 1


def _as_mixed(leaf: Leaf, *, hard: bool) -> Mixed:
    typed = isinstance(leaf.value, tv_tensors.TVTensor)
    return Mixed(leaf.value.as_subclass(Tensor), (leaf.place,), hard, leaf.value if typed else None)


def _one_batch(name: Name, parts: list[Leaf], images: Tensor) -> Mixed:
    """Semantic masks of a list, one for each image, as one batch."""
    parts = sorted(parts, key=lambda leaf: leaf.row or 0)
    shapes = sorted({tuple(part.value.shape) for part in parts})
    if len(parts) != len(images) or len(shapes) > 1 or shapes[0][-2:] != tuple(images.shape[-2:]):
        raise InvalidInputError(
            f"expected one {name!r} of (..., {images.shape[-2]}, {images.shape[-1]}) for each of {len(images)} images, "
            f"got {len(parts)} of {', '.join(map(str, shapes))}"
        )
    like = parts[0].value if isinstance(parts[0].value, tv_tensors.TVTensor) else None
    stacked = torch.stack([part.value.as_subclass(Tensor) for part in parts])
    return Mixed(stacked, tuple(part.place for part in parts), True, like, stacked=True)


def _check_fits(part: Mixed, images: Tensor) -> None:
    """Refuse a batch whose tensors do not belong together, in the words of torchvision's ``CutMix``."""
    batch = part.batch
    check_tensor(batch, "images and masks of real numbers", (), PIXELS, more=True)
    if batch.ndim < 3 or batch.shape[0] != images.shape[0] or batch.shape[-2:] != images.shape[-2:]:
        kind = "Tensor" if part.like is None else type(part.like).__name__
        raise InvalidInputError(
            f"Expected every image and mask of the batch to be ({len(images)}, ..., {images.shape[-2]}, "
            f"{images.shape[-1]}) like the first image, but got {kind} {tuple(batch.shape)}. Instance masks go into a "
            "list with one Mask (n, H, W) for each image."
        )


Getter: TypeAlias = Callable[[Any], Any]


def check_getters(labels_getter: Any, saliency_getter: Any, key_getter: Any) -> None:
    """Refuse what cannot find a thing in a sample."""
    default = isinstance(labels_getter, str) and labels_getter == "default"
    if labels_getter is not None and not callable(labels_getter) and not default:
        raise InvalidInputError(f"labels_getter must be 'default', a callable or None, got {said(labels_getter)}")
    if saliency_getter is not None and not callable(saliency_getter):
        raise InvalidInputError(f"saliency_getter must be a callable or None, got {said(saliency_getter)}")
    if key_getter is not None and not isinstance(key_getter, str) and not callable(key_getter):
        raise InvalidInputError(f"key_getter must be a key, a callable or None, got {said(key_getter)}")


def labels_in(sample: Any, getter: Any) -> Any:
    """The labels, or None."""
    return None if getter is None else default_labels(sample) if getter == "default" else getter(sample)


def default_labels(sample: Any) -> Any:
    """Torchvision's default for ``CutMix``: the second argument, or the value of the first key with "label".

    Where torchvision raises because there are no labels, there are none here: few uses need them. Lists and numpy
    arrays of numbers are found too.
    """
    if isinstance(sample, tuple | list):
        sample = sample[1] if len(sample) > 1 else None
    if isinstance(sample, Mapping):
        names = [key for key in sample if isinstance(key, str) and "label" in key.lower()]
        names.sort(key=lambda key: key.lower() != "labels")
        return next((sample[key] for key in names if _may_be_labels(sample[key])), None)
    return sample if _may_be_labels(sample) else None


def no_labels(what: str) -> InvalidInputError:
    """The error where ``what`` needs labels: it says where they were looked for."""
    return InvalidInputError(
        f"{what} needs labels, and none were found: they are looked for in the second place of a tuple and under keys "
        "with 'label' in them; for another place say labels_getter=lambda batch: batch['cls']"
    )


def _may_be_labels(value: Any) -> bool:
    if isinstance(value, Tensor | np.ndarray):
        return not isinstance(value, tv_tensors.TVTensor) and value.ndim in (1, 2)
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], int | float | np.number)


def keys_in(sample: Any, getter: Any) -> Any:
    """Which sample each image is, or None where the user does not say where that stands."""
    if getter is None or callable(getter):
        return None if getter is None else getter(sample)
    holders = [part for part in (sample if isinstance(sample, tuple | list) else [sample]) if isinstance(part, Mapping)]
    found = next((part[getter] for part in holders if getter in part), None)
    if found is None:
        keys = sorted({str(key) for part in holders for key in part})
        raise InvalidInputError(
            f"key_getter={getter!r} found no such key in the input; it has {', '.join(keys) or 'no keys'}"
        )
    return found


def maps_in(sample: Any, flat: list[Any], getter: Getter | None) -> Tensor | None:
    """Saliency maps that come with the sample, whose leaves are ``flat``, or None."""
    if getter is not None:
        found = getter(sample)
    else:
        found = next((leaf for leaf in flat if isinstance(leaf, SaliencyMap)), None)
        if found is None and isinstance(sample, Mapping):
            found = sample.get("saliency")
    if found is not None and not isinstance(found, Tensor):
        raise InvalidInputError(f"given saliency must be a (B, H, W) tensor, got {type(found).__name__}")
    return found
