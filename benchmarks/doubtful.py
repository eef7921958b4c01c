"""How well a better backend, or a classifier, finds masks and mixes that fail, without true masks.

    python benchmarks/doubtful.py DATA [--judges manifold_ranking ...] [--maps DIR] [--classifier FILE]

DATA holds ``images/`` and ``masks/`` with the same stems, and is cut into pairs as training would: each image gets the
nearest of 50 others. Three failures are looked for: *incomplete*, a mask that holds less than three quarters of its
object; *part*, a mix in which over 5% of the target's object show in solid pieces; *leak*, one in which over a quarter
shows. Prints, for each pair of masks and judge, how often they happen, the area under the ROC curve of the audit's
measure with a 95% bootstrap interval over the images, and precision and recall at the audit's limits. ``--maps`` is a
folder of another judge's maps under the images' stems, as PNG (U2-Net's, say); with ``--classifier`` (see
masks_ladder.py) the classifier's evidence is a judge too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from masks_ladder import gradcam, line, load
from PIL import Image
from scipy.stats import mannwhitneyu
from torch import Tensor

from sgdmix_albu.audit.measures import mass_outside
from sgdmix_albu.audit.signs import AGREEING, OUTSIDE, SEEN
from sgdmix_albu.audit.verdict import COMPLETE
from sgdmix_albu.mixing import describe, draw, plan_mix
from sgdmix_albu.mixing.agreement import held_share, solid_share
from sgdmix_albu.mixing.masks import get_mask
from sgdmix_albu.mixing.stretching import upsampled
from sgdmix_albu.saliency import get_backend, list_backends
from sgdmix_albu.types import BEST_MASK

AUDITED = (("spectral_residual", "otsu"), ("manifold_ranking", "guided"), ("salient_object", "guided"))
COLUMNS = ("masks", "judge", "failure", "happens", "AUC (95%)", "precision", "recall")
_CANDIDATES, _RESAMPLES = 50, 1000


def maps_of(name: str, images: Tensor) -> Tensor:
    return torch.cat([get_backend(name).coarse(block) for block in images.split(16)])


def masks_of(maps: Tensor, images: Tensor, preset: str = BEST_MASK) -> Tensor:
    return torch.cat([get_mask(preset)(*block).masks for block in zip(maps.split(16), images.split(16), strict=True)])


def read_maps(folder: Path, stems: list[str], size: int) -> Tensor:
    pictures = [Image.open(folder / f"{stem}.png").convert("L").resize((size, size)) for stem in stems]
    return torch.stack([torch.from_numpy(np.array(picture)) for picture in pictures]).float() / 255


def area(scores: np.ndarray, failed: np.ndarray) -> str:
    """Area under the ROC curve, and between which values 95% of the resampled ones lie."""
    if failed.all() or not failed.any():
        return "-"
    generator, found = np.random.default_rng(0), []
    for _ in range(_RESAMPLES):
        rows = generator.integers(0, len(failed), len(failed))
        if 0 < failed[rows].sum() < len(rows):
            found.append(_area(scores[rows], failed[rows]))
    low, high = np.percentile(found, [2.5, 97.5])
    return f"{_area(scores, failed):.2f} ({low:.2f} to {high:.2f})"


def _area(scores: np.ndarray, failed: np.ndarray) -> float:
    """The probability that a failure has a higher score than a success; ties count half."""
    return float(mannwhitneyu(scores[failed], scores[~failed]).statistic / (failed.sum() * (~failed).sum()))


def told(failure: str, scores: Tensor, failed: Tensor, limit: float) -> list[str]:
    """The figures of one judge on one failure; of what a judge sees nothing of, it has the worst to say."""
    doubts, failures = scores.nan_to_num(1).numpy(), failed.numpy()
    flagged = doubts > limit
    hits = (flagged & failures).sum()
    shares = [f"{hits / whole:.2f}" if whole else "-" for whole in (flagged.sum(), failures.sum())]
    return [failure, f"{failures.mean():.0%}", area(doubts, failures), *shares]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--judges", nargs="*", default=["spectral_residual", "manifold_ranking", "salient_object"])
    parser.add_argument("--maps", type=Path)
    parser.add_argument("--classifier", type=Path)
    options = parser.parse_args()

    images, truth = load(options.data, options.size)
    judges = {name: maps_of(name, images) for name in options.judges if name in list_backends()}
    if options.maps:
        stems = sorted(path.stem for path in (options.data / "images").iterdir())
        judges[options.maps.name] = read_maps(options.maps, stems, options.size)
    seen = {name: masks_of(maps, images) for name, maps in judges.items()}
    evidence = None
    if options.classifier:
        whole = upsampled(torch.cat([gradcam(options.classifier).coarse(part) for part in images.split(16)]), images)
        evidence = torch.where(whole > 0.5, whole, 0)
    draws = draw(len(images), len(images), candidates=_CANDIDATES, generator=torch.Generator().manual_seed(0))

    print(line([*COLUMNS]), "|" + "---|" * len(COLUMNS), sep="\n")
    for saliency, preset in AUDITED:
        if saliency not in list_backends():
            continue
        found = describe(maps_of(saliency, images), images, get_mask(preset))
        plan = plan_mix(found, draws)
        mixed, shown, target = plan.applied, ~plan.masks, truth[plan.target]
        incomplete = held_share(found.masks, truth) < COMPLETE
        part = solid_share(shown, target)[mixed] > SEEN
        leak = held_share(shown, target)[mixed] > 1 - COMPLETE
        name = f"`{saliency}` + `{preset}`"
        for judge, others in seen.items():
            if judge == saliency:
                continue
            parts = solid_share(shown, others[plan.target])[mixed]
            for row in (
                told("incomplete", 1 - held_share(found.masks, others), incomplete, 1 - AGREEING),
                told("part", parts, part, SEEN),
                told("leak", parts, leak, SEEN),
            ):
                print(line([name, judge, *row]), flush=True)
        if evidence is not None:
            outside = mass_outside(evidence, found.masks)
            print(line([name, "classifier", *told("incomplete", outside, incomplete, OUTSIDE)]), flush=True)


if __name__ == "__main__":
    main()
