"""Reading a call of Albumentations: which pictures are mixed, and which may become their backgrounds.

A row is a dict of pictures that belong together: ``{"image": ..., "mask": ..., "saliency": ...}``. Sources come
first, the donors of the metadata after them, as in the pool of :func:`sgdmix_albu.mixing.plan_mix`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from sgdmix_albu.albumentations.arrays import Array, from_tensor, resized, to_tensor
from sgdmix_albu.arguments import said
from sgdmix_albu.errors import InvalidInputError

Row: TypeAlias = dict[str, Any]

_PICTURES = {"image", "images", "mask", "masks"}
_UNSUPPORTED = ("volume", "volumes", "mask3d", "masks3d")


@dataclass(frozen=True)
class Pool:
    """The pictures of one call.

    Attributes:
        sources: B rows that are to be mixed.
        donors: D rows of the metadata, as the user gave them.
        batched: Whether the call was about ``images``; else B = 1.
        kinds: For each key that is composited, "image", "mask" or "masks" (a stack of masks of one image).
        instances: Names of the targets whose masks are the source's instances: cut, never composited.
    """

    sources: list[Row]
    donors: list[Row]
    batched: bool
    kinds: dict[str, str]
    instances: list[str]
    _fitted: dict[int, Row] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sources) + len(self.donors)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the sources."""
        height, width = self.sources[0]["image"].shape[:2]
        return height, width

    def given(self, place: int) -> Row:
        """A row as the user gave it."""
        return self.sources[place] if place < len(self.sources) else self.donors[place - len(self.sources)]

    def row(self, place: int) -> Row:
        """Sources as they are; donors brought to the sources' size and number of dimensions."""
        donor = self.given(place)
        if place < len(self.sources):
            return donor
        if place not in self._fitted:
            fitted = {key: _fitted(donor[key], self.sources[0][key], kind) for key, kind in self.kinds.items()}
            self._fitted[place] = donor | fitted
        return self._fitted[place]


class PoolImages(Sequence[Tensor]):
    """The images of some rows of the pool as (C, H, W), brought to the sources' size when they are asked for."""

    def __init__(self, pool: Pool, places: list[int]) -> None:
        self.pool, self.places = pool, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, row: Any) -> Any:
        return to_tensor(self.pool.row(self.places[row])["image"])


def read_pool(
    data: Mapping[str, Any],
    aliases: Mapping[str, str],
    metadata_key: str,
    saliency_key: str,
    instance_keys: Sequence[str] | None = None,
    framed: Sequence[str] = (),
) -> Pool:
    """Find sources and donors in the data of one call, and refuse what cannot be mixed.

    Args:
        data: What the transform was called with.
        aliases: ``additional_targets`` of the pipeline, name to kind.
        metadata_key: Where the donors are.
        saliency_key: The target that holds saliency maps; it is not composited, unless it is "mask".
        instance_keys: Targets whose masks are instances; None for stacks of masks beside one image.
        framed: Targets that hold any number of instances of each of ``images``.

    Raises:
        InvalidInputError: What was expected and what came.
    """
    batched = _is_batch(data)
    if data.get(saliency_key) is not None and saliency_key not in {**aliases, **dict.fromkeys(_PICTURES)}:
        raise InvalidInputError(
            f"{saliency_key} must follow the image through crops and flips: declare it, "
            f"A.Compose(..., additional_targets={{{saliency_key!r}: {'masks' if batched else 'mask'!r}}})"
        )
    named = {name: aliases.get(name, name) for name in data if data[name] is not None}
    if any(named[name] == "mask" for name in framed):
        raise InvalidInputError(
            "SGDMix takes masks (N, H, W) of instances from frame_annotations; "
            "give semantic ones as masks beside images, one for each"
        )
    pictures = {name: kind for name, kind in named.items() if kind in _PICTURES and name not in framed}
    sources, kinds = _batch_rows(data, pictures) if batched else _single_row(data, pictures)
    if saliency_key in aliases:
        kinds.pop(saliency_key, None)
    instances = [*_instances(pictures, batched, instance_keys), *framed]
    for name in instances:
        kinds.pop(row_key(name, batched), None)
    donors = [_in_numpy(donor, kinds) for donor in _donors(data, metadata_key, needed=not batched)]
    for number, donor in enumerate(donors):
        _check_donor(f"{metadata_key}[{number}]", donor, sources, kinds)
    return Pool(sources, donors, batched, kinds, instances)


def check_keys(**keys: Any) -> None:
    """Refuse keys that are no names; those of labels and samples may be None, for never."""
    for setting, key in keys.items():
        if not (isinstance(key, str) and key) and not (key is None and setting in ("label_key", "id_key")):
            raise InvalidInputError(f"{setting} must be a key of the sample and of the donors, got {said(key)}")


def names_of_masks(instance_keys: Any) -> tuple[str, ...] | None:
    """``instance_keys`` as a tuple, or None."""
    if instance_keys is None:
        return None
    fits = isinstance(instance_keys, Sequence | set | frozenset) and not isinstance(instance_keys, str)
    if not fits or not all(isinstance(name, str) for name in instance_keys):
        raise InvalidInputError(f"instance_keys must be names of mask targets or None, got {said(instance_keys)}")
    return tuple(instance_keys)


def row_key(name: str, batched: bool) -> str:
    """The key of a row under which a target's picture stands: image i of ``images`` is the "image" of row i."""
    return {"images": "image", "masks": "mask"}.get(name, name) if batched else name


