"""The audit from end to end: sample, variants, verdicts, files."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from torch import nn

from sgdmix_albu.arguments import check_count, check_side
from sgdmix_albu.audit import gallery
from sgdmix_albu.audit.output import called, check_folder, noted, write_together
from sgdmix_albu.audit.ranking import rank, scores
from sgdmix_albu.audit.report import render
from sgdmix_albu.audit.result import AuditResult, found_of
from sgdmix_albu.audit.signs import find_flags
from sgdmix_albu.audit.variant import draw_pairs, run_variant
from sgdmix_albu.audit.witnesses import Reference, hear
from sgdmix_albu.bank.map_source import open_map_source
from sgdmix_albu.classifiers import open_judge
from sgdmix_albu.datasets.sample import draw_sample
from sgdmix_albu.datasets.source import open_source
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.io.outputs import local_output
from sgdmix_albu.io.places import check_apart
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.mixing.masks import MaskPreset, get_mask
from sgdmix_albu.refine.catalogue import metaclass_of
from sgdmix_albu.saliency import SaliencyBackend
from sgdmix_albu.saliency.options import options_of_each
from sgdmix_albu.settings import MixSettings, check_classifier
from sgdmix_albu.types import BEST_FILL, BEST_MASK, BEST_SALIENCY, Fill, Place, TargetClass

_SHOWN_CLASSES = 24
_PACKAGES = ("sgdmix-albu", "torch", "torchvision", "captum", "numpy", "opencv-python-headless", "pillow")


def run_audit(
    data: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str],
    dataset: str | None = None,
    saliency: Sequence[str | SaliencyBackend] = (BEST_SALIENCY,),
    saliency_options: Mapping[str, Any] | None = None,
    mask: Sequence[str | MaskPreset] = (BEST_MASK,),
    model: str | os.PathLike[str] | nn.Module | None = None,
    arch: str | None = None,
    class_names: str | os.PathLike[str] | None = None,
    normalize: Literal["imagenet", "none"] = "imagenet",
    samples: int = 10,
    pairs: int = 200,
    masks: str | os.PathLike[str] | None = None,
    agreement_with: str | SaliencyBackend | None = None,
    seed: int = 0,
    size: int = 224,
    candidates: int = 50,
    fill: Fill = BEST_FILL,
    place: Place = "source",
    target_class: TargetClass = "any",
    max_coverage: float = 0.95,
    feather: float | None = None,
    overwrite: bool = False,
) -> AuditResult:
    """Show what saliency and masks do on a data set, measure it, and say whether to trust it.

    Every backend is run with every preset on the same sources and candidates. Writes ``report.html`` (self-contained),
    ``audit.json`` (all figures) and PNG panels into ``out``; they appear there together, or not at all.

    Args:
        data: Class-per-folder tree, or a flat folder of images.
        out: Folder to write.
        dataset: "aviary", the embedded data set, instead of ``data``; it has true masks.
        saliency: Backends, by name or as objects; ``"bank:FOLDER"`` for maps that were computed before.
        saliency_options: Options of the backends by name: each gets those that it has. The default prompt is the
            metaclass of ``dataset``.
        mask: Mask presets, by name or as callables.
        model: Classifier for backends that look through one: a weights file or a module.
        arch: Architecture of the weights file, if the file does not name it.
        class_names: File with the names of the classifier's outputs, one per line; None: as the weights file
            says, or the sorted class folders.
        normalize: How to normalise pixels in [0, 1] for the classifier: "imagenet" or "none".
        samples: Sources to show.
        pairs: Sources to measure, drawn at random. Of 200, a share of 20%, the limit of a verdict, is known to
            within 6 points, one of 50% to within 7 (95% intervals).
        masks: Folder of true masks, PNG files of the images' relative names, object light on dark.
        agreement_with: A backend that is better than those audited, to compare their masks with; "none" for none.
            None: the default backend, where one that measures worse is audited. Where there is a ``model``, the
            masks are also compared with where it looks.
        seed: The same seed draws the same sources and candidates.
        size: All images are resized to size x size.
        candidates: Candidates of each source.
        fill: What replaces the target's object: "source", the source's pixels, or "inpaint", paint.
        place: Where the source's object goes: "source", where it was, or "random", scaled and moved.
        target_class: "any", or only targets of the "same" or a "different" class.
        max_coverage: The largest share of an image that may be kept, or painted over.
        feather: Width in pixels of the fade outside the mask, in the pictures.
        overwrite: Replace the files of an earlier audit in ``out``.

    Returns:
        What is also in ``audit.json``; see :class:`sgdmix_albu.audit.AuditResult`.

    Raises:
        InvalidInputError: An argument does not fit.
        DataError: Data cannot be read, or ``out`` is not empty.
        UnknownNameError: No such backend, preset, data set or architecture.

    Example:
        >>> import tempfile
        >>> folder = f"{tempfile.mkdtemp()}/audit"
        >>> result = run_audit(dataset="aviary", out=folder, saliency=["spectral_residual"], mask=["otsu"],
        ...                    pairs=6, samples=2, candidates=6, size=64)
        >>> result.report.name, result.measured, result.variants[0].name
        ('report.html', 6, 'spectral_residual + otsu')
    """
    asked = dict(locals())  # all settings, as they were passed
    check_apart(out, data, masks)
    folder = local_output(out)
    mixing = MixSettings(
        candidates=candidates,
        fill=fill,
        place=place,
        target_class=target_class,
        max_coverage=max_coverage,
        feather=feather,
    )
    check_classifier(model, arch=arch, class_names=class_names, normalize=normalize)
    _check_names(saliency=saliency, mask=mask)
    for name, count in (("samples", samples), ("pairs", pairs)):
        check_count(name, count, "must be a positive integer")
    check_side(size=size)
    check_folder(folder, overwrite)
    presets = {called(spec): get_mask(spec) for spec in mask}
    source = open_source(data, dataset, size=size, flat=True, masks=masks)
    if target_class != "any" and not source.class_names:
        raise InvalidInputError(
            f"target_class={target_class!r} needs classes: expected one folder per class in {source.name}"
        )
    if target_class == "different" and len(source.class_names) < 2:
        raise InvalidInputError(f"target_class='different' needs two classes, and {source.name} has one")
    judge = None
    if model is not None:
        judge = open_judge(model, source.class_names, arch=arch, class_names=class_names, normalize=normalize)
    options = options_of_each(saliency, saliency_options, metaclass_of(dataset))
    backends = {called(one): open_map_source(one, judge, **own) for one, own in zip(saliency, options, strict=True)}
    reference = Reference.chosen(agreement_with, called(agreement_with), backends)
    sample = draw_sample(
        source, measured=max(pairs, samples), candidates=candidates, shown_classes=_SHOWN_CLASSES, size=size, seed=seed
    )
    made = {
        name: backend.timed(sample.images, sample.labels, sample.files, Progress())
        for name, backend in backends.items()
    }
    witnesses = hear(sample, reference, judge, {name: maps for name, (maps, _) in made.items()})
    draws = draw_pairs(sample, mixing, seed)
    variants = [
        run_variant(
            sample,
            draws,
            maps,
            preset,
            saliency=name,
            mask=preset_name,
            settings=mixing,
            map_milliseconds=milliseconds,
            witnesses=witnesses.about(name),
        )
        for name, (maps, milliseconds) in made.items()
        for preset_name, preset in presets.items()
    ]
    flags = [find_flags(variant, sample.measured) for variant in variants]
    found = tuple(found_of(sample, variant, flagged) for variant, flagged in zip(variants, flags, strict=True))
    names = [(variant.saliency, variant.mask) for variant in variants]
    ranked = rank([one.level for one in found], scores(variants, flags, sample.measured), names)
    best = found[ranked.best]
    shown = list(range(min(samples, sample.measured)))
    class_rows = gallery.class_rows(sample, _SHOWN_CLASSES)
    panels = gallery.files(sample, variants, flags, shown, class_rows)
    result = AuditResult(
        folder=folder,
        report=folder / "report.html",
        best=best.name,
        tied=tuple(found[place].name for place in ranked.tied),
        level=best.level,
        answer=best.answer,
        verdict=best.verdict,
        variants=found,
        measured=sample.measured,
        skipped=sample.skipped,
        settings=noted(
            **asked, objects=[spec for spec in (*saliency, *mask, agreement_with, model) if not _is_named(spec)]
        ),
        versions=_versions(),
        files=("report.html", "audit.json", *panels),
    )
    page = render(sample, variants, flags, result, shown=shown, class_rows=class_rows)
    contents = {**panels, "report.html": page, "audit.json": result.to_json()}
    write_together(folder, "audit.json", contents, overwrite=overwrite)
    return result


def _check_names(**lists: Any) -> None:
    for name, values in lists.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise InvalidInputError(f"{name} must be a list of one or more, got {values!r}")
        names = [called(value) for value in values]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise InvalidInputError(f"{name} lists {repeated[0]!r} more than once")


def _is_named(spec: Any) -> bool:
    """Whether a setting can be given on a command line."""
    return spec is None or isinstance(spec, str | os.PathLike)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
