"""``sgdmix finetune`` and ``refiners``: refiners of your own, and those that are known."""

from __future__ import annotations

import argparse
from typing import Any

from sgdmix_albu.cli.grammar import Commands, add_data, add_seed, add_settings, command, options_of
from sgdmix_albu.cli.said import Said
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.parsing import count, real
from sgdmix_albu.printable import skipped_lines, skipped_rows
from sgdmix_albu.settings import SaliencySettings


def add_refiners(commands: Commands) -> None:
    """``sgdmix refiners``."""

    def run() -> Said:
        from sgdmix_albu.refine import refiners_table
        from sgdmix_albu.refine.catalogue import refiner_rows

        return Said([refiners_table()], {"refiners": refiner_rows()})

    command(commands, "refiners", run, "list the refiners, with their weights or the command that makes them")


def add_finetune(commands: Commands) -> None:
    """``sgdmix finetune``."""

    def run(
        *, data: str | None, dataset: str | None, saliency: str | None, options: list[str], **arguments: Any
    ) -> Said:
        from sgdmix_albu.bank.map_source import open_map_source
        from sgdmix_albu.datasets import get_dataset
        from sgdmix_albu.refine import finetune
        from sgdmix_albu.refine.catalogue import metaclass_of
        from sgdmix_albu.saliency.options import prompted

        if arguments["key"] is None and arguments["metaclass"] is None:
            arguments["key"] = dataset
        own = prompted(saliency, options_of(options), arguments["metaclass"] or metaclass_of(arguments["key"]))
        if saliency is not None:
            arguments["saliency"] = open_map_source(saliency, **own).backend
        elif own:
            raise InvalidInputError("--saliency-option goes with --saliency")
        card = finetune(data if dataset is None else get_dataset(dataset), **arguments)
        skipped = card.training["skipped"]
        lines = [
            *skipped_lines(skipped, "refiner.json"),
            f"refiner  {card.key}: {len(card.classes)} classes",
            f"folder   {arguments['out']}",
        ]
        facts = {"out": arguments["out"], "key": card.key, "classes": list(card.classes)}
        return Said(lines, {**facts, "skipped": skipped_rows(skipped)}, 1 if skipped else 0)

    def what_it_shows(found: argparse.Namespace) -> str | None:
        if found.data is not None and found.dataset is not None:
            return f"--dataset replaces DATA, got DATA too: {found.data}; a refiner's key is --key {found.dataset}"
        if found.metaclass or found.key or found.dataset:
            return None
        return "expected --metaclass WORD, what all classes are (--metaclass insect), or --key KEY"

    finetune = command(
        commands, "finetune", run, "fine-tune a refiner on your own images, by Textual Inversion and LoRA"
    )
    finetune.checks.append(what_it_shows)
    add_data(finetune, "folder to write; use it as --refiner OUT")
    what = finetune.add_argument_group("classes and base model")
    what.add_argument("--metaclass", metavar="WORD", help="what all classes are, such as insect")
    what.add_argument("--key", metavar="KEY", help="use the defaults of a known data set; see: sgdmix refiners")
    what.add_argument(
        "--prompt",
        metavar="TEXT",
        help="template of the prompts (default, without a key: 'a photo of a {token} {metaclass}')",
    )
    what.add_argument(
        "--base",
        metavar="PATH_OR_ID",
        help="base model: a folder in diffusers' layout or a hub id (default: the key's, or Stable Diffusion 1.5)",
    )
    what.add_argument("--revision", metavar="COMMIT", help="commit of a hub id, 40 hexadecimal digits")
    how = finetune.add_argument_group("training (printed at the start; defaults from the key or the base)")
    how.add_argument("--steps", type=count, metavar="N", help="optimiser steps")
    how.add_argument("--batch-size", type=count, metavar="N", help="images per step, over all processes")
    how.add_argument("--learning-rate", type=real(), metavar="F", help="learning rate of the LoRA matrices")
    how.add_argument(
        "--token-learning-rate", type=real(), metavar="F", help="learning rate of the new token embeddings"
    )
    how.add_argument("--rank", type=count, metavar="N", help="rank of the LoRA matrices")
    how.add_argument(
        "--resolution", type=count, metavar="N", help="side in pixels (default: the key's, or the base's own)"
    )
    how.add_argument(
        "--unbalanced", dest="balanced", action="store_false", help="draw images equally often; by default classes are"
    )
    how.add_argument("--saliency", metavar="NAME", help="weight the loss by the maps of a backend or a bank")
    add_settings(how, SaliencySettings, only="options")
    how.add_argument("--saliency-weight", type=real(), default=1.0, metavar="F", help="how strongly")
    how.add_argument("--gradient-accumulation", type=count, default=1, metavar="N", help="split each step into N parts")
    how.add_argument("--gradient-checkpointing", action="store_true", help="use less memory and more time")
    how.add_argument(
        "--mixed-precision",
        choices=("no", "fp16", "bf16"),
        help="default: bf16 if CUDA or the CPU has it, fp16 on older CUDA GPUs, else no",
    )
    add_seed(how, "seed of weights, order and noise")
    course = finetune.add_argument_group("checkpoints and samples")
    course.add_argument("--checkpoint-every", type=count, metavar="N", help="steps between checkpoints")
    course.add_argument("--samples-every", type=count, metavar="N", help="steps between sample grids")
    course.add_argument("--overwrite", action="store_true", help="replace the refiner in OUT, and do not resume")
