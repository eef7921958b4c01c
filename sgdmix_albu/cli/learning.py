"""``sgdmix bank`` and ``distil``: saliency that is computed once, and saliency learned from your photographs."""

from __future__ import annotations

from typing import Any

from sgdmix_albu.cli.grammar import Commands, add_classifier, add_data, add_seed, add_settings, command, options_of
from sgdmix_albu.cli.said import Said
from sgdmix_albu.parsing import count
from sgdmix_albu.printable import skipped_lines, skipped_rows
from sgdmix_albu.settings import SaliencySettings


def add_bank(commands: Commands) -> None:
    """``sgdmix bank``."""

    def run(*, options: list[str], **arguments: Any) -> Said:
        from sgdmix_albu.bank import make_bank

        bank = make_bank(saliency_options=options_of(options), **arguments)
        lines = [
            *skipped_lines(bank.skipped.items(), "bank.json"),
            f"maps     {len(bank)}, each {bank.shape[0]} x {bank.shape[1]}",
            f"bank     {bank.folder}; use it as --saliency bank:{bank.folder}",
        ]
        facts = {
            "out": bank.folder,
            "maps": len(bank),
            "size": bank.shape,
            "skipped": skipped_rows(bank.skipped.items()),
        }
        return Said(lines, facts, 1 if bank.skipped else 0)

    bank = command(
        commands, "bank", run, "compute the saliency maps of a folder once, for all other commands and for training"
    )
    bank.add_argument("data", metavar="DATA", help="folder with one folder of images per class")
    bank.add_argument("out", metavar="OUT", help="the bank's folder; use it as --saliency bank:OUT")
    add_settings(bank, SaliencySettings, only="saliency options")
    bank.add_argument("--size", type=count, default=224, metavar="N", help="the backend sees N x N pixels")
    bank.add_argument("--batch", type=count, default=16, metavar="N", help="images per call of the backend")
    bank.add_argument(
        "--workers", type=count, default=0, metavar="N", help="threads that read images (default: one per core)"
    )
    bank.add_argument("--overwrite", action="store_true", help="replace a bank that was made with other settings")
    add_classifier(bank)


def add_distil(commands: Commands) -> None:
    """``sgdmix distil``."""

    def run(**arguments: Any) -> Said:
        from sgdmix_albu.distillation import distil

        result = distil(options=options_of(arguments.pop("options")), **arguments)
        return Said([str(result)], result.to_json(), 1 if result.skipped else 0)

    distil = command(
        commands, "distil", run, "train a small saliency network on the maps of a better one on your photographs"
    )
    add_data(distil, "the .safetensors file to write; use it as --saliency FILE", "FILE")
    who = distil.add_argument_group("teacher")
    who.add_argument("--teacher", metavar="NAME", help="a saliency backend")
    add_settings(who, SaliencySettings, only="options")
    who.add_argument("--masks", metavar="DIR", help="a folder of masks instead, object light")
    how = distil.add_argument_group("training")
    how.add_argument("--steps", type=count, default=600, metavar="N", help="gradient steps")
    how.add_argument("--batch", type=count, default=32, metavar="N", help="views in each")
    how.add_argument("--limit", type=count, default=5000, metavar="N", help="the most photographs")
    add_seed(how, "seed of views and order")
    how.add_argument("--device", metavar="NAME", help="cpu, cuda, mps, ... (default: a GPU if there is one)")
    how.add_argument("--overwrite", action="store_true", help="replace FILE")
    add_classifier(distil)
