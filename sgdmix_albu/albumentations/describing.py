"""Stages 1 and 3 for the pool of one call: saliency maps and masks of sources and donors."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.albumentations.arrays import Array, stacked, to_tensor
from sgdmix_albu.albumentations.pool import Pool, Row, check_picture
from sgdmix_albu.arguments import check_count
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.colour import Normalization, to_float, unnormalized
from sgdmix_albu.mixing.described import Described, describe
from sgdmix_albu.mixing.masks import MaskPreset
from sgdmix_albu.mixing.selection import same_ids
from sgdmix_albu.saliency.base import resize_maps
from sgdmix_albu.saliency.fingerprint import fingerprint
from sgdmix_albu.saliency.given import scaled_maps
from sgdmix_albu.saliency.holds import modules_in
from sgdmix_albu.saliency.levels import refuse_class_ids

if TYPE_CHECKING:
    from sgdmix_albu.saliency.base import SaliencyBackend

# Two versions of one photograph on a grid of 8 x 8 means. Of 250 photographs resized to 64 x 64 and 224 x 224 by OpenCV
# (linear, cubic, area, Lanczos) and by our filter, the two differ by 0.22 of the photograph's own contrast at the most
# (root mean square); different photographs differ by 0.56 at least.
_CELLS = 8
_ALIKE = 0.25
_REMEMBERED = 512


class Seen(NamedTuple):
    """What is known of one picture.

    Attributes:
        description: For selection, N = 1, without labels.
        pixels: Equal for pictures of equal pixels.
        thumbnail: (C, h, w) small version in [0, 1], if the picture was stretched to the sources' size.
    """

    description: Described
    pixels: Hashable
    thumbnail: Array | None


def content(picture: Array) -> Hashable:
    """A key that two pictures share if they are equal: their digest, shape and dtype.

    Unlike ``id()`` it cannot mistake another array in the same memory for the first, nor miss a change in place.
    """
    return hashlib.sha256(np.ascontiguousarray(picture).data).digest(), picture.shape, picture.dtype.str


class Remembered:
    """What was seen in single pictures, by key; of more than ``size`` those unused for longest are forgotten.

    Masks take a bit a pixel. A copy or a pickle of it begins empty.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._rows: OrderedDict[Hashable, tuple[Seen, torch.Size]] = OrderedDict()
        self._lock = Lock()  # loaders that read in threads share their transforms

    def __len__(self) -> int:
        return len(self._rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return Remembered, (self.size,)

    def get(self, key: Hashable) -> Seen | None:
        """What was seen, if it was and is not forgotten."""
        with self._lock:
            if key not in self._rows:
                return None
            self._rows.move_to_end(key)
            seen, shape = self._rows[key]
        bits = np.unpackbits(seen.description.masks.numpy(), count=shape.numel()).view(bool)
        return seen._replace(description=replace(seen.description, masks=torch.from_numpy(bits).view(shape)))

    def put(self, key: Hashable, seen: Seen) -> None:
        """Keep what was seen."""
        masks = seen.description.masks
        packed = replace(seen.description, masks=torch.from_numpy(np.packbits(masks.numpy())))
        with self._lock:
            self._rows[key] = seen._replace(description=packed), masks.shape
            self._rows.move_to_end(key)
            while len(self._rows) > self.size:
                self._rows.popitem(last=False)


class Describer:
    """Looks at pictures, and remembers what it saw in donors.

    Args:
        backend: Stage 1; None where every picture brings its map.
        preset: Stage 3.
        saliency_key: The key of a row under which its own map is.
        normalization: Mean and deviation by which float images were normalised; None where their range tells.
        remember: The most donors that are remembered. None: as many as a call may look at, 512 at least, unless a
            network of the user's or labels have a say.
        candidates: Donors that one call may look at.
        watched: Objects of the user's that take part; what was seen is not used when a network in them has changed.
    """

    def __init__(
        self,
        backend: SaliencyBackend | None,
        preset: MaskPreset,
        *,
        saliency_key: str,
        normalization: Normalization | None,
        remember: int | None,
        candidates: int,
        watched: list[Any],
    ) -> None:
        self.backend, self.preset, self.saliency_key = backend, preset, saliency_key
        self.normalization, self.watched = normalization, watched
        if remember is None:
            remember = 0 if self.uses_labels or modules_in(watched) else max(_REMEMBERED, candidates)
        check_count("remember", remember, "must be a number of donors, 0 or more, or None", least=0)
        self.remembered = Remembered(int(remember))

    @property
    def uses_labels(self) -> bool:
        """Whether what it sees depends on labels."""
        return self.backend is not None and self.backend.uses_labels

    def look(self, pool: Pool, places: Sequence[int], labels: Tensor | None) -> tuple[Described, list[Seen]]:
        """What selection needs to know of the rows at ``places``, together and one by one.

        Args:
            pool: The pictures of the call.
            places: Rows of the pool, the sources first.
            labels: (len(places),) classes for backends that look at them, or None.
        """
        own = [own for place in places if (own := self._own_map(pool.given(place))) is not None]
        refuse_class_ids([to_tensor(one) for one in own])
        whole = bool(own)
        keys = self._keys(pool, places, labels, whole)
        found = {i: seen for i, key in enumerate(keys) if key and (seen := self.remembered.get(key))}
        new = [i for i in range(len(places)) if i not in found]
        described = self._described(pool, [places[i] for i in new], None if labels is None else labels[new], whole)
        for at, i in enumerate(new):
            picture = pool.row(places[i])["image"]
            stretched = picture.shape[:2] != pool.given(places[i])["image"].shape[:2]
            found[i] = Seen(described.row(at), content(picture), _thumbnail(picture) if stretched else None)
            if keys[i]:
                self.remembered.put(keys[i], found[i])
        rows = [found[i] for i in range(len(places))]
        first, *others = (row.description for row in rows)
        return first.followed_by(*others), rows

    def _keys(self, pool: Pool, places: Sequence[int], labels: Tensor | None, whole: bool) -> list[Hashable]:
        """For each place a key of all that its description depends on; None where it is not to be remembered.

        How float images were normalised is recognised by the range of the whole call: where that was needed,
        nothing is remembered.
        """
        keys: list[Hashable] = [None] * len(places)
        images = [pool.given(place)["image"] for place in places]
        told = self.normalization is not None
        if not self.remembered.size or not all(told or image.dtype.kind != "f" or _plain(image) for image in images):
            return keys
        weights = tuple(fingerprint(module) for module in modules_in(self.watched))
        classes = [None] * len(places) if labels is None else labels.tolist()
        for i, place in enumerate(places):
            if place >= len(pool.sources):
                own = self._own_map(pool.given(place))
                given = None if own is None else content(own)
                keys[i] = content(images[i]), given, pool.size, whole, classes[i], weights
        return keys

    def _described(self, pool: Pool, places: list[int], labels: Tensor | None, whole: bool) -> Described:
        rows = [pool.row(place) for place in places]
        images = stacked([row["image"] for row in rows])
        colours = images
        if self.normalization is not None and images.dtype.is_floating_point:
            mean, std = self.normalization
            colours = unnormalized(images, mean=mean, std=std)
        wants_colours = self.backend is not None and self.backend.wants_rgb
        return describe(self._maps(rows, colours if wants_colours else images, labels, whole), colours, self.preset)

    def _maps(self, rows: list[Row], images: Tensor, labels: Tensor | None, whole: bool) -> Tensor:
        """Maps that the rows bring along, and the backend's for the others; at the images' size if ``whole``."""
        missing = [i for i, row in enumerate(rows) if self._own_map(row) is None]
        if self.backend is not None and not whole:
            return self.backend.coarse(images, labels)
        if missing and self.backend is None:
            raise InvalidInputError(
                f"saliency='given' needs the target {self.saliency_key!r}, and that key in every donor; "
                f"{len(missing)} of {len(rows)} images have none"
            )
        maps = torch.empty(len(rows), *images.shape[-2:], dtype=torch.float32, device="cpu")
        if missing and self.backend is not None:
            maps[missing] = self.backend(images[missing], None if labels is None else labels[missing])
        for i, row in enumerate(rows):
            if i not in missing:
                own = to_tensor(self._own_map(row))
                maps[i] = resize_maps(scaled_maps(own, (1, *images.shape[1:])), images.shape[-2:])[0]
        return maps

    def _own_map(self, row: Row) -> Any:
        own = row.get(self.saliency_key)
        if own is not None:
            check_picture(self.saliency_key, own)
        return own


def repeats(seen: list[Seen], sources: list[Array]) -> Tensor:
    """Which pictures are a source itself, (B, N) bool: those of equal pixels, and stretched ones that look alike.

    A donor of another size is stretched by our filter, and the source was resized by the user's: after both the
    same photograph has almost the same pixels.

    Args:
        seen: N pictures, the B sources first.
        sources: B images.
    """
    pixels = [one.pixels for one in seen]
    same = same_ids(pixels[: len(sources)], pixels)
    stretched = [(j, one.thumbnail) for j, one in enumerate(seen) if one.thumbnail is not None]
    for i, source in enumerate(sources if stretched else []):
        small = _thumbnail(source)
        for j, other in stretched:
            contrast = min(version.std((1, 2)).max() for version in (small, other))
            same[i, j] |= bool(np.sqrt(np.mean((small - other) ** 2)) <= _ALIKE * contrast)
    return same


def _thumbnail(picture: Array) -> Array:
    small: Array = F.adaptive_avg_pool2d(to_float(to_tensor(picture)), _CELLS).numpy()
    return small


def _plain(image: Array) -> bool:
    return bool(image.min() >= 0) and bool(image.max() <= 1)
