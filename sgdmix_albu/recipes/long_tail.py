r"""Long tails: a few classes have many training images, many have a few; in the test all classes weigh the same.

Four steps: write the training images, fine-tune a refiner on them, expand them, train on both. Use the same
--imbalance and --split-seed in all of them.

  python -m sgdmix_albu.recipes.long_tail CUB_200_2011 --layout cub --imbalance 0.01 --write-train tree
  sgdmix finetune tree runs/refiner --key cub-lt --base sd15/
  sgdmix generate tree expanded --refiner runs/refiner
  python -m sgdmix_albu.recipes.long_tail CUB_200_2011 runs/lt --layout cub --imbalance 0.01 \
      --weights resnet50.pth --synthetic expanded

The epoch is selected by the mean accuracy over the classes, on the official validation split, or on a tenth of each
class that is held out before the tail is cut. A refiner that has seen the images cut away would bring them back. The
official training split of Flowers has 10 images per class, so there half of all images are split like this, and the
other half is the test, as in Diff-Mix.

That tenth makes every class smaller: the mean class of CUB has 27 images to cut from, in Diff-Mix 30, so fewer classes
count as "many".
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sgdmix_albu.parsing import real
from sgdmix_albu.recipes.arguments import arguments
from sgdmix_albu.recipes.command import experiment, guarded
from sgdmix_albu.recipes.measures import Measures, by_frequency, measure
from sgdmix_albu.recipes.parts import Part, Parts, halved_parts, long_tailed, official_parts
from sgdmix_albu.recipes.settings import diff_mix_long_tail
from sgdmix_albu.recipes.training import resized_crops

DATA_SETS = ("cub", "flowers", "aircraft", "cars", "pets", "folders", "aviary")

# Classes with more than the first are "many", with fewer than the second "few": Diff-Mix's for CUB and Flowers,
# CUB's assumed for the others.
THRESHOLDS = {"cub": (20, 5), "flowers": (30, 10)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the recipe."""
    parser = arguments("long_tail", __doc__, DATA_SETS)
    parser.add_argument(
        "--imbalance", type=real(0, 1, open_low=True), default=0.01, help="rarest class against commonest"
    )
    options = parser.parse_args(argv)
    settings = diff_mix_long_tail(options.arch, options.learning_rate)
    parts = _parts(options)
    many, few = THRESHOLDS.get(options.data_set, THRESHOLDS["cub"])
    judge = partial(_measure, seen=parts.train.targets, many=many, few=few)
    return experiment(options, parts, settings, resized_crops(options.size), judge, choose="class mean")


def _parts(options: argparse.Namespace) -> Parts:
    if options.data_set == "flowers":
        parts = halved_parts(options.data_set, options.data, seed=options.split_seed)
    else:
        parts = official_parts(options.data_set, options.data, size=options.size, seed=options.split_seed)
    tail = long_tailed(parts.train.targets, options.imbalance, options.split_seed)
    return replace(parts, train=parts.train.having(tail))


def _measure(predictions: Any, part: Part, **thresholds: Any) -> Measures:
    return measure(predictions, part) | by_frequency(predictions, part, **thresholds)


if __name__ == "__main__":
    sys.exit(guarded(main))
