"""Long tails: a few classes have many training images, many have a few. The test images are balanced.

Three steps: write the training images, expand them, train on both; with the same --imbalance and --seed throughout.

  python -m sgdmix_albu.recipes.long_tail --data-set cub --data CUB_200_2011 --imbalance 0.01 --write-train tree
  sgdmix generate tree expanded --refiner cub-lt
  python -m sgdmix_albu.recipes.long_tail --data-set cub --data CUB_200_2011 --imbalance 0.01 \
      --weights resnet50.pth --synthetic expanded --out runs/lt

The epoch is chosen by the mean of the classes' accuracies on the official validation split, or on a tenth of each
class that is held out before the tail is cut.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sgdmix_albu.recipes.command import arguments, experiment, guarded
from sgdmix_albu.recipes.measures import Measures, by_frequency, measure
from sgdmix_albu.recipes.parts import Part, long_tailed, official_parts
from sgdmix_albu.recipes.settings import Settings
from sgdmix_albu.recipes.training import resized_crops

DATA_SETS = ("cub", "flowers", "aircraft", "cars", "pets", "folders", "aviary")

# Classes with more than the first are "many", with fewer than the second "few": Diff-Mix's for CUB and Flowers,
# CUB's assumed for the others.
THRESHOLDS = {"cub": (20, 5), "flowers": (30, 10)}

# assumed: Diff-Mix's long-tail runs (scripts/classification_imb.sh), with the cosine of its other runs in place of
# steps, and with the label smoothing that the specification asks for.
SETTINGS = Settings(epochs=200, batch_size=128, learning_rate=0.005, weight_decay=2e-4, p=0.1)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the recipe."""
    parser = arguments("long_tail", __doc__, DATA_SETS)
    parser.add_argument("--imbalance", type=float, default=0.01, help="rarest class against commonest (default 0.01)")
    options = parser.parse_args(argv)
    parts = official_parts(options.data_set, options.data, size=options.size, seed=options.seed)
    tail = parts.train.having(long_tailed(parts.train.targets, options.imbalance, options.seed))
    many, few = THRESHOLDS.get(options.data_set, THRESHOLDS["cub"])
    judge = partial(_measure, seen=tail.targets, many=many, few=few)
    return experiment(
        options, replace(parts, train=tail), SETTINGS, resized_crops(options.size), judge, choose="class mean"
    )


def _measure(predictions: Any, part: Part, **thresholds: Any) -> Measures:
    return measure(predictions, part) | by_frequency(predictions, part, **thresholds)


if __name__ == "__main__":
    sys.exit(guarded(main))
