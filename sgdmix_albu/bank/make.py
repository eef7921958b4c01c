"""``sgdmix bank``: the saliency maps of a folder, computed once and served to every other command."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from sgdmix_albu.bank.map_source import open_saliency
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.io.images import class_folders
from sgdmix_albu.saliency import SaliencyBank, build_bank
from sgdmix_albu.saliency.resolve import SERVED
from sgdmix_albu.settings import SaliencySettings
from sgdmix_albu.types import BEST_SALIENCY, Normalize

__all__ = ["make_bank"]


def make_bank(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    saliency: str = BEST_SALIENCY,
    saliency_options: Mapping[str, Any] | None = None,
    model: str | os.PathLike[str] | None = None,
    arch: str | None = None,
    class_names: str | os.PathLike[str] | None = None,
    normalize: Normalize = "imagenet",
    size: int = 224,
    batch: int = 16,
    workers: int = 0,
    progress: bool = True,
) -> SaliencyBank:
    """Compute the maps of a class-per-folder tree, or those that are missing; see :func:`build_bank`.

    Whoever asks for saliency by name takes the result as ``"bank:OUT"``: ``mix``, ``generate``, ``audit``, ``drift``,
    ``distil`` and ``finetune``. A map belongs to a file's content, wherever the file lies: an image that was changed
    or added since has none, and is refused by name. A map covers its whole image, whatever size that is brought to.

    Args:
        data: One folder per class.
        out: The bank's folder, made if need be.
        saliency: A backend's name, or the path of a distilled network.
        saliency_options: The backend's own: text, numbers, True or False.
        model: Weights of the classifier that the backend looks through.
        arch: Its name in torchvision or timm, unless the file gives it.
        class_names: Text file with the names of its outputs, one a line.
        normalize: What it expects of pixels in [0, 1]: "imagenet" or "none".
        size: Side in pixels that images are brought to before the backend sees them, whatever their shape.
        batch: Images to a call of the backend.
        workers: Processes that read images; 0 reads them here.
        progress: Whether to show a bar.

    Raises:
        InvalidInputError: A setting means nothing.
        UnknownNameError: No such backend or architecture.
        DataError: No images, unreadable weights, or ``out`` holds something else.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sgdmix_albu.datasets import get_dataset
        >>> from sgdmix_albu.datasets.tree import write_tree
        >>> root = Path(tempfile.mkdtemp())
        >>> write_tree(get_dataset("aviary", per_species=1, size=48), root / "birds")
        >>> bank = make_bank(root / "birds", root / "maps", saliency="spectral_residual", size=48, progress=False)
        >>> len(bank), bank.shape
        (12, (64, 64))
    """
    if str(saliency).startswith(SERVED):
        raise InvalidInputError(f"a bank is made of what a backend computes, got {saliency!r}")
    classes = class_folders(data) if model is not None else ()
    settings = SaliencySettings(saliency, model, arch, class_names, normalize, saliency_options or {})
    return build_bank(
        data,
        out,
        open_saliency(settings, classes).backend,
        size=size,
        batch_size=batch,
        workers=workers,
        progress=progress,
    )
