"""The peers, each looked for where it may be missing: timm, kornia, albumentations, pytorch-grad-cam."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from benchmarks.speed.measure import Call, Row
from sgdmix_albu.saliency import get_backend

_PEERS = "run make bench, which has it in an environment of its own"


@dataclass(frozen=True)
class Found:
    """Rows of peers that are there, and the names of those that are not."""

    rows: list[Row] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


def timm_mixing(images: Tensor, labels: Tensor, classes: int) -> Found:
    """timm's, which writes into the batch that it is given."""
    names = ("timm Mixup, in place", "timm CutMix, in place")
    try:
        from timm.data.mixup import Mixup
    except ImportError as error:
        return Found(missing=dict.fromkeys(names, str(error)))
    # The mixes of mixes that come of it cost what mixes cost.
    kinds = ({"mixup_alpha": 1.0}, {"mixup_alpha": 0.0, "cutmix_alpha": 1.0})
    rows = []
    for name, kind in zip(names, kinds, strict=True):
        mixup, own = Mixup(**kind, num_classes=classes), images.clone()
        rows.append(Row(name, lambda mixup=mixup, own=own: mixup(own, labels)))
    return Found(rows)


def kornia_mixing(images: Tensor, labels: Tensor) -> Found:
    """kornia's, which take floats."""
    names = ("kornia RandomCutMixV2", "kornia RandomMixUpV2")
    try:
        from kornia.augmentation import RandomCutMixV2, RandomMixUpV2
    except ImportError as error:
        return Found(missing=dict.fromkeys(names, f"{error}; {_PEERS}"))
    kinds = [kind(data_keys=["input", "class"]) for kind in (RandomCutMixV2, RandomMixUpV2)]
    return Found([Row(name, lambda kind=kind: kind(images, labels)) for name, kind in zip(names, kinds, strict=True)])


def gradcam(images: Tensor) -> Found:
    """A forward pass, our Grad-CAM and pytorch-grad-cam's, at the layer that ours finds."""
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None).eval().to(images.device)
    backend = get_backend("gradcam", model=model, layer="layer4", target="predicted")

    def forward() -> Tensor:
        with torch.no_grad():
            return model(images)  # type: ignore[no-any-return]

    rows = [Row("forward pass alone", forward), Row("ours", lambda: backend.coarse(images))]
    try:
        rows.append(Row("pytorch-grad-cam", _pytorch_grad_cam(model, images)))
    except ImportError as error:
        return Found(rows, {"pytorch-grad-cam": f"{error}; {_PEERS}"})
    return Found(rows)


def _pytorch_grad_cam(model: nn.Module, images: Tensor) -> Call:
    from pytorch_grad_cam import GradCAM

    # It keeps its hooks on the model for good, so the others are given one without.
    torch.manual_seed(0)
    own = torchvision.models.resnet50(weights=None).eval().to(images.device)
    own.load_state_dict(model.state_dict())
    cam = GradCAM(own, [own.layer4])
    return lambda: cam(images, None)


def albumentations_rows(images: Tensor) -> list[Row]:
    """Albumentations' own that take other images, and ours with donors in several ways."""
    import albumentations as A

    from sgdmix_albu.albumentations import SGDMix

    arrays = [np.ascontiguousarray(image) for image in images.movedim(1, -1).numpy()]
    maps = (get_backend("spectral_residual")(images) * 255).byte().numpy()
    pairs = enumerate(zip(arrays, maps, strict=True))
    donors: list[dict[str, Any]] = [
        {"image": image, "saliency": found, "id": number} for number, (image, found) in pairs
    ]
    shape = arrays[0].shape[:2]
    one = donors[0]
    height, width = shape[0] // 2, shape[1] // 2
    overlay = {"image": arrays[1][:height, :width], "mask": maps[1][:height, :width]}
    kind = {"saliency": "mask"}
    given = A.Compose([SGDMix("given", mask="otsu", fill="source", p=1)], additional_targets=kind)
    plain = [{"image": donor["image"], "id": donor["id"]} for donor in donors]
    fifty, eight = plain[:50], cycle([plain[start : start + 8] for start in range(0, len(plain), 8)])
    remembering, fresh = A.Compose([SGDMix(p=1)]), A.Compose([SGDMix(remember=0, p=1)])
    mosaic = A.Compose([A.Mosaic(target_size=shape, cell_shape=shape, p=1)])
    over = A.Compose([A.OverlayElements(p=1)])
    sources = cycle(donors)

    def next_image() -> Any:
        return next(sources)["image"]

    def with_given() -> Any:
        source = next(sources)
        return given(**source, sgdmix_metadata=donors[:8])

    def with_pool() -> Any:
        source = next(sources)
        return remembering(image=source["image"], id=source["id"], sgdmix_metadata=fifty)

    def with_fresh() -> Any:
        source = next(sources)
        return fresh(image=source["image"], id=source["id"], sgdmix_metadata=next(eight))

    return [
        Row("copy", one["image"].copy),
        Row("A.Mosaic", lambda: mosaic(image=next_image(), mosaic_metadata=plain[1:4])),
        Row("A.OverlayElements", lambda: over(image=next_image(), overlay_metadata=[overlay])),
        Row('`SGDMix("given", mask="otsu", fill="source")`, 8 donors', with_given),
        Row("`SGDMix()`, 50 donors given before", with_pool),
        Row("`SGDMix(remember=0)`, 8 donors", with_fresh),
    ]
