"""The course of an experiment, from parsed arguments to the result."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torchvision.transforms import v2

from sgdmix_albu.classifiers import Classifier, new_classifier
from sgdmix_albu.datasets.tree import write_tree
from sgdmix_albu.devices import present_device
from sgdmix_albu.errors import InvalidInputError, SGDMixError
from sgdmix_albu.io.console import told
from sgdmix_albu.io.places import check_apart
from sgdmix_albu.mixing.colour import IMAGENET, Normalization, check_normalization
from sgdmix_albu.recipes.checks import check_made_of, check_model
from sgdmix_albu.recipes.measures import Measures
from sgdmix_albu.recipes.parts import Part, Parts
from sgdmix_albu.recipes.record import Record
from sgdmix_albu.recipes.settings import Settings
from sgdmix_albu.recipes.training import Machine, fit, predict, standardised
from sgdmix_albu.synthetic import SyntheticMix


def guarded(main: Callable[[], int]) -> int:
    """Run a recipe; what is wrong is said in one line."""
    try:
        with told():
            return main()
    except SGDMixError as error:
        print("error:", error, file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print("interrupted:", str(stop) or "nothing was written", file=sys.stderr)
        return 130


def experiment(
    options: argparse.Namespace,
    parts: Parts,
    settings: Settings,
    views: tuple[v2.Transform, v2.Transform],
    judge: Callable[[NDArray[np.int64], Part], Measures],
    choose: str,
) -> int:
    """Train, let validation choose the epoch, judge the test images once, say and write the result.

    Args:
        options: What :func:`sgdmix_albu.recipes.arguments.arguments` parsed.
        parts: Training, validation and test images, PIL.
        settings: The recipe's; options win.
        views: Transforms of PIL images to train and to judge.
        judge: Predictions for some images, and the images, to measures.
        choose: The measure that chooses the epoch.

    Returns:
        The exit code, 0.

    Raises:
        SGDMixError: Something does not fit; nothing has been trained then.
    """
    for written in (options.out, options.write_train):
        check_apart(written, options.data, options.synthetic)
    if options.write_train is not None:
        return _write_train(parts.train, options.write_train)
    record = Record(options.out, arch=options.arch, class_names=parts.train.classes)
    settings = _overridden(settings, options)
    machine = Machine(present_device(options.device), options.workers, options.amp)
    options.device = str(machine.device)  # for the record
    torch.manual_seed(options.seed)
    classifier = new_classifier(options.arch, parts.train.classes, options.weights, size=options.size)
    model = classifier.model.to(machine.device)
    check_model(model, options.arch, size=options.size, classes=len(parts.train.classes), device=machine.device)
    pixels = _pixels(classifier, options)
    learning, judging = (standardised(view, pixels) for view in views)
    train = parts.train.seen_through(learning)
    val, test = parts.val.seen_through(judging), parts.test.seen_through(judging)
    mixed = train if options.synthetic is None else _with_synthetic(parts.train, train, options, settings)
    print(f"{len(train)} images to train on, {len(val)} to select the epoch, {len(test)} to test")
    if options.out is None:
        print("no OUT: the result and the trained model will not be stored")
    if classifier.sha256 is None:
        print("no --weights: the model starts from random values, and will be far behind a pretrained one")

    def judged(predictions: NDArray[np.int64]) -> Measures:
        return judge(predictions, val)

    def keep(model: nn.Module) -> None:
        record.keep(model, pixels)

    began = time.monotonic()
    with record.told_when_interrupted():
        history = fit(model, mixed, val, settings, judged, choose, machine=machine, seed=options.seed, keep=keep)
        found = judge(predict(model, test, settings.batch_size, machine), test)
    chosen = max(history, key=lambda epoch: epoch[choose])
    print(f"selected: epoch {chosen['epoch']}, by validation {choose} {chosen[choose]:.1%}")
    print(*(f"test {name:<20} {share:6.1%}" for name, share in found.items()), sep="\n")
    record.finish(
        {
            "options": vars(options),
            "settings": asdict(settings),
            "images": {"train": len(train), "val": len(val), "test": len(test)},
            "synthetic": len(mixed.pool) if isinstance(mixed, SyntheticMix) else 0,
            "weights_sha256": classifier.sha256,
            "pixels": {"mean": pixels[0], "std": pixels[1]},
            "chosen_by": choose,
            "chosen": chosen,
            "test": found,
            "history": history,
            "seconds": round(time.monotonic() - began, 1),
            "torch": torch.__version__,
        }
    )
    return 0


def _pixels(classifier: Classifier, options: argparse.Namespace) -> Normalization:
    """What pixels are standardised with: as asked, else as the weights or timm say, else with ImageNet's."""
    if (options.mean, options.std) == (None, None):
        pixels = classifier.normalization or IMAGENET
    else:
        check_normalization(options.mean, options.std, channels=3)
        pixels = (options.mean, options.std)
    mean, std = (" ".join(f"{value:g}" for value in values) for values in pixels)
    print(f"pixels: mean {mean}, deviation {std}")
    return pixels


def _write_train(train: Part, tree: str) -> int:
    write_tree(train, tree)
    print(f"{len(train)} training images in {tree}; now fine-tune a refiner on them alone, and expand them:")
    print(f"sgdmix finetune {tree} REFINER --metaclass WORD --base BASE")
    print(f"sgdmix generate {tree} EXPANDED --refiner REFINER")
    return 0


def _with_synthetic(train: Part, seen: Part, options: argparse.Namespace, settings: Settings) -> SyntheticMix:
    mixed = SyntheticMix(seen, options.synthetic, p=settings.p, mode=settings.mode, seed=options.seed)
    check_made_of(mixed.pool, train)
    sources = len(mixed.pool.by_source)
    print(f"synthetic: {len(mixed.pool)} images, made from {sources} of the {len(train)} training images")
    return mixed


def _overridden(settings: Settings, options: argparse.Namespace) -> Settings:
    if options.synthetic is None and (options.p, options.mode) != (None, None):
        raise InvalidInputError("--p and --mode choose among synthetic images: they need --synthetic")
    given = {name: getattr(options, name) for name in ("p", "mode", "epochs", "batch_size")}
    return replace(settings, **{name: value for name, value in given.items() if value is not None})
