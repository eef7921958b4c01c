"""From names on the command line to saliency of uint8 images; a classifier gets its pixels and its classes right."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgdmix_albu.arguments import check_plain
from sgdmix_albu.bank.maps import open_bank
from sgdmix_albu.classifiers import Judge
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.saliency import SaliencyBackend, SaliencyBank, get_backend
from sgdmix_albu.saliency.judged import JudgedBackend, looks_through_a_model, prompted, takes

__all__ = ["AuditBackend", "options_of_each"]

# Images handed to a backend at once, so that a large model's activations stay within a few hundred MB.
_CHUNK = 16


@dataclass(frozen=True)
class AuditBackend:
    """A backend that takes the audit's uint8 images.

    Attributes:
        backend: The saliency backend, or the bank that serves its maps.
    """

    backend: SaliencyBackend | SaliencyBank

    @classmethod
    def make(
        cls, spec: str | SaliencyBackend, judge: Judge | None, options: Mapping[str, Any] | None = None
    ) -> AuditBackend:
        """A backend by name, with the classifier where it takes one, or an object as it is; or a bank."""
        options = options or {}
        bank = open_bank(spec, **options)
        if bank is not None:
            return cls(bank)
        if isinstance(spec, str) and judge is not None and looks_through_a_model(spec):
            return cls(JudgedBackend(spec, judge, **options))
        return cls(get_backend(spec, **options))

    def maps(self, images: Tensor, labels: Tensor | None, files: Sequence[Path] | None) -> tuple[Tensor, float]:
        """Coarse maps, and the milliseconds that one took.

        Args:
            images: (N, 3, H, W) uint8.
            labels: (N,) int64, or None where there are no classes.
            files: The images' files, by whose content a bank knows them; None where they are drawn.

        Returns:
            (N, h, w) float32 in [0, 1]; and the milliseconds.

        Raises:
            InvalidInputError: A bank, and no files.
            DataError: A bank that does not know an image.
        """
        if not isinstance(self.backend, SaliencyBank):  # what is prepared once is not timed
            self.backend.coarse(images[:1], None if labels is None else labels[:1])
        start = time.perf_counter()
        parts = [slice(first, first + _CHUNK) for first in range(0, len(images), _CHUNK)]
        maps = [
            self._part(images[part], None if labels is None else labels[part], None if files is None else files[part])
            for part in parts
        ]
        return torch.cat(maps), 1000 * (time.perf_counter() - start) / len(images)

    def _part(self, images: Tensor, labels: Tensor | None, files: Sequence[Path] | None) -> Tensor:
        if not isinstance(self.backend, SaliencyBank):
            return self.backend.coarse(images, labels)
        if files is None:
            raise InvalidInputError(f"{self.backend!r} knows images by their files, and these are drawn")
        classes = [None] * len(files) if labels is None else labels.tolist()
        maps = [self.backend.of_file(file, label) for file, label in zip(files, classes, strict=True)]
        return torch.stack(maps).float() / 255


def options_of_each(
    specs: Collection[Any], options: Mapping[str, Any] | None, metaclass: str | None
) -> list[dict[str, Any]]:
    """The options of each of several backends: each gets those that it says it has.

    One backend alone gets all, and says itself which it does not have.

    Args:
        specs: The backends.
        options: What was given for all of them.
        metaclass: What all classes are, for a prompt that is not given.

    Raises:
        InvalidInputError: An option that none of them has.

    Example:
        >>> options_of_each(["spectral_residual", "rembg"], {"session": "u2net"}, None)
        [{}, {'session': 'u2net'}]
    """
    given = check_plain(options or {})
    if len(specs) == 1:
        return [prompted(spec, given, metaclass) for spec in specs]
    unknown = [name for name in given if not any(takes(spec, name) for spec in specs)]
    if unknown:
        raise InvalidInputError(f"none of {', '.join(map(str, specs))} has an option {unknown[0]!r}")
    own = [{name: value for name, value in given.items() if takes(spec, name)} for spec in specs]
    return [prompted(spec, options, metaclass) for spec, options in zip(specs, own, strict=True)]
