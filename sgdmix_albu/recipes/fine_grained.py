r"""Fine-grained classification: many classes that differ in details.

Four steps: write the training images, fine-tune a refiner on them, expand them, train on both.

  python -m sgdmix_albu.recipes.fine_grained CUB_200_2011 --layout cub --write-train tree
  sgdmix finetune tree runs/refiner --key cub --base sd15/
  sgdmix generate tree expanded --refiner runs/refiner
  python -m sgdmix_albu.recipes.fine_grained CUB_200_2011 runs/cub --layout cub --weights resnet50.pth \
      --synthetic expanded

The epoch is selected on the official validation split, or if there is none, on a tenth of the training images. Those
are not in the tree: a refiner that has seen them would bring them back. The test images are used once. (Published
figures are often of the best epoch on the test images; these are not.)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sgdmix_albu.recipes.arguments import arguments
from sgdmix_albu.recipes.command import experiment, guarded
from sgdmix_albu.recipes.measures import measure
from sgdmix_albu.recipes.parts import official_parts
from sgdmix_albu.recipes.settings import diff_mix
from sgdmix_albu.recipes.training import crops

DATA_SETS = ("cub", "aircraft", "cars", "flowers", "pets", "folders", "aviary")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the recipe."""
    options = arguments("fine_grained", __doc__, DATA_SETS).parse_args(argv)
    settings = diff_mix(options.data_set, options.arch, options.learning_rate)
    parts = official_parts(options.data_set, options.data, size=options.size, seed=options.split_seed)
    return experiment(options, parts, settings, crops(options.size), measure, choose="accuracy")


if __name__ == "__main__":
    sys.exit(guarded(main))
