"""How saliency is looked at: a backend by name, through a classifier where it needs one, or a bank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

from sgdmix_albu.bank.maps import open_bank
from sgdmix_albu.classifiers import open_judge
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.io.places import settled
from sgdmix_albu.saliency import SaliencyBackend, SaliencyBank, get_backend
from sgdmix_albu.saliency.judged import JudgedBackend
from sgdmix_albu.saliency.resolve import DISTILLED, SERVED
from sgdmix_albu.settings import SaliencySettings

__all__ = ["Look", "looked", "of_anywhere", "open_backend", "open_look", "shown", "there"]

Look: TypeAlias = Callable[[Tensor, Tensor], Tensor] | SaliencyBank

# Options that name a file or folder of this machine, or a hub's repository.
_PLACES = ("model", "model_path")


def of_anywhere(settings: SaliencySettings) -> SaliencySettings:
    """The same with absolute paths: workers may start in another folder."""
    named = {name: str(settings.options[name]) for name in _PLACES if name in settings.options}
    local = {name: settled(place) for name, place in named.items() if Path(place).expanduser().exists()}
    return replace(
        settings,
        saliency=there(settings.saliency),
        model=None if settings.model is None else settled(settings.model),
        class_names=None if settings.class_names is None else settled(settings.class_names),
        options={**settings.options, **local},
    )


def open_look(settings: SaliencySettings, classes: Sequence[str]) -> tuple[Look, dict[str, Any]]:
    """Stage 1 as a function of (B, 3, H, W) uint8 images and (B,) labels, or as a bank; and what to note of it.

    What is noted tells one run's maps from another's, and names no folder.

    Raises:
        UnknownNameError: No such backend or architecture.
        InvalidInputError: An option that the backend does not have, or lacks.
        DataError: The weights or the bank cannot be used.
    """
    bank = open_bank(settings.saliency, **settings.options)
    if bank is not None:
        if settings.model is not None:
            raise InvalidInputError(f"{settings.saliency!r} serves maps that are there, and looks through no model")
        return bank, {"saliency": shown(settings.saliency), "saliency_options": {"sha256": bank.settings_sha256}}
    backend, noted = open_backend(settings, classes)
    options = {**settings.options, **backend.noted()}
    noted["saliency"] = shown(settings.saliency)
    # Left out where there is nothing to say, as in runs of versions that did not ask.
    return backend.coarse, {**noted, **({"saliency_options": options} if options else {})}


def open_backend(settings: SaliencySettings, classes: Sequence[str]) -> tuple[SaliencyBackend, dict[str, Any]]:
    """The backend for uint8 images and the data's labels, and what to note of its classifier.

    Raises:
        UnknownNameError: No such backend or architecture.
        InvalidInputError: An option that the backend does not have, or lacks; or a bank.
        DataError: The weights cannot be used.
    """
    if settings.model is None:
        return get_backend(settings.saliency, **settings.options), {}
    judge = open_judge(
        settings.model, classes, arch=settings.arch, class_names=settings.class_names, normalize=settings.normalize
    )
    backend = JudgedBackend(settings.saliency, judge, **settings.options)
    noted = {"model": judge.name, "model_sha256": judge.sha256}
    return backend, {**noted, "normalize": settings.normalize, "explained": backend.explained}


def looked(look: Look, images: Tensor, labels: Tensor, digests: Sequence[bytes]) -> Tensor:
    """Maps of images, (B, h, w), by the SHA-256 of their files where a bank has them."""
    if isinstance(look, SaliencyBank):
        return look.of_contents([digest.hex() for digest in digests], labels.tolist())
    return look(images, labels)


def shown(saliency: str) -> str:
    """A backend's name as others may read it: without the folder that a bank's or a network's file lies in.

    Example:
        >>> shown("bank:maps/birds"), shown("/birds/saliency.safetensors"), shown("gradcam")
        ('bank:birds', 'saliency.safetensors', 'gradcam')
    """
    if saliency.startswith(SERVED):
        return SERVED + Path(saliency.removeprefix(SERVED)).name
    return Path(saliency).name


def there(saliency: str) -> str:
    """A backend's name that means the same from any folder."""
    if saliency.startswith(SERVED):
        return SERVED + settled(saliency.removeprefix(SERVED))
    return settled(saliency) if saliency.endswith(DISTILLED) else saliency
