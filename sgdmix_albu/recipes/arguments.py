"""Arguments that all recipes take."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import get_args

from sgdmix_albu.datasets import EMBEDDED
from sgdmix_albu.parsing import HelpFormatter, Parser, real, whole
from sgdmix_albu.synthetic import Mode


class _Help(HelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of a recipe's docstring."""


def arguments(recipe: str, description: str, data_sets: Sequence[str]) -> Parser:
    """What every recipe asks for.

    Args:
        recipe: Name of its module.
        description: Its docstring.
        data_sets: Data sets it is for, the first one the default.
    """
    parser = Parser(prog=f"python -m sgdmix_albu.recipes.{recipe}", description=description, formatter_class=_Help)
    parser.set_defaults(recipe=recipe)
    layouts = [name for name in data_sets if name not in EMBEDDED]
    parser.checks.append(partial(_one_data_set, layouts[0]))
    add = parser.add_argument
    add("data", metavar="DATA", nargs="?", help="folder of the photographs")
    add("out", metavar="OUT", nargs="?", help="new folder for result.json and model.pt, which sgdmix commands read")
    add(
        "--layout",
        dest="data_set",
        choices=layouts,
        help=f"what DATA holds: a data set, or folders (default: {layouts[0]})",
    )
    add("--dataset", choices=EMBEDDED, help="an embedded data set; leave DATA out")
    add("--write-train", metavar="TREE", help="only write the training images, for sgdmix finetune and generate")
    add(
        "--synthetic",
        metavar="EXPANDED",
        help="the output of sgdmix generate for TREE; without it, train on real images only",
    )
    add("--p", type=real(0, 1), help="probability of a synthetic image")
    add("--mode", choices=get_args(Mode), help="which synthetic image replaces a real one")
    add("--arch", default="resnet50", help="a model of torchvision or timm: resnet50, vit_b_16, ...")
    add("--weights", metavar="FILE", help="its pretrained weights; without them it is trained from scratch")
    add("--epochs", type=whole(1))
    add("--batch-size", type=whole(2), help="images per step, 2 or more: batch norm needs two")
    add(
        "--mean",
        type=real(),
        nargs=3,
        metavar=("R", "G", "B"),
        help="mean of the pixels in [0, 1] that --weights expect",
    )
    add(
        "--std",
        type=real(),
        nargs=3,
        metavar=("R", "G", "B"),
        help="their standard deviation (default of both: see the guide)",
    )
    add("--learning-rate", type=real(0, open_low=True), help="required unless --arch is a resnet* or a vit*")
    add("--size", type=whole(1), default=224, help="side in pixels that the model sees")
    add("--split-seed", type=whole(0), default=0, help="seed of the held-out images, shots and tail (of TREE)")
    add("--seed", type=whole(0), default=0, help="seed of initial values, order, crops and synthetic images")
    add("--device", help="cpu, cuda, mps, ... (default: a GPU if there is one)")
    add("--workers", type=whole(0), default=0, help="processes that load images (default: only this one)")
    add("--amp", action="store_true", help="compute in bfloat16 where that is safe")
    return parser


def _one_data_set(layout: str, found: argparse.Namespace) -> str | None:
    """Settle which data set is meant, and what is OUT: with an embedded one, it is the only folder."""
    if found.dataset is None:
        found.data_set = found.data_set or layout
        if found.data is None:
            return "expected DATA or --dataset NAME"
    elif found.data_set is not None or found.out is not None:
        return f"--dataset {found.dataset} replaces DATA and --layout: leave both out"
    else:
        found.data_set, found.data, found.out = found.dataset, None, found.data
    del found.dataset
    if found.write_train is not None and found.out is not None:
        return f"--write-train only writes images into {found.write_train}: leave OUT out"
    return None
