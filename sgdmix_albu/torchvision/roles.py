"""What part a leaf of a sample plays in a mix: its type decides, then what the user says, then its key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from torch import Tensor
from torchvision import tv_tensors

from sgdmix_albu.arguments import said
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.saliency.given import SaliencyMap

Name: TypeAlias = "str | int | tuple[int, ...]"
Role: TypeAlias = Literal["image", "mask", "instances", "keep"]

# Words in a key that say what lies there, for tensors whose type does not say it.
IMAGE_WORDS = {"image", "images", "img", "imgs", "pixel", "pixels", "rgb", "photo", "photos", "picture", "pictures"}
MASK_WORDS = {"mask", "masks", "seg", "segmentation", "segmentations", "semantic", "depth", "depths", "disparity"}
OBJECT_WORDS = {"box", "boxes", "bbox", "bboxes", "keypoint", "keypoints"}

_REMEDY = (
    "Wrap it as tv_tensors.Mask or tv_tensors.Image (default_collate and pin_memory drop these types; "
    "sgdmix_albu.saliency.collate keeps them), or say roles={{{name!r}: 'mask'}}, 'image', 'instances' or 'keep'"
)


@dataclass(frozen=True)
class Leaf:
    """One leaf of the sample and what its place says of it."""

    place: int
    value: Any
    name: Name
    path: tuple[Any, ...]
    row: int | None = None  # the image it belongs to; None if its i-th entry belongs to the i-th image

    @property
    def listed(self) -> bool:
        """Whether it lies in a list itself, under no key of its own."""
        return bool(self.path) and hasattr(self.path[-1], "idx")

    @property
    def group(self) -> Name:
        """What the entries of one list share: their key, or the list's own place."""
        return self.name[:-1] if self.listed and isinstance(self.name, tuple) else self.name

    @property
    def words(self) -> set[str]:
        """Those of its key, in small letters."""
        return set(re.split(r"[^a-z]+", self.name.lower())) if isinstance(self.name, str) else set()

    @property
    def plain(self) -> bool:
        """Whether it is a tensor or an array whose type says nothing."""
        return isinstance(self.value, Tensor | np.ndarray) and not isinstance(self.value, tv_tensors.TVTensor)

    def __str__(self) -> str:
        where = f"image {self.row}'s {self.name!r}" if self.row is not None else repr(self.name)
        return f"{type(self.value).__name__} {tuple(self.value.shape)} at {where}"


def check_roles(roles: Any) -> dict[Name, Role]:
    """The roles that a user named, or a clear refusal."""
    if roles is None:
        return {}
    known = get_args(Role)
    if not isinstance(roles, Mapping) or not all(isinstance(role, str) and role in known for role in roles.values()):
        raise InvalidInputError(f"roles must map keys or places of the sample to {', '.join(known)}, got {said(roles)}")
    return dict(roles)


def role_of(leaf: Leaf, images: Tensor, roles: Mapping[Name, Role], leaves: list[Leaf], with_boxes: list[Leaf]) -> Role:
    """What to do with a leaf that is none of the images."""
    value = leaf.value
    said = roles.get(leaf.name)
    if said is not None and (said == "keep" or isinstance(value, Tensor)):
        _check_said(leaf, said, images)
        return said
    if isinstance(value, SaliencyMap):
        return "keep"
    if isinstance(value, tv_tensors.Mask):
        return _mask_role(leaf, images, leaves, with_boxes)
    if isinstance(value, tv_tensors.BoundingBoxes | tv_tensors.KeyPoints):
        return _object_role(leaf, images)
    if not leaf.plain:
        return "keep"
    return _plain_role(leaf, images, leaves, with_boxes)


