"""Arguments that all recipes take."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import get_args

import torch

from sgdmix_albu.synthetic import Mode


def arguments(recipe: str, description: str, data_sets: Sequence[str]) -> argparse.ArgumentParser:
    """What every recipe asks for.

    Args:
        recipe: Name of its module.
        description: Its docstring.
        data_sets: Data sets it is for, the first one the default.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m sgdmix_albu.recipes.{recipe}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(recipe=recipe)
    add = parser.add_argument
    add("--data-set", choices=data_sets, default=data_sets[0], help=f"default {data_sets[0]}")
    add("--data", metavar="DIR", help="its folder, in the official layout; none for the embedded aviary")
    add("--write-train", metavar="TREE", help="only write the training images, for sgdmix finetune and generate")
    add("--synthetic", metavar="EXPANDED", help="what sgdmix generate made of TREE; without it, train on real images")
    add("--p", type=float, help="probability of a synthetic image")
    add("--mode", choices=get_args(Mode), help="which synthetic image stands for a real one")
    add("--arch", default="resnet50", help="a model of torchvision or timm: resnet50 (default), vit_b_16, ...")
    add("--weights", metavar="FILE", help="its pretrained weights; without them it is trained from scratch")
    add("--epochs", type=whole(1))
    add("--batch-size", type=whole(2), help="images of one step, 2 or more: one has no variance to normalise by")
    add("--mean", type=float, nargs=3, metavar=("R", "G", "B"), help="of the pixels in [0, 1] that --weights expect")
    add("--std", type=float, nargs=3, metavar=("R", "G", "B"), help="their deviation (default of both: see the guide)")
    add("--learning-rate", type=_positive, help="needed for what is neither a resnet* nor a vit*")
    add("--size", type=whole(1), default=224, help="side in pixels that the model sees (default 224)")
    add("--split-seed", type=whole(0), default=0, help="of held-out images, shots and tail: of TREE (default 0)")
    add("--seed", type=whole(0), default=0, help="of initial values, order, crops and synthetic images (default 0)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: a GPU if there is one")
    add("--workers", type=whole(0), default=0, help="processes that load images (default: none beside this one)")
    add("--amp", action="store_true", help="compute in bfloat16 where that is sound")
    add("--out", metavar="RUN", help="new folder for result.json and model.pt, which --teacher and --model read")
    return parser


def whole(least: int) -> Callable[[str], int]:
    """The type of an argument: a whole number, ``least`` or more."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number, {least} or more, got {text}")
        return int(text)

    return number


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return number
