"""``sgdmix demo``: the whole method on birds that are drawn here, and where to look. Five minutes on two cores."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from sgdmix_albu.audit.drift import run_drift
from sgdmix_albu.audit.drift_result import DriftResult
from sgdmix_albu.audit.panels import strip
from sgdmix_albu.audit.result import AuditResult
from sgdmix_albu.audit.run import run_audit
from sgdmix_albu.classifiers import Judge
from sgdmix_albu.classifiers.small import train
from sgdmix_albu.datasets.aviary import Aviary
from sgdmix_albu.errors import InvalidInputError, MissingExtraError
from sgdmix_albu.io.files import write_whole
from sgdmix_albu.io.outputs import check_unclaimed, local_output
from sgdmix_albu.io.progress import LOGGER, Progress
from sgdmix_albu.mixing.mix import mix_batch
from sgdmix_albu.refine import finetune, get_refiner
from sgdmix_albu.refine.refiner import Refiner, refine_rows
from sgdmix_albu.saliency import get_backend
from sgdmix_albu.types import BEST_MASK, BEST_SALIENCY

_SIZE = 64
_HELD_OUT = 4  # one bird is held out for so many to train on
_BATCH = 64
_STRIPS = 4
_STEPS = 7
_FINE_TUNED_ON = 40  # birds of each species
_STRENGTHS = (0.3, 0.5, 0.7, 0.9)

# The paper's two kinds of saliency with the paper's mask, and this package's default.
_PAIRS = (("spectral_residual", "otsu"), ("gradcam", "otsu"), (BEST_SALIENCY, BEST_MASK))


@dataclass(frozen=True)
class Demo:
    """What the demo found.

    Attributes:
        audit: The audit of the masks.
        drift: The drift sweep; None where the diffusion packages are not installed.
        pages: Reports and pictures to look at.
    """

    audit: AuditResult
    drift: DriftResult | None
    pages: tuple[Path, ...]


def run_demo(
    out: str | os.PathLike[str] = "demo-output",
    *,
    seed: int = 0,
    per_species: int = 150,
    epochs: int = 12,
    steps: int | None = None,
    sources: int = 48,
) -> Demo:
    """Run the whole chain on the embedded birds, with the time of each step.

    Args:
        out: Folder to write: pictures of mixes and refined images, ``refiner``, ``audit/report.html`` and
            ``drift/report.html``. What an earlier demo wrote is replaced.
        seed: The same seed gives the same pictures.
        per_species: Training images of each of the twelve species.
        epochs: Passes over them.
        steps: Of the fine-tuning; None for the recipe's.
        sources: Images of the drift sweep; the audit measures twice as many pairs.

    Returns:
        The results of audit and drift sweep.

    Raises:
        InvalidInputError: ``per_species`` or ``epochs`` is not positive.
        DataError: The folder cannot be written, or holds something and no earlier demo.
    """
    if per_species < 1 or epochs < 1:
        raise InvalidInputError(f"per_species and epochs must be positive, got {per_species} and {epochs}")
    folder = local_output(out)
    there = [path.name for path in folder.iterdir()] if folder.exists() else []
    known = any(name.startswith("mixed-") for name in there)
    check_unclaimed(folder, [] if known else there, "an earlier demo")
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    LOGGER.info("SGD-Mix on drawn birds, on this machine only\n")

    with _step(1, "Draw birds"):
        images, labels = _drawn("train", per_species, seed)
        unseen, answers = _drawn("test", -(-per_species // _HELD_OUT), seed)
        classes = int(answers.max()) + 1
        _say(f"{len(images)} to train on, {len(unseen)} held out: {classes} species, {_SIZE} x {_SIZE} pixels")

    with _step(2, "Train a small classifier, for Grad-CAM to look through and to judge refined images"):
        model = train(images, labels, epochs=epochs, seed=seed)
        right = float(Judge(model, None, "none").names(unseen, answers).float().mean())
        _say(f"{right:.0%} of the held-out birds classified correctly (by chance: {1 / classes:.0%})")

    with _step(3, "Mix: the object of one picture on the background of another"):
        look_at = [
            _strips(folder, images, labels, model, saliency, mask, seed) for saliency, mask in dict.fromkeys(_PAIRS)
        ]

    refiner = _finetuned(folder / "refiner", min(per_species, _FINE_TUNED_ON), steps, seed)
    if refiner is not None:
        look_at.append(folder / "refiner" / "samples")
        with _step(5, "Refine mixed images: strength 0.7, the birds' own pixels kept"):
            look_at.append(_strips(folder, images, labels, model, BEST_SALIENCY, BEST_MASK, seed, refiner=refiner))

    with _step(6, "Audit the masks against the birds' true outlines"):
        audit = run_audit(
            dataset="aviary",
            out=folder / "audit",
            saliency=list(dict.fromkeys(saliency for saliency, _ in _PAIRS)),
            mask=list(dict.fromkeys(mask for _, mask in _PAIRS)),
            model=model,
            normalize="none",
            pairs=2 * sources,
            size=_SIZE,
            seed=seed,
            overwrite=True,
        )
        _print_table(audit)

    drift = None
    if refiner is not None:
        with _step(7, "Drift sweep: how often does refinement change the species?"):
            drift = run_drift(
                dataset="aviary",
                refiner=refiner,
                out=folder / "drift",
                strengths=_STRENGTHS,
                sources=sources,
                teacher=model,
                normalize="none",
                seed=seed,
                overwrite=True,
            )
            _say(*drift.table().splitlines(), drift.sentence)

    LOGGER.info("%.0f s in all.", time.perf_counter() - began)
    return Demo(audit, drift, (audit.report, *([drift.report] if drift else []), *look_at))


def _finetuned(folder: Path, per_species: int, steps: int | None, seed: int) -> Refiner | None:
    """A refiner for the twelve species, which the embedded base has not seen; None without the diffusion packages."""
    with _step(4, "Fine-tune the embedded base on them: Textual Inversion and LoRA"):
        birds = Aviary("train", per_species=per_species, size=_SIZE, seed=seed)
        try:
            card = finetune(birds, key="aviary", out=folder, steps=steps, seed=seed, overwrite=True)
        except MissingExtraError as error:
            _say(f"Left out, like steps 5 and 7: {error}")
            return None
        _say(f"{len(card.classes)} new tokens, {card.training['steps']} steps, loss {card.training['loss']:.3f}")
    return get_refiner(folder)


def _drawn(split: str, per_species: int, seed: int) -> tuple[Tensor, Tensor]:
    birds = Aviary(split, per_species=per_species, size=_SIZE, seed=seed)
    rows = Progress().over(range(len(birds)), f"drawing ({split})", len(birds), unit="bird")
    images = torch.stack([torch.from_numpy(birds.render(row).image) for row in rows])
    return images.permute(0, 3, 1, 2).contiguous(), torch.tensor(birds.targets)


def _strips(
    folder: Path,
    images: Tensor,
    labels: Tensor,
    model: nn.Module,
    saliency: str,
    mask: str,
    seed: int,
    *,
    refiner: Refiner | None = None,
) -> Path:
    """Mix a batch, refine it if there is a refiner, and save the steps of a few of its mixes as one picture."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:_BATCH]
    batch, classes = images[order], labels[order]
    options = {"model": model} if saliency == "gradcam" else {}
    maps = get_backend(saliency, **options)(batch, classes)
    mixed = mix_batch(batch, maps, mask=mask, generator=torch.Generator().manual_seed(seed))
    shown = mixed.plan.applied.nonzero()[:_STRIPS, 0]
    rows = shown.tolist()
    refined: Sequence[Tensor | None] = [None] * len(rows)
    if refiner is not None:
        how = {"classes": classes[shown], "seeds": [seed + row for row in rows], "strength": 0.7, "preserve": "strict"}
        refined = refine_rows(refiner, mixed.images[shown], mixed.plan, shown, **how).images.unbind()
    strips = [
        strip(
            batch[row],
            maps[row],
            batch[int(mixed.plan.target[row])],
            mixed.plan.masks[row],
            mixed.images[row],
            refined=after,
            side=160,
            titles=row == rows[-1],
        )
        for row, after in zip(rows, refined, strict=True)
    ]
    path = folder / f"{'mixed' if refiner is None else 'refined'}-{saliency}-{mask}.png"
    write_whole(path, lambda file: _stacked(strips).save(file, "PNG"))
    return path


