"""Arguments that all recipes take, and the course of an experiment."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms import v2

from sgdmix_albu.datasets.tree import write_tree
from sgdmix_albu.errors import DataError, InvalidInputError, SGDMixError
from sgdmix_albu.files import write_whole
from sgdmix_albu.models import new_classifier, save_classifier
from sgdmix_albu.recipes.measures import Measures
from sgdmix_albu.recipes.parts import Part, Parts
from sgdmix_albu.recipes.settings import Settings
from sgdmix_albu.recipes.training import Machine, fit, predict
from sgdmix_albu.synthetic import Mode, SyntheticMix

__all__ = ["arguments", "experiment", "guarded"]


class Judge(Protocol):
    """Predictions and their images to measures."""

    def __call__(self, predictions: NDArray[np.int64], part: Part) -> Measures: ...


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
    add("--write-train", metavar="TREE", help="only write the training images, for sgdmix generate TREE EXPANDED")
    add("--synthetic", metavar="EXPANDED", help="what sgdmix generate made of TREE; without it, train on real images")
    add("--p", type=float, help="probability of a synthetic image")
    add("--mode", choices=get_args(Mode), help="which synthetic image stands for a real one")
    add("--arch", default="resnet50", help="a model of torchvision or timm: resnet50 (default), vit_b_16, ...")
    add("--weights", metavar="FILE", help="its pretrained weights; without them it is trained from scratch")
    add("--epochs", type=_positive)
    add("--batch-size", type=_positive)
    add("--learning-rate", type=float)
    add("--size", type=_positive, default=224, help="side in pixels that the model sees (default 224)")
    add("--seed", type=_whole, default=0, help="of held-out images, initial values, order and crops (default 0)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: a GPU if there is one")
    add("--workers", type=int, default=0, help="processes that load images (default: none beside this one)")
    add("--amp", action="store_true", help="compute in bfloat16 where that is sound")
    add("--out", metavar="RUN", help="new folder for result.json and model.pt, which --teacher and --model read")
    return parser


def guarded(main: Callable[[], int]) -> int:
    """Run a recipe; what is wrong is said in one line."""
    try:
        return main()
    except SGDMixError as error:
        print("error:", " ".join(str(error).splitlines()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130


def experiment(
    options: argparse.Namespace,
    parts: Parts,
    settings: Settings,
    views: tuple[v2.Transform, v2.Transform],
    judge: Judge,
    choose: str,
) -> int:
    """Train, let validation choose the epoch, judge the test images once, say and write the result.

    Args:
        options: What :func:`arguments` parsed.
        parts: Training, validation and test images, PIL.
        settings: The recipe's; options win.
        views: Transforms to train and to judge.
        judge: Measures the predictions for some images.
        choose: The measure that chooses the epoch.

    Returns:
        The exit code, 0.

    Raises:
        SGDMixError: Something does not fit; nothing has been trained or written then.
    """
    if options.write_train is not None:
        write_tree(parts.train, options.write_train)
        print(f"{len(parts.train)} training images in {options.write_train}; now expand them:")
        print(f"sgdmix generate {options.write_train} EXPANDED")
        return 0
    if options.out is not None:
        _check_fresh(Path(options.out))
    settings = _overridden(settings, options)
    train = parts.train.seen_through(views[0])
    val, test = parts.val.seen_through(views[1]), parts.test.seen_through(views[1])
    mixed = train if options.synthetic is None else _with_synthetic(train, options.synthetic, settings, options.seed)

    torch.manual_seed(options.seed)
    machine = Machine(_device(options.device), options.workers, options.amp)
    model, sha256 = new_classifier(options.arch, parts.train.classes, options.weights)
    model.to(machine.device)
    _try(model, options, machine)
    print(f"{len(train)} images to train on, {len(val)} to choose the epoch, {len(test)} to judge")
    if sha256 is None:
        print("no --weights: the model starts from random values, and will be far behind a pretrained one")

    began = time.monotonic()
    history = fit(model, mixed, val, settings, partial(judge, part=val), choose, machine=machine, seed=options.seed)
    chosen = max(history, key=lambda epoch: epoch[choose])
    found = judge(predict(model, test, settings.batch_size, machine), part=test)
    print(f"chosen: epoch {chosen['epoch']}, by validation {choose} {chosen[choose]:.1%}")
    print(*(f"test {name:<20} {share:6.1%}" for name, share in found.items()), sep="\n")
    if options.out is not None:
        save_classifier(Path(options.out, "model.pt"), model, arch=options.arch, class_names=parts.train.classes)
        result = {
            "options": vars(options),
            "settings": asdict(settings),
            "images": {"train": len(train), "val": len(val), "test": len(test)},
            "synthetic": len(mixed.pool) if isinstance(mixed, SyntheticMix) else 0,
            "weights_sha256": sha256,
            "chosen_by": choose,
            "chosen": chosen,
            "test": found,
            "history": history,
            "seconds": round(time.monotonic() - began, 1),
            "torch": torch.__version__,
        }
        text = json.dumps(result, indent=2)
        write_whole(Path(options.out, "result.json"), lambda file: file.write(text.encode()))
        print(f"written: {Path(options.out, 'result.json')} and model.pt")
    return 0


def _with_synthetic(train: Part, out: str, settings: Settings, seed: int) -> SyntheticMix:
    mixed = SyntheticMix(train, out, p=settings.p, mode=settings.mode, seed=seed)
    strangers = sorted(mixed.pool.by_source.keys() - set(train.source_keys))
    if strangers:
        raise DataError(
            f"{out} was made from {len(strangers)} images that are not among the training images, such as "
            f"{strangers[0]}: they may be validation or test images. Expand what --write-train writes with the same "
            "options"
        )
    return mixed


def _overridden(settings: Settings, options: argparse.Namespace) -> Settings:
    given: dict[str, Any] = {
        name: getattr(options, name) for name in ("p", "mode", "epochs", "batch_size", "learning_rate")
    }
    return replace(settings, **{name: value for name, value in given.items() if value is not None})


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    # What torch raises where a device is unknown or absent is of several kinds.
    except Exception as error:
        raise InvalidInputError(f"--device {name} is not there: {error}") from error


def _try(model: torch.nn.Module, options: argparse.Namespace, machine: Machine) -> None:
    """A model that is made for images of one size says so before any work is done."""
    model.eval()
    try:
        with torch.inference_mode():
            model(torch.zeros(2, 3, options.size, options.size, device=machine.device))
    # Each model has its own way to refuse.
    except Exception as error:
        raise InvalidInputError(f"{options.arch} does not take images of {options.size} pixels: {error}") from error


def _check_fresh(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: expected an empty folder or a new one")


def _whole(text: str, least: int = 0) -> int:
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"expected {least} or more, got {text}")
    return number


def _positive(text: str) -> int:
    return _whole(text, least=1)
