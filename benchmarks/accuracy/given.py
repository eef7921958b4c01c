"""Maps and masks of all training images, made once for a run: by a backend, by U2-Net, or spoilt on purpose."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.accuracy.learner import pixels
from sgdmix_albu.audit.measures import coverage, spill
from sgdmix_albu.distillation import distil
from sgdmix_albu.masks import get_mask
from sgdmix_albu.mixing.fill import grown
from sgdmix_albu.saliency import get_backend

TAUGHT = ("gradcam", "distilled")  # what looks through a teacher
_CHUNK = 32


def made(
    spec: dict[str, Any], images: Tensor, labels: Tensor, seen: Tensor, model: Any, paths: list[Path]
) -> tuple[Tensor, Tensor]:
    """Maps (N, K, K) in [0, 1] and masks (N, K, K) bool, on the images' device.

    Args:
        spec: The row: ``given``, a backend's name, "segmenter" or "distilled"; ``given_mask``, a preset; ``noise`` and
            ``amount``.
        images: (N, 3, K, K) uint8.
        labels: (N,).
        seen: (N, K, K) uint8, what the segmenter saw.
        model: A function that gives the classifier that Grad-CAM looks through.
        paths: The images' files, for a network that is distilled on them.
    """
    name = spec["given"]
    if name == "segmenter":
        maps, masks = seen.float() / 255, seen > 127
    else:
        maps = _maps(name, images, labels, model, paths)
        masks = _masks(spec.get("given_mask", "guided"), maps, images)
    return maps, spoilt(masks, spec["noise"], spec["amount"]) if "noise" in spec else masks


def _maps(name: str, images: Tensor, labels: Tensor, model: Any, paths: list[Path]) -> Tensor:
    if name == "gradcam":
        backend = looked_through(model())
    elif name == "distilled":
        with tempfile.TemporaryDirectory() as folder:
            out, tree = Path(folder) / "own.safetensors", Path(folder) / "tree"
            for path in paths:
                (tree / path.parent.name).mkdir(parents=True, exist_ok=True)
                (tree / path.parent.name / path.name).symlink_to(path.resolve())
            distil(tree, out, teacher=looked_through(model()), device=images.device.type)
            backend = get_backend(str(out))
    else:
        backend = get_backend(name)
    return torch.cat([backend(x, y).float() for x, y in zip(images.split(_CHUNK), labels.split(_CHUNK), strict=True)])


def looked_through(model: torch.nn.Module) -> Any:
    """Grad-CAM of the labelled class."""
    return get_backend("gradcam", model=model, preprocess=lambda images: pixels(images * 255))


def _masks(preset: str, maps: Tensor, images: Tensor) -> Tensor:
    """GrabCut is OpenCV's, on the CPU."""
    mask = get_mask(preset)
    where = "cpu" if preset == "grabcut" else maps.device
    parts = zip(maps.to(where).split(_CHUNK), images.to(where).split(_CHUNK), strict=True)
    return torch.cat([mask(m, x).masks for m, x in parts]).to(maps.device)


def spoilt(masks: Tensor, noise: str, amount: float) -> Tensor:
    """Masks with an error of a known kind.

    Args:
        masks: (N, K, K) bool.
        noise: "erode" or "dilate" by a disc, "shift" in a random direction, both by ``amount`` of the image's side;
            "swap": a share ``amount`` of the images gets the mask of another one.
        amount: In [0, 1].
    """
    side = masks.shape[-1]
    if noise in ("erode", "dilate"):
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(amount * side) + 1,) * 2)
        change: Callable[..., Any] = cv2.erode if noise == "erode" else cv2.dilate
        changed = [change(mask, disc) for mask in masks.cpu().numpy().astype(np.uint8)]
        return torch.from_numpy(np.stack(changed)).bool().to(masks.device)
    if noise == "shift":
        angle = torch.rand(len(masks)) * 2 * torch.pi
        affine = torch.eye(2, 3).repeat(len(masks), 1, 1)
        affine[:, 0, 2], affine[:, 1, 2] = 2 * amount * angle.cos(), 2 * amount * angle.sin()
        grid = F.affine_grid(affine.to(masks.device), [len(masks), 1, side, side], align_corners=False)
        return F.grid_sample(masks[:, None].float(), grid, mode="nearest", align_corners=False)[:, 0] > 0.5
    if noise == "swap":
        rows = torch.arange(len(masks))
        struck = torch.randperm(len(masks))[: round(amount * len(masks))]
        rows[struck] = rows[struck.roll(1)]
        return masks[rows.to(masks.device)]
    raise ValueError(f"unknown noise {noise!r}")


def figures(masks: Tensor, seen: Tensor, fill: str) -> dict[str, float]:
    """How good the masks are against the segmenter's: coverage and spill of an image's mask, IoU, and leak of pairs.

    A pair's leak is the share of the target's object that shows in the mix; each image is the target of the one before
    it, the first of the last. (In training targets are chosen by their maps.) Images of which the segmenter sees
    nothing, or nothing else, are left out.
    """
    truth = seen > 127
    rows = truth.flatten(1).any(1) & ~truth.flatten(1).all(1)
    masks, truth = masks[rows].cpu(), truth[rows].cpu()
    hidden = grown(masks) if fill == "inpaint" else masks
    shown = truth & ~hidden & ~masks.roll(1, 0)
    union, both = (masks | truth).flatten(1).sum(1), (masks & truth).flatten(1).sum(1)
    return {
        "coverage": float(coverage(masks, truth).mean()),
        "spill": float(spill(masks, truth).mean()),
        "mask_iou": float((both / union).mean()),
        "leak": float((shown.flatten(1).sum(1) / truth.flatten(1).sum(1)).mean()),
    }
