"""Stages 1 and 3 for the pool of one call: saliency maps and masks of sources and donors."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sgdmix_albu.albumentations.arrays import stacked, to_tensor
from sgdmix_albu.albumentations.pool import Pool, Row
from sgdmix_albu.albumentations.remembered import Remembered, content
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.masks import MaskPreset
from sgdmix_albu.mixing import Described, describe
from sgdmix_albu.saliency.base import resize_maps
from sgdmix_albu.saliency.given import given_maps

if TYPE_CHECKING:
    from sgdmix_albu.saliency.base import SaliencyBackend

__all__ = ["Describer"]


class Describer:
    """Looks at pictures, and remembers what it saw in donors.

    Args:
        backend: Stage 1; None where every picture brings its map.
        preset: Stage 3.
        saliency_key: The key of a row under which its own map is.
        remember: The most donors that are remembered.
    """

    def __init__(
        self, backend: SaliencyBackend | None, preset: MaskPreset, *, saliency_key: str, remember: int
    ) -> None:
        self.backend, self.preset, self.saliency_key = backend, preset, saliency_key
        self.remembered = Remembered(remember)

    def describe(self, pool: Pool, places: Sequence[int], labels: Tensor | None) -> tuple[Described, list[Hashable]]:
        """What selection needs to know of the rows at ``places``, and a key of each one's pixels.

        Args:
            pool: The pictures of the call.
            places: Rows of the pool, the sources first.
            labels: (len(places),) classes for backends that look at them, or None.

        Returns:
            A description without labels; rows of equal keys have equal pixels.
        """
        whole = any(self._own_map(pool.given(place)) is not None for place in places)
        keys = self._keys(pool, places, labels, whole)
        known = {i: found for i, key in enumerate(keys) if key and (found := self.remembered.get(key))}
        new = [i for i in range(len(places)) if i not in known]
        rows = [pool.row(places[i]) for i in new]
        images = stacked([row["image"] for row in rows])
        maps = self._maps(rows, images, None if labels is None else labels[new], whole)
        described = describe(maps, images, self.preset)
        seen = [(described.row(at), content(row["image"])) for at, row in enumerate(rows)]
        for i, (description, pixels) in zip(new, seen, strict=True):
            if keys[i] is not None:
                self.remembered.put(keys[i], description, pixels)
        found = dict(zip(new, seen, strict=True)) | known
        ordered = [found[i] for i in range(len(places))]
        return _joined([description for description, _ in ordered]), [pixels for _, pixels in ordered]

    def _keys(self, pool: Pool, places: Sequence[int], labels: Tensor | None, whole: bool) -> list[Hashable]:
        """For each place a key of all that its description depends on; None where it is not to be remembered.

        Float images are read by the range of the whole call, so only those that need no reading are remembered.
        """
        none: list[Hashable] = [None] * len(places)
        images = [pool.given(place)["image"] for place in places]
        if not self.remembered.size or not all(image.dtype.kind in "iu" or _plain(image) for image in images):
            return none
        classes = [None] * len(places) if labels is None else labels.tolist()
        for i, place in enumerate(places):
            if place >= len(pool.sources):
                own = self._own_map(pool.given(place))
                given = None if own is None else content(np.asarray(own))
                none[i] = content(images[i]), given, pool.size, whole, classes[i]
        return none

    def _own_map(self, row: Row) -> object | None:
        return row.get(self.saliency_key)

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
        maps = torch.empty(len(rows), *images.shape[-2:])
        if missing and self.backend is not None:
            maps[missing] = self.backend(images[missing], None if labels is None else labels[missing])
        for i, row in enumerate(rows):
            if i not in missing:
                own = to_tensor(np.asarray(self._own_map(row)))
                maps[i] = resize_maps(given_maps(own, (1, *images.shape[1:])), images.shape[-2:])[0]
        return maps


def _plain(image: np.ndarray) -> bool:
    return bool(image.min() >= 0) and bool(image.max() <= 1)


def _joined(rows: list[Described]) -> Described:
    fields = {name: [getattr(row, name) for row in rows] for name in vars(rows[0])}
    return Described(**{name: None if parts[0] is None else torch.cat(parts) for name, parts in fields.items()})
