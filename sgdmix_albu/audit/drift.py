"""The drift sweep: how often does refinement change the class, at which strength, under which protection?"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from sgdmix_albu.arguments import check_count, check_side
from sgdmix_albu.audit.drift_report import BEFORE, Outputs, grid, plot, render
from sgdmix_albu.audit.drift_result import Cell, DriftResult
from sgdmix_albu.audit.output import check_folder, noted, write_together
from sgdmix_albu.audit.variant import Variant, draw_pairs, run_variant
from sgdmix_albu.bank.map_source import open_map_source
from sgdmix_albu.classifiers import Judge, open_judge
from sgdmix_albu.classifiers.small import train
from sgdmix_albu.datasets import get_dataset
from sgdmix_albu.datasets.sample import Sample, draw_sample
from sgdmix_albu.datasets.source import Source, open_source
from sgdmix_albu.devices import present_device, working_device
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.io.outputs import local_output
from sgdmix_albu.io.places import check_apart
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.mixing.masks import get_mask
from sgdmix_albu.refine import Refiner, get_refiner
from sgdmix_albu.refine.catalogue import metaclass_of
from sgdmix_albu.refine.refiner import refine_rows
from sgdmix_albu.saliency.options import options_of_each
from sgdmix_albu.settings import MixSettings, check_classifier
from sgdmix_albu.types import BEST_FILL, BEST_MASK, BEST_SALIENCY, Fill, Place, Preserve

if TYPE_CHECKING:
    from sgdmix_albu.datasets.aviary import Aviary

_STRENGTHS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
_MODES = get_args(Preserve)
_IMAGES, _SIDE, _EPOCHS, _HELD_OUT = 3000, 64, 14, 0.2  # of the teacher that is trained where none is given


def run_drift(
    data: str | os.PathLike[str] | None = None,
    *,
    refiner: Any,
    out: str | os.PathLike[str],
    dataset: str | None = None,
    strengths: Sequence[float] = _STRENGTHS,
    preserve: Sequence[str] = _MODES,
    sources: int = 96,
    teacher: str | os.PathLike[str] | nn.Module | None = None,
    arch: str | None = None,
    class_names: str | os.PathLike[str] | None = None,
    normalize: Literal["imagenet", "none"] = "imagenet",
    saliency: str = BEST_SALIENCY,
    saliency_options: Mapping[str, Any] | None = None,
    mask: str = BEST_MASK,
    fill: Fill = BEST_FILL,
    place: Place = "source",
    candidates: int = 50,
    size: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> DriftResult:
    """Refine the same mixed images at every strength under every protection, and ask a teacher for their classes.

    Drift is counted over sources that the teacher classifies correctly, so that it measures refinement and not the
    teacher. All cells use the same seeds. Writes ``report.html``, ``drift.json``, ``drift.svg`` and a grid of
    pictures for each mode into ``out``; they appear there together, or not at all.

    Args:
        data: Class-per-folder tree.
        refiner: A refiner, its key or its folder.
        out: Folder to write.
        dataset: "aviary", the embedded data set, instead of ``data``.
        strengths: Translation strengths in (0, 1].
        preserve: Modes: "none", "soft", "strict".
        sources: Images drawn at random.
        teacher: Classifier: a weights file or a module; None to train a small one on images that are not judged.
        arch: Architecture of the weights file, if the file does not name it.
        class_names: File with the names of its outputs, one per line.
        normalize: How to normalise pixels in [0, 1] for it: "imagenet" or "none". A teacher trained here uses "none".
        saliency: Backend to mix with; ``"bank:FOLDER"`` for maps that were computed before.
        saliency_options: The backend's own. The default prompt is the refiner's metaclass.
        mask: Mask preset to mix with.
        fill: What replaces the target's object: "source", the source's pixels, or "inpaint", paint.
        place: Where the source's object goes: "source", where it was, or "random", scaled and moved.
        candidates: Candidates of each source.
        size: Side in pixels of all images; None for the refiner's resolution.
        seed: The same seed gives the same sources, mixes and noise.
        overwrite: Replace the files of an earlier sweep in ``out``.

    Returns:
        What is also in ``drift.json``.

    Raises:
        InvalidInputError: Invalid settings.
        DataError: Data cannot be read, ``out`` is not empty, or no source can be judged.
        UnknownNameError: No such refiner, backend, preset, or a class that the refiner does not know.
    """
    asked = dict(locals())  # all settings, as they were passed
    check_apart(out, data)
    folder = local_output(out)
    check_folder(folder, overwrite)
    mixing = MixSettings(candidates=candidates, fill=fill, place=place)
    check_count("sources", sources, "must be a positive integer")
    check_side(size=size)
    strengths, modes = _checked(strengths, preserve)
    if refiner == "none":
        raise InvalidInputError(
            "a drift sweep measures what a refiner changes, and 'none' refines nothing: name a refiner"
        )
    check_classifier(teacher, arch=arch, class_names=class_names)  # one that is trained here takes pixels as they are
    model = refiner if callable(getattr(refiner, "refine", None)) else get_refiner(refiner)
    side = size or int(getattr(getattr(model, "spec", None), "resolution", 224))
    source = open_source(data, dataset, size=side, flat=True)
    if not source.class_names:
        raise DataError(f"a drift sweep needs classes: expected one folder per class in {source.name}")
    metaclass = model.spec.metaclass if isinstance(model, Refiner) else metaclass_of(dataset)
    (options,) = options_of_each([saliency], saliency_options, metaclass)
    backend, preset = open_map_source(saliency, **options), get_mask(mask)
    if isinstance(model, Refiner):  # better to learn now than after a teacher was trained that it cannot work
        present_device(model.device)
        model.check(sorted({item.class_name for item in source.items}))
    judge: Judge | None = None
    if teacher is not None:
        judge = open_judge(teacher, source.class_names, arch=arch, class_names=class_names, normalize=normalize)
    sample = draw_sample(source, measured=sources, candidates=candidates, shown_classes=0, size=side, seed=seed)
    held_out: float | None = None
    if judge is None:
        judge, held_out = _trained_teacher(source, dataset, seed, judged=set(sample.keys[: sample.sources]))
    maps, milliseconds = backend.timed(sample.images, sample.labels, sample.files, Progress())
    variant = run_variant(
        sample,
        draw_pairs(sample, mixing, seed),
        maps,
        preset,
        saliency=saliency,
        mask=mask,
        settings=mixing,
        map_milliseconds=milliseconds,
    )
    assert sample.labels is not None  # a source with classes gives samples with labels
    right = judge.names(sample.images[: sample.sources], sample.labels[: sample.sources])
    rows = (right & variant.plan.applied).nonzero()[:, 0]
    if not len(rows):
        raise DataError(
            f"no source can be judged: of {sample.sources} the teacher classifies {int(right.sum())} correctly, and "
            f"{int(variant.plan.applied.sum())} were mixed"
        )
    cells, outputs = _swept(model, judge, sample, variant, rows, [*product(modes, strengths)], seed)
    grids = {f"grid-{mode}.png": grid(sample, variant, rows.tolist(), outputs, mode, strengths) for mode in modes}
    result = DriftResult(
        folder=folder,
        cells=tuple(cells),
        sources=sample.sources,
        unmixed=int((~variant.plan.applied).sum()),
        misnamed=int((~right).sum()),
        teacher_accuracy=held_out,
        settings=noted(
            **asked
            | {"strengths": strengths, "preserve": modes, "size": side}
            | ({} if isinstance(refiner, str | os.PathLike) else {"refiner": repr(refiner)})
        ),
        files=("report.html", "drift.json", "drift.svg", *grids),
        skipped=sample.skipped,
    )
    page = render(result, sample, variant, rows.tolist(), outputs)
    contents = {**grids, "drift.svg": plot(result), "report.html": page, "drift.json": result.to_json()}
    write_together(folder, "drift.json", contents, overwrite=overwrite)
    return result


def _checked(strengths: Sequence[float], preserve: Sequence[str]) -> tuple[list[float], list[str]]:
    if isinstance(preserve, str) or not isinstance(preserve, Sequence) or not preserve or set(preserve) - set(_MODES):
        raise InvalidInputError(f"preserve must be a list of {', '.join(map(repr, _MODES))}, got {preserve!r}")
    numbers = isinstance(strengths, Sequence) and all(isinstance(strength, int | float) for strength in strengths)
    if not numbers or not strengths or not all(0 < strength <= 1 for strength in strengths):
        raise InvalidInputError(f"strengths must be a list of numbers in (0, 1], got {strengths!r}")
    return sorted(set(map(float, strengths))), [mode for mode in _MODES if mode in preserve]


def _swept(
    model: Any,
    judge: Judge,
    sample: Sample,
    variant: Variant,
    rows: Tensor,
    asked: Sequence[tuple[str, float]],
    seed: int,
) -> tuple[list[Cell], dict[tuple[str, float], Outputs]]:
    """The mixes of these rows, refined in every mode at every strength: what drifted, and the pictures."""
    assert sample.labels is not None  # as above
    mixed, labels = variant.mixed[rows], sample.labels[rows]
    before = Outputs(mixed, ~judge.names(mixed, labels))
    cells = [Cell(*BEFORE, None, int(before.drifted.sum()), len(rows))]
    outputs: dict[tuple[str, float], Outputs] = {BEFORE: before}
    seeds = torch.randint(2**62, (len(rows),), generator=torch.Generator().manual_seed(seed))
    for mode, strength in Progress().over(asked, "refining", len(asked), unit="cell"):
        how = {"strength": strength, "preserve": mode, "seeds": seeds}
        classes = [sample.classes[row] for row in rows.tolist()]
        refined = refine_rows(model, mixed, variant.plan, rows, classes=classes, **how)
        if any(refined.broken):
            raise DataError(
                f"the refiner gave NaN or infinite numbers for {sum(refined.broken)} of {len(rows)} images at strength "
                f"{strength}: its weights may be damaged"
            )
        found = outputs[mode, strength] = Outputs(refined.images, ~judge.names(refined.images, labels))
        (timestep, _), *_ = Counter(refined.timesteps).most_common(1)
        added = int((found.drifted & ~before.drifted).sum())
        cells.append(Cell(mode, strength, timestep, int(found.drifted.sum()), len(rows), added))
    return cells, outputs


def _trained_teacher(source: Source, dataset: str | None, seed: int, *, judged: Collection[str]) -> tuple[Judge, float]:
    """A classifier that has not seen the images to be judged, and its accuracy on others that it has not seen.

    Args:
        source: The images, with classes.
        dataset: Name of the embedded data set, which can be drawn in any number; None where images are read.
        seed: Of the draws and the weights.
        judged: Keys of the images to be judged.

    Raises:
        DataError: Too few images.
    """
    if dataset is not None:
        birds = cast("Aviary", get_dataset(dataset, per_species=150, size=_SIDE, seed=seed + 1))
        pixels = torch.stack([torch.from_numpy(birds.render(row).image) for row in range(len(birds))])
        images, labels = pixels.permute(0, 3, 1, 2).contiguous(), torch.tensor(birds.targets)
    else:
        drawn = draw_sample(source, measured=_IMAGES, candidates=0, shown_classes=0, size=_SIDE, seed=seed + 1)
        assert drawn.labels is not None  # a source with classes gives samples with labels
        unseen = torch.tensor([key not in judged for key in drawn.keys])
        images, labels = drawn.images[unseen], drawn.labels[unseen]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    kept = max(1, round(_HELD_OUT * len(images)))
    held, used = order[:kept], order[kept:]
    if not len(used):
        raise DataError("too few images to train a teacher on; pass one: --teacher FILE")
    model = train(images[used], labels[used], epochs=_EPOCHS, seed=seed, classes=len(source.class_names))
    judge = Judge(model, None, "none", "the teacher", side=_SIDE, device=working_device(None))
    return judge, float(judge.names(images[held], labels[held]).float().mean())
