"""Where maps come from: one object for a backend, a backend that looks through a classifier, and a bank.

Whoever takes saliency by name opens it here: ``mix``, ``generate``, ``audit``, ``drift``, ``distil`` and ``finetune``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgdmix_albu.arguments import said
from sgdmix_albu.classifiers import Judge, open_judge
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.io.places import settled, settled_files
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.saliency import SaliencyBackend, SaliencyBank, get_backend, list_backends
from sgdmix_albu.saliency.judged import JudgedBackend, looks_through_a_model
from sgdmix_albu.saliency.options import takes
from sgdmix_albu.settings import SaliencySettings
from sgdmix_albu.types import DISTILLED, SERVED

# Images handed to a backend at once, so that a large model's activations stay within a few hundred MB.
_CHUNK = 16
# Options that name a file or folder of this machine, or a hub's repository.
_PLACES = ("model", "model_path")


@dataclass(frozen=True)
class MapSource:
    """What gives the saliency maps of uint8 images.

    Attributes:
        backend: Computes them; or the bank that has them.
        noted: What tells one run's maps from another's, for its manifest; names no folder.
    """

    backend: SaliencyBackend | SaliencyBank
    noted: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, images: Tensor, labels: Tensor, digests: Sequence[bytes]) -> Tensor:
        """Coarse maps (B, h, w) of (B, 3, H, W) images with (B,) labels; a bank knows them by their files' SHA-256."""
        if isinstance(self.backend, SaliencyBank):
            return self.backend.of_contents([digest.hex() for digest in digests], labels.tolist())
        return self.backend.coarse(images, labels)

    def timed(
        self, images: Tensor, labels: Tensor | None, files: Sequence[Path] | None, progress: Progress | None = None
    ) -> tuple[Tensor, float]:
        """Coarse maps, and the milliseconds that one took.

        Args:
            images: (N, 3, H, W) uint8.
            labels: (N,) int64, or None where there are no classes.
            files: The images' files, by whose content a bank knows them; None where they are drawn.
            progress: Where to report; None for nowhere.

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
            for part in (progress or Progress(quiet=True)).over(
                parts, "saliency", len(images), count=lambda part: len(images[part])
            )
        ]
        return torch.cat(maps), 1000 * (time.perf_counter() - start) / len(images)

    def _part(self, images: Tensor, labels: Tensor | None, files: Sequence[Path] | None) -> Tensor:
        if not isinstance(self.backend, SaliencyBank):
            return self.backend.coarse(images, labels)
        if files is None:
            raise InvalidInputError(f"{self.backend!r} finds maps by image files, but these images are drawn")
        classes = [None] * len(files) if labels is None else labels.tolist()
        maps = [self.backend.of_file(file, label) for file, label in zip(files, classes, strict=True)]
        return torch.stack(maps).float() / 255


def open_map_source(spec: Any, judge: Judge | None = None, /, **options: Any) -> MapSource:
    """What a saliency setting means: ``"bank:FOLDER"``, or what :func:`get_backend` takes.

    Args:
        spec: The setting.
        judge: The classifier for those backends, given by name, that look through one.
        **options: The backend's own.

    Raises:
        UnknownNameError: No such backend.
        InvalidInputError: An option that the backend does not have, or lacks; a bank has none.
        DataError: There is no such bank, or it is damaged.
    """
    if isinstance(spec, str) and spec.startswith(SERVED):
        if options:
            raise InvalidInputError(f"{spec!r} takes no options: its maps are already computed, got {said(options)}")
        return MapSource(SaliencyBank(spec.removeprefix(SERVED)))
    if judge is not None and isinstance(spec, str) and looks_through_a_model(spec):
        return MapSource(JudgedBackend(spec, judge, **options))
    return MapSource(get_backend(spec, **options))


def open_saliency(settings: SaliencySettings, classes: Sequence[str], device: str | None = None) -> MapSource:
    """The source of maps that settings mean, for data of these classes, and what to note of it.

    Args:
        settings: Which backend, with which options.
        classes: Label index to name.
        device: Where a classifier that it looks through works; None for a GPU if there is one.

    Raises:
        UnknownNameError: No such backend or architecture.
        InvalidInputError: An option that the backend does not have, or lacks.
        DataError: The weights or the bank cannot be used.
    """
    name, options, classifier = settings.saliency, settings.options, settings.classifier
    asked: dict[str, Any] = {}
    backend: SaliencyBackend | SaliencyBank
    if classifier is None:
        backend = open_map_source(name, **options).backend
    elif name.startswith(SERVED):
        raise InvalidInputError(f"{name!r} serves stored maps and uses no model")
    elif name in list_backends() and not looks_through_a_model(name) and not takes(name, "model"):
        raise InvalidInputError(f"{name!r} uses no classifier: drop --model, or add --saliency gradcam")
    else:
        judge = open_judge(classes=classes, device=device, **vars(classifier))
        backend = JudgedBackend(name, judge, **options)
        asked = {"model": judge.name, "model_sha256": judge.sha256}
        asked |= {"normalize": settings.normalize, "explained": backend.explained}
    known = {**options, **backend.noted()}
    # Left out where there is nothing to say, as in runs of versions that did not ask.
    return MapSource(backend, {**asked, "saliency": shown(name), **({"saliency_options": known} if known else {})})


def shown(saliency: str) -> str:
    """A backend's name as others may read it: without the folder that a bank's or a network's file lies in.

    Example:
        >>> shown("bank:maps/birds"), shown("/birds/saliency.safetensors"), shown("gradcam")
        ('bank:birds', 'saliency.safetensors', 'gradcam')
    """
    if saliency.startswith(SERVED):
        return SERVED + Path(saliency.removeprefix(SERVED)).name
    return Path(saliency).name


def from_anywhere(settings: SaliencySettings) -> SaliencySettings:
    """The same with absolute paths: workers may start in another folder."""
    named = {name: str(settings.options[name]) for name in _PLACES if name in settings.options}
    local = {name: settled(place) for name, place in named.items() if Path(place).expanduser().exists()}
    return replace(
        settled_files(settings, "model", "class_names"),
        saliency=name_from_anywhere(settings.saliency),
        options={**settings.options, **local},
    )


def name_from_anywhere(saliency: str) -> str:
    """A backend's name that means the same from any folder."""
    if saliency.startswith(SERVED):
        return SERVED + settled(saliency.removeprefix(SERVED))
    return settled(saliency) if saliency.endswith(DISTILLED) else saliency
