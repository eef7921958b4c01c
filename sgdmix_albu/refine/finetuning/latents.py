"""The autoencoder's view of every image, encoded once and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.errors import DataError
from sgdmix_albu.io.files import sha256_of
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.refine.components import Components
from sgdmix_albu.refine.finetuning.data import MapsOfFiles, Saliency, TrainingImages
from sgdmix_albu.refine.tensors import write_safetensors
from sgdmix_albu.registry import import_optional
from sgdmix_albu.tensors import PIXELS, check_tensor, sent

_BATCH = 16
_PIXELS = _BATCH * 512 * 512  # of a batch at the most


class Latents:
    """Latents of images and of their mirror images, read from a file as they are needed.

    Args:
        path: What :func:`cached_latents` wrote.

    Attributes:
        shape: (C, h, w), of one.
    """

    def __init__(self, path: Path) -> None:
        self._file = import_optional("safetensors", extra="diffusion").safe_open(path, framework="pt")
        names = set(self._file.keys())
        self._parts = {name: self._file.get_slice(name) for name in ("mean", "deviation", "saliency") if name in names}
        self.shape = torch.Size(self._parts["mean"].get_shape()[2:])

    def rows(self, rows: Tensor, mirrored: Tensor) -> dict[str, Tensor]:
        """``mean`` and ``deviation`` (B, C, h, w), and ``saliency`` (B, h, w) if there is any."""
        wanted = list(zip(rows.tolist(), mirrored.int().tolist(), strict=True))
        return {
            name: torch.stack([part[row, side] for row, side in wanted]).float() for name, part in self._parts.items()
        }

    def saliency_sum(self) -> str | None:
        """SHA-256 of the saliency maps, which is how one saliency function is told from another; None without."""
        if "saliency" not in self._parts:
            return None
        return hashlib.sha256(self._parts["saliency"][:].numpy().tobytes()).hexdigest()


def cached_latents(
    images: TrainingImages,
    components: Components,
    folder: Path,
    *,
    saliency: Saliency | None,
    progress: bool,
) -> Path:
    """Encode all images and their mirror images, unless the file for just these is there.

    Args:
        images: The training images.
        components: The base model; its autoencoder encodes.
        folder: Where the file goes.
        saliency: (B, 3, R, R) uint8 to maps (B, h, w) in [0, 1], or a bank of maps; kept at the latents' size.
        progress: Report how far it is.

    Returns:
        The file. Its name follows from pixels, autoencoder and resolution.
    """
    pixels = hashlib.sha256(images.pixels.encode())
    for file in sorted((components.folder / "vae").glob("*.safetensors")):
        pixels.update(sha256_of(file).encode())
    pixels.update(repr(saliency is not None).encode())
    path = folder / f"latents-{pixels.hexdigest()[:16]}.safetensors"
    if path.exists() and saliency is None:  # a function cannot be told from another one
        return path
    parts = _encoded(images, components, saliency, progress)
    write_safetensors(path, parts)
    return path


@torch.inference_mode()
def _encoded(
    images: TrainingImages,
    components: Components,
    saliency: Saliency | None,
    progress: bool,
) -> dict[str, Tensor]:
    vae, found, maps = components.vae, [], []
    size = max(1, min(_BATCH, _PIXELS // images.resolution**2))
    parts = [range(start, min(start + size, len(images))) for start in range(0, len(images), size)]
    reading = zip(parts, images.batches(parts), strict=True)
    told = Progress(quiet=not progress)
    for rows, plain in told.over(reading, "encoding", len(images), count=lambda part: len(part[0])):
        for batch, mirrored in ((plain, False), (plain.flip(-1), True)):
            posterior = vae.encode((sent(batch, vae.device) / 127.5 - 1).to(vae.dtype)).latent_dist
            found.append(torch.stack([posterior.mean, posterior.std]).half().cpu())
            if saliency is not None:
                known = _looked(saliency, batch) if callable(saliency) else _served(saliency, images, rows, mirrored)
                maps.append(F.interpolate(known[:, None], size=found[-1].shape[-2:], mode="area")[:, 0].half().cpu())
    # (2 statistics, N, 2 sides, C, h, w)
    sides = [torch.stack(found[i : i + 2], dim=2) for i in range(0, len(found), 2)]
    mean, deviation = torch.cat(sides, dim=1)
    if not bool(mean.isfinite().all() and deviation.isfinite().all()):
        raise DataError(f"the autoencoder of {components.folder} gave numbers that are not finite")
    written = {"mean": mean, "deviation": deviation}
    if maps:
        written["saliency"] = torch.cat([torch.stack(maps[i : i + 2], dim=1) for i in range(0, len(maps), 2)])
    return written


def _looked(saliency: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    found = saliency(batch)
    check_tensor(found, f"saliency to return maps ({len(batch)}, h, w)", (len(batch), None, None), PIXELS)
    return found.float()


def _served(bank: MapsOfFiles, images: TrainingImages, rows: Iterable[int], mirrored: bool) -> Tensor:
    maps = torch.stack([images.map(row, bank) for row in rows]).float() / 255
    return maps.flip(-1) if mirrored else maps
