r"""Background robustness: does the classifier look at the bird, or at the water behind it?

  waterbirds   trained where 95% of the birds are on their own background, judged by group (Sagawa et al., ICLR 2020)
  cub          trained on CUB, judged on Waterbirds' test images, which are CUB's test birds on other
               backgrounds, by the same groups (as in Diff-Mix); --shifted is Waterbirds' folder
  aviary       the embedded birds: trained where 95% are in their own habitat, judged in and out of it

Four steps: write the training images, fine-tune a refiner on them, expand them, train on both.

  python -m sgdmix_albu.recipes.background DIR --layout waterbirds --write-train tree
  sgdmix finetune tree runs/refiner --key waterbirds --base sd15/
  sgdmix generate tree expanded --refiner runs/refiner
  python -m sgdmix_albu.recipes.background DIR runs/robust --layout waterbirds --weights resnet50.pth \
      --synthetic expanded

The epoch is selected by the worst group of the validation split, which needs the groups of those images, as is usual;
for cub, which has no groups, by accuracy. Training never sees a group, and the refiner sees only the tree.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sgdmix_albu.datasets import get_dataset
from sgdmix_albu.datasets.aviary import Aviary, home_of
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.recipes.arguments import arguments
from sgdmix_albu.recipes.command import experiment, guarded
from sgdmix_albu.recipes.measures import measure
from sgdmix_albu.recipes.parts import Part, Parts, judged_on, official_parts
from sgdmix_albu.recipes.settings import diff_mix
from sgdmix_albu.recipes.training import crops

DATA_SETS = ("waterbirds", "cub", "aviary")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the recipe."""
    parser = arguments("background", __doc__, DATA_SETS)
    parser.add_argument("--shifted", metavar="DIR", help="Waterbirds' folder, to judge what was trained on cub")
    options = parser.parse_args(argv)
    settings = diff_mix(options.data_set, options.arch, options.learning_rate)
    parts = _parts(options)
    choose = "accuracy" if parts.val.groups is None else "worst group"
    return experiment(options, parts, settings, crops(options.size), measure, choose)


def _parts(options: argparse.Namespace) -> Parts:
    if (options.data_set == "cub") != (options.shifted is not None):
        raise InvalidInputError("--shifted, Waterbirds' folder, goes with --layout cub, and cub needs it")
    if options.data_set == "aviary":
        return Parts(*(_habitats(split, options.size) for split in ("train", "val", "test")))
    parts = official_parts(options.data_set, options.data, size=options.size, seed=options.split_seed)
    if options.data_set == "waterbirds":
        return parts
    shifted = get_dataset("waterbirds", root=options.shifted, split="test", labels="species")
    return judged_on(parts, Part(shifted))


def _habitats(split: str, size: int) -> Part:
    """Birds that are mostly at home in training, and anywhere in validation and test."""
    birds = Aviary(split, size=size, correlation=0.95 if split == "train" else 0.0)
    homes = [home_of(species) for species in birds.species]
    away = [int(birds.scene(row).habitat != homes[label]) for row, label in enumerate(birds.targets)]
    return Part(birds, groups=away, group_names=("at home", "elsewhere"))


if __name__ == "__main__":
    sys.exit(guarded(main))
