"""Few shots: a handful of training images of each class.

Four steps: write the training images, fine-tune a refiner on them, expand them, train on both; with the same --shots
and --split-seed throughout.

  python -m sgdmix_albu.recipes.few_shot CUB_200_2011 --layout cub --shots 5 --write-train tree
  sgdmix finetune tree runs/refiner --key cub --base sd15/
  sgdmix generate tree expanded --refiner runs/refiner
  python -m sgdmix_albu.recipes.few_shot CUB_200_2011 runs/few --layout cub --shots 5 --weights resnet50.pth \
      --synthetic expanded

The epoch is chosen on as many other images of each class, of the official validation split or of the training images
that are left: labels beyond the shots, which choose and never train. The refiner sees the tree alone: one that knew
more images of a class would make more than a few shots of it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sgdmix_albu.parsing import whole
from sgdmix_albu.recipes.arguments import arguments
from sgdmix_albu.recipes.command import experiment, guarded
from sgdmix_albu.recipes.measures import measure
from sgdmix_albu.recipes.parts import Parts, few_shot, official_parts
from sgdmix_albu.recipes.settings import diff_mix_few_shot
from sgdmix_albu.recipes.training import crops

DATA_SETS = ("cub", "aircraft", "cars", "flowers", "pets", "folders", "aviary")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the recipe."""
    parser = arguments("few_shot", __doc__, DATA_SETS)
    parser.add_argument("--shots", type=whole(1), default=5, help="training images of each class")
    options = parser.parse_args(argv)
    settings = diff_mix_few_shot(options.data_set, options.arch, options.learning_rate)
    seed, shots = options.split_seed, options.shots
    full = official_parts(options.data_set, options.data, size=options.size, seed=seed, held=0.5)
    parts = Parts(
        train=full.train.having(few_shot(full.train.targets, shots, seed, kind="training")),
        val=full.val.having(few_shot(full.val.targets, shots, seed, kind="validation")),
        test=full.test,
    )
    return experiment(options, parts, settings, crops(options.size), measure, choose="accuracy")


if __name__ == "__main__":
    sys.exit(guarded(main))
