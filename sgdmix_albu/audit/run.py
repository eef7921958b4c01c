"""The audit from end to end: sample, variants, verdicts, files."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from tqdm import tqdm

from sgdmix_albu.audit import gallery
from sgdmix_albu.audit.output import check_folder, write_together
from sgdmix_albu.audit.report import render
from sgdmix_albu.audit.result import AuditResult, SignCount, VariantResult
from sgdmix_albu.audit.signs import SIGNS, Flag, find_flags
from sgdmix_albu.audit.variant import Variant, run_variant
from sgdmix_albu.audit.verdict import Verdict, incomplete_share, judge, leaking_share, mean
from sgdmix_albu.audit.witnesses import Better, hear
from sgdmix_albu.bank.map_source import open_map_source
from sgdmix_albu.classifiers import open_judge
from sgdmix_albu.datasets.sample import Sample, draw_sample
from sgdmix_albu.datasets.source import open_source
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.io.places import check_apart
from sgdmix_albu.mixing.masks import MaskPreset, get_mask
from sgdmix_albu.mixing.plan import draw
from sgdmix_albu.refine.catalogue import metaclass_of
from sgdmix_albu.saliency import SaliencyBackend
from sgdmix_albu.saliency.options import options_of_each
from sgdmix_albu.settings import MixSettings
from sgdmix_albu.types import BEST_FILL, BEST_MASK, BEST_SALIENCY, Fill

__all__ = ["run_audit"]

_SHOWN_CLASSES = 24
_LEVELS = ("trusted", "unproven", "doubtful", "untrusted")
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
    pairs: int = 50,
    masks: str | os.PathLike[str] | None = None,
    agreement_with: str | SaliencyBackend | None = None,
    seed: int = 0,
    size: int = 224,
    candidates: int = 50,
    fill: Fill = BEST_FILL,
    max_coverage: float = 0.95,
    overwrite: bool = False,
) -> AuditResult:
    """Show what saliency and masks do on a data set, measure it, and say whether to trust it.

    Every backend is run with every preset on the same sources and candidates. Writes ``report.html`` (self-contained),
    ``audit.json`` (all figures) and PNG panels into ``out``; they appear there together, or not at all.

    Args:
        data: Class-per-folder tree, or a flat folder of images.
        out: Folder to write.
        dataset: "aviary", the embedded data set, in the place of ``data``; brings its own true masks.
        saliency: Backends, by name or as objects; ``"bank:FOLDER"`` for maps that were computed before.
        saliency_options: Options of the backends by name: each gets those that it has. A prompt that is not given is
            what all classes of ``dataset`` are.
        mask: Mask presets, by name or as callables.
        model: Classifier for backends that look through one: a weights file or a module.
        arch: Architecture of the weights file, unless it names it itself.
        class_names: File with the names of the classifier's outputs, one a line; None: as the weights file
            says, or the sorted class folders.
        normalize: What the classifier expects of pixels in [0, 1]: "imagenet" or "none".
        samples: Sources that are shown.
        pairs: Sources, drawn at random, that are measured.
        masks: Folder of true masks, PNG files of the images' relative names, object light on dark.
        agreement_with: A backend that is better than those audited, to compare their masks with; "none" for none.
            None: the default backend, where one that measures worse is audited. Where there is a ``model``, the
            masks are also compared with where it looks.
        seed: The same seed draws the same sources and candidates.
        size: All images are resized to size x size.
        candidates: Candidates of each source.
        fill: What stands where the target's object was: "source", the source's pixels, or "inpaint", paint.
        max_coverage: The largest share of an image that may be kept, or painted over.
        overwrite: Replace the files of an earlier audit in ``out``.

    Returns:
        What is also in ``audit.json``; see :class:`sgdmix_albu.audit.AuditResult`.

    Raises:
        InvalidInputError: An argument does not fit.
        DataError: Data cannot be read, or ``out`` is not empty.
        UnknownNameError: No such backend, preset, data set or architecture.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "audit"
        >>> result = run_audit(dataset="aviary", out=folder, saliency=["spectral_residual"], mask=["otsu"],
        ...                    pairs=6, samples=2, candidates=6, size=64)
        >>> result.report.name, result.measured, result.variants[0].name
        ('report.html', 6, 'spectral_residual + otsu')
    """
    check_apart(out, data, masks)
    folder = Path(out).expanduser()
    MixSettings(fill=fill, max_coverage=max_coverage)
    _check(saliency=saliency, mask=mask, samples=samples, pairs=pairs, candidates=candidates, size=size)
    check_folder(folder, overwrite)
    presets = {_name(spec): get_mask(spec) for spec in mask}
    source = open_source(data, dataset, size=size, flat=True, masks=masks)
    judge = None
    if model is not None:
        judge = open_judge(model, source.class_names, arch=arch, class_names=class_names, normalize=normalize)
    options = options_of_each(saliency, saliency_options, metaclass_of(dataset))
    backends = {_name(one): open_map_source(one, judge, **own) for one, own in zip(saliency, options, strict=True)}
    better = Better.chosen(agreement_with, _name(agreement_with), backends)
    sample = draw_sample(
        source,
        measured=max(pairs, samples),
        candidates=candidates,
        shown_classes=_SHOWN_CLASSES,
        size=size,
        seed=seed,
    )
    draws = draw(
        sample.sources,
        len(sample.images),
        candidates=candidates,
        generator=torch.Generator().manual_seed(seed),
    )
    made = {
        name: backend.timed(sample.images, sample.labels, sample.files)
        for name, backend in tqdm(backends.items(), desc="audit", unit="backend", disable=None, leave=False)
    }
    witnesses = hear(sample, better, judge, {name: maps for name, (maps, _) in made.items()})
    variants = []
    for name, (maps, milliseconds) in made.items():
        variants += [
            run_variant(
                sample,
                draws,
                maps,
                preset,
                saliency=name,
                mask=preset_name,
                fill=fill,
                max_coverage=max_coverage,
                map_milliseconds=milliseconds,
                witnesses=witnesses.about(name),
            )
            for preset_name, preset in presets.items()
        ]
    flags = [find_flags(variant, sample.measured) for variant in variants]
    found = tuple(_found(sample, variant, flagged) for variant, flagged in zip(variants, flags, strict=True))
    best = min(found, key=_rank)
    shown = list(range(min(samples, sample.measured)))
    class_rows = gallery.class_rows(sample, _SHOWN_CLASSES)
    panels = _panels(sample, variants, flags, shown, class_rows)
    result = AuditResult(
        folder=folder,
        report=folder / "report.html",
        best=best.name,
        level=best.level,
        verdict=best.verdict,
        variants=found,
        measured=sample.measured,
        skipped=sample.skipped,
        settings={
            "data": None if data is None else str(data),
            "dataset": dataset,
            "saliency": list(backends),
            "saliency_options": dict(saliency_options or {}) or None,
            "mask": list(presets),
            "masks": None if masks is None else str(masks),
            "agreement_with": None if agreement_with is None else _name(agreement_with),
            "model": None if model is None else _name(model),
            "arch": arch,
            "class_names": None if class_names is None else str(class_names),
            "normalize": normalize,
            "samples": samples,
            "pairs": pairs,
            "seed": seed,
            "size": size,
            "candidates": candidates,
            "fill": fill,
            "max_coverage": max_coverage,
            "objects": [_name(spec) for spec in (*saliency, *mask, agreement_with, model) if not _is_named(spec)],
        },
        versions=_versions(),
        files=("report.html", "audit.json", *panels),
    )
    page = render(sample, variants, flags, result, shown=shown, class_rows=class_rows)
    text = json.dumps(result.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_together(folder, "audit.json", {**panels, "report.html": page, "audit.json": text}, overwrite=overwrite)
    return result


def _found(sample: Sample, variant: Variant, flags: dict[str, list[Flag]]) -> VariantResult:
    """The figures of one variant, over the measured sources only."""
    measured = sample.measured
    measures = {name: values[:measured] for name, values in variant.measures.items()}
    applied = variant.plan.applied[:measured]
    verdict: Verdict = judge(measures, flags, applied, (variant.saliency, variant.mask))
    return VariantResult(
        name=variant.name,
        saliency=variant.saliency,
        mask=variant.mask,
        level=verdict.level,
        verdict=verdict.sentence,
        advice=verdict.advice,
        means={name: mean(values) for name, values in measures.items()},
        incomplete=incomplete_share(measures),
        leaking=leaking_share(measures),
        unmixed=float((~applied).double().mean()),
        guards={name: int(hits[:measured].count_nonzero()) for name, hits in vars(variant.plan.guards).items()},
        signs=tuple(
            SignCount(
                sign.name,
                len(flags[sign.name]),
                len(flags[sign.name]) / measured,
                tuple(sample.keys[flag.row] for flag in flags[sign.name][: gallery.WORST]),
            )
            for sign in SIGNS
            if sign.name in flags
        ),
        better=variant.witnesses.name,
        milliseconds=variant.milliseconds,
        samples=tuple(_row(sample, variant, row) for row in range(measured)),
    )


def _row(sample: Sample, variant: Variant, row: int) -> dict[str, Any]:
    values = {name: float(measure[row]) for name, measure in variant.measures.items()}
    return {
        "key": sample.keys[row],
        "target": sample.keys[int(variant.plan.target[row])] if variant.plan.applied[row] else None,
        **{name: None if value != value else round(value, 4) for name, value in values.items()},
    }


def _rank(found: VariantResult) -> tuple[float, ...]:
    """Best first: by level, then with true masks by coverage - spill (Youden's J), without by rarity of signs."""
    coverage, spill = found.means.get("coverage"), found.means.get("spill")
    gain = 0.0 if coverage is None or spill is None else coverage - spill
    return (_LEVELS.index(found.level), -gain, sum(sign.share for sign in found.signs))


def _panels(
    sample: Sample,
    variants: list[Variant],
    flags: list[dict[str, list[Flag]]],
    shown: list[int],
    class_rows: list[int],
) -> dict[str, Any]:
    """File name to picture."""
    pictures = {}
    for variant, flagged in zip(variants, flags, strict=True):
        stem = _slug(variant.name)
        pictures[f"samples-{stem}.png"] = gallery.table(sample, variant, shown)
        if class_rows:
            pictures[f"classes-{stem}.png"] = gallery.table(sample, variant, class_rows)
        doubtful = gallery.doubtful_rows(flagged)
        if doubtful:
            pictures[f"doubtful-{stem}.png"] = gallery.doubtful_table(sample, variant, doubtful)
    if len(variants) > 1:
        pictures["comparison.png"] = gallery.comparison(sample, variants, shown)
    return pictures


def _check(*, saliency: Any, mask: Any, **counts: Any) -> None:
    for name, values in (("saliency", saliency), ("mask", mask)):
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise InvalidInputError(f"{name} must be a list of one or more, got {values!r}")
        names = [_name(value) for value in values]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise InvalidInputError(f"{name} lists {repeated[0]!r} more than once")
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidInputError(f"{name} must be a positive integer, got {value!r}")


def _is_named(spec: Any) -> bool:
    """Whether a setting can be given on a command line."""
    return spec is None or isinstance(spec, str | os.PathLike)


def _name(spec: Any) -> str:
    """How a backend, preset or model is called in the report."""
    if isinstance(spec, str | os.PathLike):
        return str(spec)
    return getattr(spec, "__name__", None) or type(spec).__name__


def _slug(text: str) -> str:
    """A variant's name as a file name."""
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
