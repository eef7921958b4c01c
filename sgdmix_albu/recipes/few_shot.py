r"""Few shots: a handful of training images per class.

Four steps: write the training images, fine-tune a refiner on them, expand them, train on both. Use the same --shots
and --split-seed in all of them.

  python -m sgdmix_albu.recipes.few_shot CUB_200_2011 --layout cub --shots 5 --write-train tree
  sgdmix finetune tree runs/refiner --key cub --base sd15/
  sgdmix generate tree expanded --refiner runs/refiner
  python -m sgdmix_albu.recipes.few_shot CUB_200_2011 runs/few --layout cub --shots 5 --weights resnet50.pth \
      --synthetic expanded

The epoch is selected on as many other images per class, from the official validation split or the remaining training
images. Their labels go beyond the shots, but never train. The refiner sees only the tree: one that has seen more images
of a class would turn a few shots into more.
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
