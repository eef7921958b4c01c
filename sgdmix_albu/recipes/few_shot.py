"""Few shots: a handful of training images of each class.

Three steps: write the training images, expand them, train on both; with the same --shots and --seed throughout.

  python -m sgdmix_albu.recipes.few_shot --data-set cub --data CUB_200_2011 --shots 5 --write-train tree
  sgdmix generate tree expanded --refiner runs/cub-5
  python -m sgdmix_albu.recipes.few_shot --data-set cub --data CUB_200_2011 --shots 5 --weights resnet50.pth \
      --synthetic expanded --out runs/few

The epoch is chosen on as many other images of each class, of the official validation split or of the training images
that are left: labels beyond the shots, which choose and never train. A refiner must be fine-tuned on the tree alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from sgdmix_albu.recipes.command import arguments, experiment, guarded
from sgdmix_albu.recipes.measures import measure
from sgdmix_albu.recipes.parts import Parts, few_shot, official_parts
from sgdmix_albu.recipes.settings import diff_mix
from sgdmix_albu.recipes.training import crops

DATA_SETS = ("cub", "aircraft", "cars", "flowers", "pets", "folders", "aviary")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the recipe."""
    parser = arguments("few_shot", __doc__, DATA_SETS)
    parser.add_argument("--shots", type=int, default=5, help="training images of each class (default 5)")
    options = parser.parse_args(argv)
    whole = official_parts(options.data_set, options.data, size=options.size, seed=options.seed, held=0.5)
    parts = Parts(
        train=whole.train.having(few_shot(whole.train.targets, options.shots, options.seed)),
        val=whole.val.having(few_shot(whole.val.targets, options.shots, options.seed)),
        test=whole.test,
    )
    # assumed: epochs and probability of Diff-Mix's 5-shot runs (scripts/classification/classification_main_5shot.sh)
    settings = replace(diff_mix(options.data_set, options.arch), epochs=150, p=0.3)
    return experiment(options, parts, settings, crops(options.size), measure, choose="accuracy")


if __name__ == "__main__":
    sys.exit(guarded(main))
