"""``sgdmix mix``: a mixed copy of a folder. One output per image; unmixed images are copied."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

from sgdmix_albu.expand.pipeline import generate
from sgdmix_albu.expand.summary import Expansion
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.saliency.options import check_options
from sgdmix_albu.settings import SaliencySettings, Settings
from sgdmix_albu.types import BEST_SALIENCY, Normalize


def mix_folder(
    data: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    saliency: str = BEST_SALIENCY,
    saliency_options: Mapping[str, Any] | None = None,
    model: str | os.PathLike[str] | None = None,
    arch: str | None = None,
    class_names: str | os.PathLike[str] | None = None,
    normalize: Normalize = "imagenet",
    limit: int | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Expansion:
    """Write a mixed copy of a labelled image set: :func:`generate` with one output per image and no refiner.

    The output has the input's layout, and one image for each readable image of the input; images that could not be
    mixed are copied. ``metadata.jsonl``, written last, says what was done to each. If interrupted, make the same call
    to resume.

    Args:
        data: A class-per-folder image tree or its URL; None with ``dataset``.
        out: The folder to write, or its URL.
        dataset: Name of an embedded data set, instead of ``data``.
        saliency: A backend's name, see :func:`sgdmix_albu.saliency.list_backends`; or ``"bank:FOLDER"``, maps that
            :func:`sgdmix_albu.expand.make_bank` computed.
        saliency_options: Options of the backend: text, numbers, True or False. The default prompt is
            the metaclass of ``dataset``.
        model: Weights of the classifier that the backend looks through; see :mod:`sgdmix_albu.classifiers`.
        arch: Its architecture in torchvision or timm, if the file does not name it.
        class_names: Text file with the names of its outputs, one per line.
        normalize: How to normalise pixels in [0, 1] for it: "imagenet" or "none".
        limit: Use at most so many images, spread evenly over the set.
        overwrite: Start over in a folder that holds another run.
        workers: Number of workers; None for one per core. The result does not depend on it.
        engine: "local" for this machine, "ray" for a Ray cluster.
        address: Address of a running Ray cluster; None starts one on this machine.
        progress: Where to report progress; None for a bar on a terminal, and the log elsewhere.
        **settings: Those of :class:`sgdmix_albu.expand.Settings`: ``mask``, ``p``, ``candidates``, ``target_class``,
            ``fill``, ``place``, ``max_coverage``, ``feather``, ``seed``, ``size``, ``image_format``, ...

    Returns:
        Counts, reasons and times.

    Raises:
        InvalidInputError: Invalid settings.
        UnknownNameError: No such backend, preset, data set or architecture.
        DataError: The input, the weights or the output folder cannot be used; another process works on it.
    """
    known = [one.name for one in fields(Settings) if one.name not in ("saliency", "multiplier", "keep_unmixed")]
    check_options("mix_folder", known, (), settings)
    backend = SaliencySettings(saliency, model, arch, class_names, normalize, saliency_options or {})
    done = generate(
        data,
        out,
        dataset=dataset,
        settings=Settings(backend, multiplier=1, keep_unmixed=True, **settings),
        engine=engine,
        workers=workers,
        address=address,
        limit=limit,
        overwrite=overwrite,
        progress=progress,
    )
    assert isinstance(done, Expansion)  # no dry run
    return done