def _plain_role(leaf: Leaf, images: Tensor, leaves: list[Leaf], with_boxes: list[Leaf]) -> Role:
    value, words = leaf.value, leaf.words
    if words & OBJECT_WORDS and value.ndim >= 1 and value.shape[-1] in (2, 3, 4, 5, 8) and len(value):
        raise InvalidInputError(
            f"{leaf} has no type that says its format, so what the mix erased cannot be taken out of it: wrap it as "
            "tv_tensors.BoundingBoxes or KeyPoints (default_collate and pin_memory drop these types), or say "
            f"roles={{{leaf.name!r}: 'keep'}}"
        )
    if words & {"saliency"}:
        return "keep"
    of_each = value.ndim >= 2 if leaf.row is not None else value.ndim >= 3 and len(value) == len(images)
    if words & MASK_WORDS and of_each:
        if isinstance(value, Tensor):
            return _mask_role(leaf, images, leaves, with_boxes)
    elif not of_each or tuple(value.shape[-2:]) != tuple(images.shape[-2:]):
        return "keep"
    raise InvalidInputError(
        f"{leaf} has the size of the images {tuple(images.shape)}, and nothing says what it is: mixed or not, it could "
        "be wrong. " + _REMEDY.format(name=leaf.name)
    )


def _mask_role(leaf: Leaf, images: Tensor, leaves: list[Leaf], with_boxes: list[Leaf]) -> Role:
    """Semantic masks have one map for each image; several are instances, and must be said where it is not plain."""
    shape = tuple(leaf.value.shape)
    if leaf.row is not None:
        alike = [other for other in leaves if other.group == leaf.group and other.row is not None]
        if len(shape) == 2:
            return "mask"
        if shape[-2:] != tuple(images.shape[-2:]):
            raise InvalidInputError(f"{leaf} has another size than the images {tuple(images.shape)}")
        if any(len(other.value) != 1 for other in alike) or any(box.row == leaf.row for box in with_boxes):
            return "instances"
        raise InvalidInputError(f"{leaf} may be a semantic mask or one instance: say {_roles_for(leaf)}")
    one_map = len(shape) == 3 or (len(shape) == 4 and shape[1] == 1)
    if shape[:1] == (len(images),) and len(shape) > 2 and not one_map:
        raise InvalidInputError(
            f"{leaf} has several maps for each image, which may be classes or instances: say {_roles_for(leaf)}"
        )
    counts = {len(box.value) for box in with_boxes if box.row is None}
    if len(images) > 1 and len(shape) == 3 and counts == {shape[0]}:
        raise InvalidInputError(
            f"{leaf} comes with as many boxes, so it may be semantic masks of the images or instances of them: say "
            f"{_roles_for(leaf)}"
        )
    return "mask"


def _roles_for(leaf: Leaf) -> str:
    return f"roles={{{leaf.name!r}: 'mask'}} (composited) or 'instances' (each loses what the mix erased)"


def _object_role(leaf: Leaf, images: Tensor) -> Role:
    """Boxes and points are cut; whose they are must be known."""
    canvas = getattr(leaf.value, "canvas_size", None)
    if canvas is not None and tuple(canvas) != tuple(images.shape[-2:]):
        raise InvalidInputError(
            f"{leaf} has a canvas of {tuple(canvas)}, and the images are {tuple(images.shape[-2:])}"
        )
    if leaf.row is None and len(leaf.value) != len(images) and len(images) != 1:
        raise InvalidInputError(
            f"{leaf}: {len(leaf.value)} for {len(images)} images, so nothing says which image each belongs to. Give a "
            f"list with one {type(leaf.value).__name__} for each image, or say roles={{{leaf.name!r}: 'keep'}}"
        )
    return "instances"


def _check_said(leaf: Leaf, said: Role, images: Tensor) -> None:
    """Refuse a role that cannot be played."""
    shape, size = tuple(leaf.value.shape), tuple(images.shape[-2:])
    if said == "keep":
        return
    if isinstance(leaf.value, tv_tensors.BoundingBoxes | tv_tensors.KeyPoints):
        if said != "instances":
            raise InvalidInputError(f"roles: {leaf} can be 'instances' or 'keep', not {said!r}")
        _object_role(leaf, images)
        return
    dims = len(shape) - (leaf.row is None)
    if shape[-2:] != size or dims < 2 or (leaf.row is None and shape[0] != len(images)):
        count = "" if leaf.row is not None else f"{len(images)}, "
        raise InvalidInputError(
            f"roles: {said!r} must be ({count}..., {size[0]}, {size[1]}) like the images, and {leaf} is not"
        )
