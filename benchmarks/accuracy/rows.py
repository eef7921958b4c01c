"""What a row does to a batch: the methods that are compared, made from a row of a grid file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from timm.data.mixup import Mixup
from torch import Tensor, nn
from torchvision.transforms import v2

from benchmarks.accuracy.given import looked_through
from sgdmix_albu import SGDMix
from sgdmix_albu.types import Foreground

Mixed = tuple[Tensor, Tensor]  # images (B, 3, S, S) uint8, soft labels (B, C)
_MIXED = 0.5  # share of the images, or of the batches where a method mixes those
_TOGETHER = 250  # images that SGDMix sees at once
_USED = ("mix", "p", "also", "instead", "randaugment", "smoothing", "crop", "mode")  # by any row
_MADE = ("given", "given_mask", "noise", "amount", "refresh")
_OURS = ("saliency", "mask", "fill", "candidates", "max_coverage", "target_class", "feather", "place")


@dataclass(frozen=True)
class Views:
    """All training images of an epoch as the usual augmentation shows them, in the order of its batches.

    Attributes:
        images: (N, 3, S, S) uint8.
        labels: (N,) int64.
        maps: (N, S, S) float in [0, 1], maps that were made before, cropped along; or None.
        masks: (N, S, S) bool, the same for masks.
    """

    images: Tensor
    labels: Tensor
    maps: Tensor | None
    masks: Tensor | None

    def rows(self, first: int, end: int) -> Views:
        """Some of them."""
        return Views(*(None if value is None else value[first:end] for value in vars(self).values()))


class Method:
    """What a row does to images: first to all of an epoch, then to each batch.

    ``SGDMix`` sees up to 250 images at once, so that all N candidates are at hand, as the paper has it.

    Args:
        spec: The row without its name: ``mix``, ``p``, and for "sgdmix" the transform's own arguments.
        classes: Number of classes.
        model: The classifier in training, for ``saliency="gradcam"``.
    """

    def __init__(self, spec: dict[str, Any], classes: int, model: nn.Module) -> None:
        mix, p = spec.get("mix", "none"), spec.get("p", _MIXED)
        if mix not in ("none", "expanded", "sgdmix", "erasing", *_BATCHES):
            raise ValueError(f"unknown mix {mix!r}")
        if unknown := spec.keys() - {*_USED, *_MADE, *_OURS}:
            raise ValueError(f"expected keys from {', '.join((*_USED, *_MADE, *_OURS))}; got {', '.join(unknown)} too")
        self._classes, self._instead = classes, spec.get("instead")
        self._each = [v2.RandAugment()] if spec.get("randaugment") else []
        self._each += [v2.RandomErasing(p=p)] if mix == "erasing" else []
        settings = {name: spec[name] for name in _OURS if name in spec}
        if settings.get("saliency") == "gradcam":
            settings["saliency"] = looked_through(model)
        self._ours = Ours(settings, p) if mix == "sgdmix" else None
        then = spec.get("also") or self._instead or (mix if mix in _BATCHES else None)
        self._batches, self._share = (
            (_BATCHES[then](classes), _MIXED if mix == "sgdmix" else p) if then else (None, 0.0)
        )

    def epoch(self, views: Views) -> Tensor:
        """(N, 3, S, S) uint8, the images as they are shown in this epoch."""
        images = views.images
        for change in self._each:
            images = torch.stack([change(image) for image in images])
        if self._ours is None:
            return images
        parts = [
            replace(views, images=images).rows(first, first + _TOGETHER) for first in range(0, len(images), _TOGETHER)
        ]
        return torch.cat([self._ours(part) for part in parts])

    def batch(self, images: Tensor, labels: Tensor, plain: Tensor) -> Mixed:
        """A batch of them as it is learnt; ``plain`` are the same images unmixed."""
        if self._batches is None or float(torch.rand(())) >= self._share:
            return images, F.one_hot(labels, self._classes).float()
        mixed, soft = self._batches((plain if self._instead else images).float(), labels)
        return mixed.round().to(torch.uint8), soft.float()

    def figures(self) -> dict[str, float]:
        """The share of the images that ``SGDMix`` changed."""
        return {} if self._ours is None else {"mixed": self._ours.share()}


class Ours:
    """``SGDMix``; with maps and masks that were made before, where there are some."""

    def __init__(self, settings: dict[str, Any], p: float) -> None:
        self._masks: Tensor | None = None
        self._seen, self._changed = 0, 0
        self._online = SGDMix(p=p, **settings)
        rest = {name: value for name, value in settings.items() if name not in ("saliency", "mask")}
        self._given = SGDMix("given", mask=self._known, p=p, **rest)

    def __call__(self, views: Views) -> Tensor:
        """(N, 3, S, S) uint8, mixed."""
        sample: dict[str, Any] = {"image": views.images, "label": views.labels}
        transform, self._masks = self._online, views.masks
        if views.masks is not None:
            sample["saliency"], transform = views.maps, self._given
        mixed: Tensor = transform(sample)["image"]
        self._changed += int((mixed != views.images).flatten(1).any(1).sum())
        self._seen += len(mixed)
        return mixed

    def share(self) -> float:
        """Of the images, those that were changed."""
        return self._changed / max(1, self._seen)

    def _known(self, maps: Tensor, images: Tensor) -> Foreground:
        assert self._masks is not None
        return Foreground(self._masks, maps.new_full((len(maps),), 0.5))


def _timm(classes: int) -> Callable[[Tensor, Tensor], Mixed]:
    """The pair that timm mixes with, at its usual strengths: MixUp (0.8) or CutMix (1.0), with even odds."""
    pair = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, label_smoothing=0.0, num_classes=classes)

    def mixed(images: Tensor, labels: Tensor) -> Mixed:
        even = len(images) // 2 * 2  # timm wants an even number
        found, soft = pair(images[:even], labels[:even])
        return torch.cat([found, images[even:]]), torch.cat([soft, F.one_hot(labels[even:], classes)])

    return mixed


_BATCHES: dict[str, Callable[[int], Callable[[Tensor, Tensor], Mixed]]] = {
    "cutmix": lambda classes: v2.CutMix(num_classes=classes),
    "mixup": lambda classes: v2.MixUp(num_classes=classes),
    "timm": _timm,
}