def _is_batch(data: Mapping[str, Any]) -> bool:
    unsupported = [name for name in _UNSUPPORTED if data.get(name) is not None]
    if unsupported:
        raise InvalidInputError(f"SGDMix mixes image or images, and does not support {', '.join(unsupported)}")
    present = [name for name in ("image", "images") if data.get(name) is not None]
    if len(present) != 1:
        raise InvalidInputError(f"SGDMix needs either image or images, got {' and '.join(present) or 'neither'}")
    return present == ["images"]


def _single_row(data: Mapping[str, Any], pictures: Mapping[str, str]) -> tuple[list[Row], dict[str, str]]:
    if "images" in pictures.values():
        raise InvalidInputError("a target of kind 'images' goes with images, but this call has one image")
    row = {name: data[name] for name in pictures}
    check_picture("image", row["image"])
    return [row], {name: kind for name, kind in pictures.items() if kind != "masks" or len(data[name])}


def _batch_rows(data: Mapping[str, Any], pictures: Mapping[str, str]) -> tuple[list[Row], dict[str, str]]:
    """Row i holds the i-th picture of each target; a single mask cannot be shared, as backgrounds differ."""
    for name in pictures:
        value = data[name]
        if not isinstance(value, np.ndarray | Sequence) or (isinstance(value, np.ndarray) and not value.ndim):
            raise InvalidInputError(f"expected {name} to be a stack or a list of arrays, got {said(value)}")
    size = len(data["images"])
    for name, kind in pictures.items():
        if kind in ("image", "mask"):
            raise InvalidInputError(f"with images, {name} must be a target of kind '{kind}s', one for each image")
        if len(data[name]) != size:
            raise InvalidInputError(f"expected {name} to hold one for each of {size} images, got {len(data[name])}")
    rows = [{row_key(name, True): data[name][i] for name in pictures} for i in range(size)]
    for i, row in enumerate(rows):
        check_picture(f"images[{i}]", row["image"])
        if row["image"].shape != rows[0]["image"].shape or row["image"].dtype != rows[0]["image"].dtype:
            raise InvalidInputError(
                f"expected images of one shape and dtype, got {_said(rows[0]['image'])} and {_said(row['image'])}"
            )
    return rows, {row_key(name, True): kind.removesuffix("s") for name, kind in pictures.items()}


def _instances(pictures: Mapping[str, str], batched: bool, instance_keys: Sequence[str] | None) -> list[str]:
    """Names of the targets that hold instances; by default the stacks of masks that belong to one image."""
    if instance_keys is None:
        return [] if batched else [name for name, kind in pictures.items() if kind == "masks"]
    return [name for name, kind in pictures.items() if name in instance_keys and kind in ("mask", "masks")]


def _in_numpy(donor: Row, kinds: Mapping[str, str]) -> Row:
    """A donor's tensors as arrays, channels last: albumentationsx takes tensors, and converts the source's alone."""
    return {
        key: from_tensor(value, stack=kinds.get(key) == "masks") if isinstance(value, Tensor) else value
        for key, value in donor.items()
    }


def _donors(data: Mapping[str, Any], metadata_key: str, *, needed: bool) -> list[Row]:
    metadata = data.get(metadata_key)
    if metadata is None and not needed:
        return []
    if not isinstance(metadata, Sequence) or not all(isinstance(donor, Mapping) for donor in metadata):
        came = "none" if metadata is None else type(metadata).__name__
        if isinstance(metadata, Sequence):
            came += f" of {', '.join(sorted({type(donor).__name__ for donor in metadata}))}"
        raise InvalidInputError(f"expected a list of donors, {metadata_key}=[{{'image': array}}, ...], got {came}")
    return list(metadata)


def _check_donor(where: str, donor: Row, sources: list[Row], kinds: Mapping[str, str]) -> None:
    for key, kind in kinds.items():
        if donor.get(key) is None:
            why = "" if key == "image" else f": the background of the source's {key} comes from the donor's"
            raise InvalidInputError(
                f"expected {where} to have the key {key!r}{why}; it has {', '.join(map(repr, donor))}"
            )
        if not sources:
            continue
        own, other = sources[0][key], donor[key]
        if kind == "masks":
            if len(own) != len(other):
                raise InvalidInputError(f"expected {len(own)} masks in {where}[{key!r}], got {len(other)}")
            own, other = own[0], other[0]
        check_picture(f"{where}[{key!r}]", other)
        if other.dtype != own.dtype or _channels(other) != _channels(own):
            raise InvalidInputError(
                f"expected {where}[{key!r}] to have the source's dtype and channels, {_said(own)}, got {_said(other)}"
            )


def check_picture(where: str, picture: Any) -> None:
    """Refuse what is no picture of numbers that torch can hold."""
    fits = isinstance(picture, np.ndarray) and picture.ndim in (2, 3) and picture.size > 0
    if not fits or picture.dtype.kind not in "buif" or picture.dtype.itemsize > 8:
        raise InvalidInputError(f"expected {where} to be an array (H, W) or (H, W, C) of numbers, got {_said(picture)}")


def _channels(picture: Array) -> int:
    return picture.shape[2] if picture.ndim == 3 else 1


def _said(picture: Any) -> str:
    return f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__


def _fitted(picture: Any, like: Any, kind: str) -> Any:
    if kind == "masks":
        return [_fitted(one, own, "mask") for one, own in zip(picture, like, strict=True)]
    size = like.shape[:2]
    return resized(picture, size, nearest=kind == "mask").reshape(like.shape)
