"""The teacher of a drift sweep where none is given: a small classifier, trained on images that are not judged."""

from __future__ import annotations

from collections.abc import Collection

import torch

from sgdmix_albu.classifiers import Judge
from sgdmix_albu.classifiers.small import train
from sgdmix_albu.datasets import get_dataset
from sgdmix_albu.datasets.sample import draw_sample
from sgdmix_albu.datasets.source import Source
from sgdmix_albu.errors import DataError

_IMAGES, _SIDE, _EPOCHS, _HELD_OUT = 3000, 64, 14, 0.2


def trained_teacher(source: Source, dataset: str | None, seed: int, *, judged: Collection[str]) -> tuple[Judge, float]:
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
        birds = get_dataset(dataset, per_species=150, size=_SIDE, seed=seed + 1)
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
    judge = Judge(model, None, "none", "the teacher", side=_SIDE)
    return judge, float(judge.names(images[held], labels[held]).float().mean())
