"""What is measured against what: each group is a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import torch
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.speed import others
from benchmarks.speed.measure import Row
from sgdmix_albu import SGDMix
from sgdmix_albu.masks import get_mask
from sgdmix_albu.saliency import SaliencyMap, get_backend, list_backends

CLASSES = 10
_PAPER = {"mask": "otsu", "fill": "source"}
_TRAINING_FREE = ("spectral_residual", "manifold_ranking", "salient_object")


@dataclass(frozen=True)
class Group:
    """Rivals that are measured in turns.

    Attributes:
        name: A short word for it.
        title: What stands above its table.
        images: What one call of each works on, to tell milliseconds an image.
        output_mib: Size of what a call returns, to tell memory by; None where there is no sense in it.
        yardsticks: Names of rows that the others are divided by.
        rows: The rivals.
        missing: Peers that are not there, and why.
    """

    name: str
    title: str
    images: int
    output_mib: float | None
    yardsticks: tuple[str, ...]
    rows: Sequence[Row]
    missing: dict[str, str] = field(default_factory=dict)


def said(saliency: str | None = None, **options: object) -> str:
    """The call as one would type it."""
    words = [f'"{saliency}"'] if saliency else []
    words += [f'{key}="{value}"' if isinstance(value, str) else f"{key}={value}" for key, value in options.items()]
    return f"`SGDMix({', '.join(words)})`"


def mixing(images: Tensor, maps: SaliencyMap, kind: str) -> Group:
    """Whole mixes of a batch, and what else mixes one."""
    labels = torch.arange(len(images), device=images.device) % CLASSES
    rows = [Row("clone", images.clone)]
    cutmix = v2.CutMix(num_classes=CLASSES)
    rows.append(Row("torchvision CutMix", lambda: cutmix(images, labels)))
    missing = {}
    if images.is_floating_point():
        mixup = v2.MixUp(num_classes=CLASSES)
        rows.append(Row("torchvision MixUp", lambda: mixup(images, labels)))
        for found in (others.timm_mixing(images, labels, CLASSES), others.kornia_mixing(images, labels)):
            rows += found.rows
            missing |= found.missing
    for saliency, options in (
        ("given", _PAPER),
        ("spectral_residual", _PAPER),
        ("given", {"mask": "otsu", "fill": "inpaint"}),
        ("spectral_residual", {"mask": "otsu", "fill": "inpaint"}),
        ("given", {}),
        (None, {}),
    ):
        mix = SGDMix(saliency, **options) if saliency else SGDMix()
        sample = (images, labels, maps) if saliency == "given" else (images, labels)
        rows.append(Row(said(saliency, **options), lambda mix=mix, sample=sample: mix(*sample)))
    title = f"Mixing a batch, {kind}: {' x '.join(map(str, images.shape))}"
    return Group(f"mixing-{kind}", title, len(images), mib(images), ("clone", "torchvision CutMix"), rows, missing)


def candidates(images: Tensor, maps: SaliencyMap, kind: str, numbers: Sequence[int]) -> Group:
    """More candidates, from a memory of earlier batches."""
    rows = []
    for number in numbers:
        mix = SGDMix("given", **_PAPER, candidates=number, memory=number)
        call = _stream(mix, images, maps, -(-number // len(images)) + 2)
        for _ in range(-(-number // len(images))):
            call()  # fills the memory
        rows.append(Row(f"N = {number}", call))
    call_of = said("given", **_PAPER, candidates="N", memory="N").replace('"N"', "N")
    title = f"More candidates, {kind}, {call_of}: {' x '.join(map(str, images.shape))}"
    return Group(f"candidates-{kind}", title, len(images), mib(images), (rows[0].name,), rows)


def _stream(mix: SGDMix, images: Tensor, maps: SaliencyMap, count: int) -> Callable[[], object]:
    """Batches that differ, as a loader's do: so many that a memory never holds the one that comes."""
    views = cycle([images.roll(number * images.shape[-1] // count, -1) for number in range(count)])
    return lambda: mix(next(views), maps)


def looking(images: Tensor) -> Group:
    """Saliency by itself: the map, and the map with its mask."""
    rows = []
    for name in _TRAINING_FREE:
        if name in list_backends():
            backend = get_backend(name)
            rows.append(Row(f"`{name}`: map", lambda backend=backend: backend.coarse(images)))
            for preset in ("otsu", "guided"):
                mask = get_mask(preset)
                rows.append(
                    Row(
                        f"`{name}`: map and mask, `{preset}`",
                        lambda backend=backend, mask=mask: mask(backend.coarse(images), images),
                    )
                )
    title = f"Saliency alone, uint8: {' x '.join(map(str, images.shape))}"
    return Group("saliency", title, len(images), None, (), rows)


def albumentations(images: Tensor) -> Group:
    """The other face: one image a call, with donors."""
    title = f"The Albumentations transform, uint8, one image per call: {' x '.join(map(str, images.shape[-2:]))}"
    rows = others.albumentations_rows(images)
    return Group("albumentations", title, 1, None, ("A.Mosaic", "A.OverlayElements"), rows)


def gradcam(images: Tensor) -> Group:
    """Grad-CAM on ResNet-50, whose weights need no training to take their time."""
    found = others.gradcam(images.float() / 255)
    title = f"Grad-CAM, ResNet-50, float32: {' x '.join(map(str, images.shape))}"
    return Group("gradcam", title, len(images), None, ("forward pass alone",), found.rows, found.missing)


def groups(photos: Tensor, numbers: Sequence[int], gradcam_images: int) -> Iterator[Group]:
    """All of them, in the page's order; each is made when it is reached."""
    maps = SaliencyMap((get_backend("salient_object")(photos) * 255).round().to(torch.uint8))
    floats = photos.float() / 255
    yield mixing(floats, maps, "float32")
    yield mixing(photos, maps, "uint8")
    yield candidates(floats, maps, "float32", numbers)
    yield candidates(photos, maps, "uint8", numbers)
    yield looking(photos)
    yield albumentations(photos)
    yield gradcam(photos[:gradcam_images])


def mib(tensor: Tensor) -> float:
    return tensor.numel() * tensor.element_size() / 2**20