def _stacked(strips: list[Image.Image]) -> Image.Image:
    """Strips below each other, on white."""
    gap = 6
    height = sum(one.height + gap for one in strips) + gap
    sheet = Image.new("RGB", (max((one.width for one in strips), default=0) + 2 * gap, height), "white")
    top = gap
    for one in strips:
        sheet.paste(one, (gap, top), one)
        top += one.height + gap
    return sheet


def _print_table(result: AuditResult) -> None:
    """The comparison as the terminal shows it."""
    width = max(len(found.name) for found in result.variants)
    _say("", f"{'':{width}}  coverage  spill  leak  incomplete  verdict")
    for found in result.variants:
        figures = "  ".join(
            f"{'-' if value is None else f'{value:.2f}':>{len(name)}}"
            for name, value in ((name, found.means[name]) for name in ("coverage", "spill", "leak"))
        )
        _say(f"{found.name:{width}}  {figures}  {found.incomplete or 0:>10.0%}  {found.level}")
    _say("coverage: share of the bird in the mask; incomplete: masks that hold less than three quarters of it")
    _say("spill: share of the background in the mask; leak: share of the target's bird that shows in the mix")


@contextmanager
def _step(number: int, title: str) -> Iterator[None]:
    LOGGER.info("%d/%d   %s", number, _STEPS, title)
    start = time.perf_counter()
    yield
    _say(f"{time.perf_counter() - start:.1f} s\n")


def _say(*lines: str) -> None:
    for line in lines:
        LOGGER.info("      %s", line)
