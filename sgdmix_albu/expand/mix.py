"""``sgdmix mix``: a folder of labelled images in, the same folder mixed out."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from sgdmix_albu import __version__
from sgdmix_albu.bank.descriptors import Descriptors, describe_items
from sgdmix_albu.bank.map_source import open_saliency, shown
from sgdmix_albu.bank.reference import check_agreement, open_reference
from sgdmix_albu.datasets.source import Skipped, ignored_lines, open_source
from sgdmix_albu.expand.execute.pair import FORMATS, Done, execute
from sgdmix_albu.expand.plan.checks import check_choice, check_counts, check_seed
from sgdmix_albu.expand.plan.targets import plan_rows
from sgdmix_albu.expand.store.files import OutputFolder
from sgdmix_albu.expand.store.manifest import METADATA
from sgdmix_albu.io.progress import Progress, time_line
from sgdmix_albu.io.threads import default_jobs, one_thread_each
from sgdmix_albu.mixing.blending import edge_width
from sgdmix_albu.mixing.masks import get_mask
from sgdmix_albu.printable import printable
from sgdmix_albu.refine.catalogue import metaclass_of
from sgdmix_albu.saliency.options import prompted
from sgdmix_albu.settings import MixSettings, SaliencySettings
from sgdmix_albu.types import BEST_FILL, BEST_MASK, BEST_SALIENCY, Fill, TargetClass

__all__ = ["Summary", "mix_folder"]

_WHY_UNMIXED = {
    "not_drawn": "left out by --p",
    "flat_saliency": "the saliency map is flat",
    "empty_mask": "the mask is empty",
    "doubtful": "the mask holds less of what --agreement sees than --min-agreement",
    "no_target": "no candidate",
    "over_coverage": "with each candidate more than --max-coverage would be kept, or painted over",
}


@dataclass(frozen=True)
class Summary:
    """What a run did; ``str()`` of it is what the command prints.

    Attributes:
        out: The folder written.
        mixed: Number of mixed images.
        unmixed: Reason to number of images that were written as they are.
        skipped: Images that are not in the output, and why.
        ignored: Other files found in the input: what they are, and how many.
        seconds: Duration of each step.
    """

    out: Path
    mixed: int
    unmixed: Counter[str]
    skipped: list[Skipped]
    ignored: Counter[str]
    seconds: dict[str, float]

    @property
    def written(self) -> int:
        """Number of images in the output."""
        return self.mixed + self.unmixed.total()

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"mixed    {self.mixed} of {self.written + len(self.skipped)} images"
        for reason, count in sorted(self.unmixed.items()):
            yield f"unmixed  {count}: {_WHY_UNMIXED[reason]}; written as they are"
        for one in self.skipped:
            yield f"skipped  {one}"
        yield from ignored_lines(self.ignored)
        yield time_line(self.seconds, self.written)
        yield printable(f"out      {self.out}, with {METADATA}")


def mix_folder(
    data: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    saliency: str = BEST_SALIENCY,
    saliency_options: Mapping[str, Any] | None = None,
    mask: str = BEST_MASK,
    model: str | os.PathLike[str] | None = None,
    arch: str | None = None,
    class_names: str | os.PathLike[str] | None = None,
    normalize: Literal["imagenet", "none"] = "imagenet",
    candidates: int = 50,
    p: float = 1.0,
    target_class: TargetClass = "any",
    fill: Fill = BEST_FILL,
    max_coverage: float = 0.95,
    min_agreement: float = 0,
    agreement_with: str = BEST_SALIENCY,
    feather: float | None = None,
    seed: int = 0,
    size: int | None = None,
    image_format: Literal["png", "jpg"] = "png",
    limit: int | None = None,
    overwrite: bool = False,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Write a mixed copy of a labelled image set.

    The output has the input's layout and an image for each image of the input that can be read; one that
    stays unmixed is written as it is. ``metadata.jsonl``, written last, says what was done to each.

    Args:
        data: A class-per-folder image tree or its URL; None with ``dataset``.
        out: The folder to write.
        dataset: Name of an embedded data set in the place of ``data``.
        saliency: A backend's name, see :func:`sgdmix_albu.saliency.list_backends`; or ``"bank:FOLDER"``, maps that
            :func:`sgdmix_albu.expand.make_bank` computed.
        saliency_options: The backend's own: text, numbers, True or False. A prompt that is not given is what all
            classes of ``dataset`` are.
        mask: A preset's name; see :func:`sgdmix_albu.masks.list_masks`.
        model: Weights of the classifier that the backend looks through; see :mod:`sgdmix_albu.classifiers`.
        arch: Its name in torchvision or timm, unless the file gives it.
        class_names: Text file with the names of its outputs, one a line.
        normalize: What it expects of pixels in [0, 1]: "imagenet" or "none".
        candidates: Candidates drawn from the whole set for each image.
        p: Probability that an image is mixed.
        target_class: "any", or only targets of the "same" or a "different" class.
        fill: What stands where the target's object was: "source" keeps the source's pixels there (the paper's union
            mask), "inpaint" paints the object out of the target and keeps the source by its own mask.
        max_coverage: The largest share of an image that a union mask may cover; with "inpaint", that the source's
            mask may, and the hole that is painted.
        min_agreement: The least share of a better backend's object that a mask must hold; images with less are
            neither mixed nor targets. 0 for any: nobody else is asked.
        agreement_with: The better backend's name.
        feather: Width in pixels of the fade outside the mask; None for a hard edge with "source" and a soft border
            with "inpaint".
        seed: The same seed gives the same images.
        size: Bring all images to size x size; None keeps each as it is.
        image_format: "png" or "jpg".
        limit: Take at most so many images, spread evenly over the set.
        overwrite: Go on although ``out`` is not empty. Files that an earlier run wrote there are removed.
        jobs: Threads that read and write; None for one a core. The result does not depend on it.
        progress: Where to report; None for stderr.

    Returns:
        Counts, reasons and times.

    Raises:
        InvalidInputError: A setting means nothing.
        UnknownNameError: No such backend, preset, data set or architecture.
        DataError: The input, the weights or the output folder cannot be used.
    """
    began = time.perf_counter()
    MixSettings(
        p=p, candidates=candidates, max_coverage=max_coverage, target_class=target_class, fill=fill, feather=feather
    )
    check_agreement(min_agreement, agreement_with, saliency)
    feather = edge_width(fill, feather)
    check_choice("image_format", image_format, FORMATS)
    check_choice("normalize", normalize, ("imagenet", "none"))
    check_counts(size=size, limit=limit, jobs=jobs)
    check_seed(seed)
    settings: dict[str, Any] = {
        "saliency": saliency,
        "mask": mask,
        "candidates": candidates,
        "p": p,
        "target_class": target_class,
        "fill": fill,
        "max_coverage": max_coverage,
        "min_agreement": min_agreement or None,
        "agreement_with": shown(agreement_with) if min_agreement > 0 else None,
        "feather": feather,
        "seed": seed,
    }
    source = open_source(data, dataset, size=size)
    preset = get_mask(mask)
    options = prompted(saliency, saliency_options, metaclass_of(dataset))
    stage_1 = SaliencySettings(saliency, model, arch, class_names, normalize, options)
    maps_of = open_saliency(stage_1, source.class_names)
    settings |= maps_of.noted
    reference, judging = open_reference(agreement_with, source.class_names) if min_agreement > 0 else (None, {})
    settings |= judging
    folder = OutputFolder(out, overwrite=overwrite, source=data)
    source = source.thinned(limit)
    jobs, progress = jobs or default_jobs(), progress or Progress()

    with folder.locked():
        with one_thread_each():
            descriptors, unreadable = describe_items(
                source.items, maps_of, preset, reference=reference, size=size, jobs=jobs, progress=progress
            )
        described = time.perf_counter()
        with one_thread_each():
            rows = list(
                plan_rows(
                    descriptors,
                    suffix=f".{image_format}",
                    p=p,
                    candidates=candidates,
                    target_class=target_class,
                    fill=fill,
                    max_coverage=max_coverage,
                    min_agreement=min_agreement,
                    seed=seed,
                )
            )
            planned = time.perf_counter()
            folder.begin(row.name for row in rows)
            results = execute(rows, descriptors, folder, size=size, fill=fill, feather=feather, jobs=jobs)
            done: list[Done] = []
            lost: list[Skipped] = []
            for result in progress.over(results, "mixing", len(rows)):
                if isinstance(result, Done):
                    done.append(result)
                else:
                    lost.append(result)
        folder.finish(_metadata(one, descriptors, settings) for one in done)
    return Summary(
        out=folder.path,
        mixed=sum(one.row.target is not None for one in done),
        unmixed=Counter(one.row.unmixed for one in done if one.row.unmixed is not None),
        skipped=source.skipped + unreadable + lost,
        ignored=source.ignored,
        seconds={
            "saliency and masks": described - began,
            "targets": planned - described,
            "mixing": time.perf_counter() - planned,
        },
    )


def _metadata(done: Done, descriptors: Descriptors, settings: dict[str, Any]) -> dict[str, Any]:
    """One line of the metadata file; every line has the same fields, so that it reads as a table."""
    row = done.row
    source = descriptors.items[row.source]
    target = None if row.target is None else descriptors.items[row.target]
    return {
        "file_name": row.name,
        "label": source.class_name,
        "label_index": source.label,
        "mixed": row.target is not None,
        "source": source.key,
        "target": target and target.key,
        "target_label": target and target.class_name,
        "source_sha256": descriptors.digests[row.source].hex(),
        "target_sha256": None if row.target is None else descriptors.digests[row.target].hex(),
        "distance": row.distance,
        "kept": done.kept,
        "source_threshold": float(descriptors.thresholds[row.source]),
        "target_threshold": None if row.target is None else float(descriptors.thresholds[row.target]),
        "source_agreement": descriptors.agreement_of(row.source),
        "target_agreement": None if row.target is None else descriptors.agreement_of(row.target),
        "unmixed_because": row.unmixed,
        "refused_over_coverage": row.refused,
        **settings,
        "bytes": done.size,
        "sha256": done.sha256,
        "versions": {"sgdmix_albu": __version__, "torch": torch.__version__},
    }
