"""What the commands take, what they call, and what they print."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, TypeAlias

from sgdmix_albu import __version__
from sgdmix_albu.cli.grammar import add_data, add_settings, made
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.parsing import Parser, count, real, seed
from sgdmix_albu.printable import printable, skipped_lines
from sgdmix_albu.settings import (
    ClassifierSettings,
    FileSettings,
    MixSettings,
    RefinerSettings,
    SaliencySettings,
    Settings,
)
from sgdmix_albu.types import BEST_MASK, BEST_SALIENCY

_Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # it has no public name


def parser() -> Parser:
    """The whole command line."""
    whole = Parser(
        prog="sgdmix",
        description="Put objects of labelled photographs on each other's backgrounds (SGD-Mix, arXiv 2505.11813).",
    )
    whole.add_argument("--version", action="version", version=f"sgdmix {__version__}")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for add in (_demo, _mix, _generate, _verify, _audit, _refiners, _bank, _distil, _finetune, _drift):
        add(commands)
    return whole


def _command(commands: _Commands, name: str, run: Callable[..., int], text: str) -> Parser:
    added = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    added.set_defaults(command=run)
    return added


def _demo(commands: _Commands) -> None:
    def run(**arguments: Any) -> int:
        from sgdmix_albu.demo import run_demo

        run_demo(**arguments)
        return 0

    demo = _command(commands, "demo", run, "run the whole method on the embedded birds, and say where to look")
    demo.add_argument("out", nargs="?", default="demo-output", metavar="OUT", help="where the results go")


def _mix(commands: _Commands) -> None:
    def run(*, options: list[str], **arguments: Any) -> int:
        from sgdmix_albu.expand import mix_folder

        return _expanded(mix_folder(saliency_options=_options(options), **arguments))

    mix = _command(commands, "mix", run, "write a mixed copy of a folder of labelled images, and what was done to each")
    add_data(mix, "folder or URL to write; one folder per class and metadata.jsonl")
    _add_mixing(mix.add_argument_group("how to mix"))
    _add_classifier(mix)
    _add_run(mix, "at once (default: one a core)")


def _generate(commands: _Commands) -> None:
    def run(*, options: list[str], strengths: list[str] | None, **arguments: Any) -> int:
        from sgdmix_albu.expand import generate

        teacher = made(ClassifierSettings, arguments, prefix="teacher_", model=arguments.pop("teacher"))
        arguments["teacher"] = teacher if teacher.model else None
        arguments["refiner"] = made(RefinerSettings, arguments, strengths=_strengths(strengths))
        saliency = made(SaliencySettings, arguments, options=_options(options) or {})
        return _expanded(generate(settings=made(Settings, arguments, saliency=saliency), **arguments))

    generate = _command(
        commands, "generate", run, "expand a folder of labelled images; interrupted, the same command goes on"
    )
    add_data(generate, "folder or URL to write; one folder per class and metadata.jsonl")
    _add_mixing(generate.add_argument_group("how much, and how to mix"), "multiplier")
    refine = generate.add_argument_group("how to refine")
    refine.add_argument(
        "--refiner", dest="name", required=True, metavar="KEY_OR_DIR", help="see: sgdmix refiners; or none"
    )
    add_settings(refine, RefinerSettings, without="name")
    teacher = generate.add_argument_group(
        "teacher, a classifier that judges each output, and decides adaptive strengths"
    )
    teacher.add_argument("--teacher", metavar="FILE", help="its weights")
    add_settings(teacher, ClassifierSettings, prefix="teacher_", without="model")
    _add_classifier(generate)
    files, who = _add_run(generate, "at once (default: one a core, or GPU share)")
    files.add_argument("--dry-run", action="store_true", help="write nothing; say what to expect")
    who.add_argument("--gpus-per-worker", type=real(0), metavar="F", help="with ray: share of a GPU of each worker")


def _verify(commands: _Commands) -> None:
    def run(*, out: str) -> int:
        from sgdmix_albu.expand import verify

        found = verify(out)
        print(found)
        return 0 if found.good else 1

    verify = _command(commands, "verify", run, "compare what generate or mix wrote with its manifest")
    verify.add_argument("out", metavar="OUT", help="folder that generate or mix wrote")


def _audit(commands: _Commands) -> None:
    def run(*, options: list[str], **arguments: Any) -> int:
        from sgdmix_albu.audit import run_audit

        result = run_audit(saliency_options=_options(options), **arguments)
        for key, reason in result.skipped:
            _say(f"skipped  {key}: {reason}")
        _say(f"verdict  {result.best}: {result.verdict}")
        _say(f"report   {result.report}")
        return 1 if result.skipped else 0

    audit = _command(
        commands, "audit", run, "show what saliency and masks do on a folder of images, and whether to trust them"
    )
    add_data(audit, "folder of the report")
    audit.add_argument(
        "--saliency",
        nargs="+",
        default=[BEST_SALIENCY],
        metavar="NAME",
        help=f"backends to compare (default: {BEST_SALIENCY})",
    )
    add_settings(audit, SaliencySettings, only="options")
    audit.add_argument(
        "--mask", nargs="+", default=[BEST_MASK], metavar="NAME", help=f"mask presets to compare (default: {BEST_MASK})"
    )
    add_settings(audit, MixSettings, only="fill place")
    audit.add_argument("--masks", metavar="DIR", help="folder of true foreground masks, for coverage and leak")
    audit.add_argument(
        "--agreement",
        dest="agreement_with",
        metavar="NAME",
        help=f"a better backend to compare masks with, or none (default: {BEST_SALIENCY}, for those worse than it)",
    )
    audit.add_argument("--samples", type=count, default=10, metavar="N", help="samples that are shown")
    audit.add_argument("--pairs", type=count, default=50, metavar="N", help="pairs that are measured")
    audit.add_argument("--overwrite", action="store_true", help="replace what an earlier audit left in OUT")
    _add_seed(audit, "the same seed draws the same samples")
    _add_classifier(audit)


def _refiners(commands: _Commands) -> None:
    def run() -> int:
        from sgdmix_albu.refine import refiners_table

        print(refiners_table())
        return 0

    _command(commands, "refiners", run, "list the refiners, and where their weights are or what makes them")


def _bank(commands: _Commands) -> None:
    def run(*, options: list[str], **arguments: Any) -> int:
        from sgdmix_albu.bank import make_bank

        bank = make_bank(saliency_options=_options(options), **arguments)
        _say(*skipped_lines(bank.skipped.items(), "bank.json"))
        _say(f"maps     {len(bank)}, each {bank.shape[0]} x {bank.shape[1]}")
        _say(f"bank     {bank.folder}; use it as --saliency bank:{bank.folder}")
        return 1 if bank.skipped else 0

    bank = _command(
        commands, "bank", run, "compute the saliency maps of a folder once, for all other commands and for training"
    )
    bank.add_argument("data", metavar="DATA", help="folder with one folder of images per class")
    bank.add_argument("out", metavar="OUT", help="the bank's folder; use it as --saliency bank:OUT")
    add_settings(bank, SaliencySettings, only="saliency options")
    bank.add_argument("--size", type=count, default=224, metavar="N", help="the backend sees N x N pixels")
    bank.add_argument("--batch", type=count, default=16, metavar="N", help="images to a call of the backend")
    bank.add_argument("--workers", type=count, default=0, metavar="N", help="threads that read (default: one a core)")
    bank.add_argument("--overwrite", action="store_true", help="replace a bank that was made with other settings")
    _add_classifier(bank)


def _distil(commands: _Commands) -> None:
    def run(**arguments: Any) -> int:
        from sgdmix_albu.distillation import distil

        result = distil(options=_options(arguments.pop("options")), **arguments)
        print(result)
        return 1 if result.skipped else 0

    distil = _command(
        commands, "distil", run, "train a small saliency network on what a better one sees in your photographs"
    )
    add_data(distil, "the .safetensors file to write; use it as --saliency FILE", "FILE")
    who = distil.add_argument_group("who teaches it")
    who.add_argument("--teacher", metavar="NAME", help="a saliency backend")
    add_settings(who, SaliencySettings, only="options")
    who.add_argument("--masks", metavar="DIR", help="a folder of masks in its place, object light")
    how = distil.add_argument_group("how to train")
    how.add_argument("--steps", type=count, default=600, metavar="N", help="gradient steps")
    how.add_argument("--batch", type=count, default=32, metavar="N", help="views in each")
    how.add_argument("--limit", type=count, default=5000, metavar="N", help="the most photographs")
    _add_seed(how, "of views and order")
    how.add_argument("--device", metavar="NAME", help="cpu or cuda (default: a GPU if there is one)")
    how.add_argument("--overwrite", action="store_true", help="replace FILE")
    _add_classifier(distil)


def _finetune(commands: _Commands) -> None:
    def run(
        *, data: str | None, dataset: str | None, saliency: str | None, options: list[str], **arguments: Any
    ) -> int:
        from sgdmix_albu.bank.map_source import open_map_source
        from sgdmix_albu.datasets import get_dataset
        from sgdmix_albu.refine import finetune
        from sgdmix_albu.refine.catalogue import metaclass_of
        from sgdmix_albu.saliency.options import prompted

        if arguments["key"] is None and arguments["metaclass"] is None:
            arguments["key"] = dataset
        own = prompted(saliency, _options(options), arguments["metaclass"] or metaclass_of(arguments["key"]))
        if saliency is not None:
            arguments["saliency"] = open_map_source(saliency, **own).backend
        elif own:
            raise InvalidInputError("--saliency-option goes with --saliency")
        card = finetune(data if dataset is None else get_dataset(dataset), **arguments)
        _say(*skipped_lines(card.training["skipped"], "refiner.json"))
        _say(f"refiner  {card.key}: {len(card.classes)} classes")
        _say(f"folder   {arguments['out']}")
        return 0

    def what_it_shows(found: argparse.Namespace) -> str | None:
        if found.data is not None and found.dataset is not None:
            return (
                f"--dataset stands in DATA's place, and DATA is {found.data}; a refiner's key is --key {found.dataset}"
            )
        if found.metaclass or found.key or found.dataset:
            return None
        return "expected --metaclass WORD, what all classes are (--metaclass insect), or --key KEY"

    finetune = _command(
        commands, "finetune", run, "fine-tune a refiner on your own images, by Textual Inversion and LoRA"
    )
    finetune.checks.append(what_it_shows)
    add_data(finetune, "folder to write; use it as --refiner OUT")
    what = finetune.add_argument_group("what the images show, and which model learns it")
    what.add_argument("--metaclass", metavar="WORD", help="what all classes are, such as insect")
    what.add_argument("--key", metavar="KEY", help="take the defaults of a known data set; see: sgdmix refiners")
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
    how = finetune.add_argument_group("how to train (printed before it begins; default: as the key or the base needs)")
    how.add_argument("--steps", type=count, metavar="N", help="optimiser steps")
    how.add_argument("--batch-size", type=count, metavar="N", help="images of one step, over all processes")
    how.add_argument("--learning-rate", type=float, metavar="F", help="of the LoRA matrices")
    how.add_argument("--token-learning-rate", type=float, metavar="F", help="of the new token embeddings")
    how.add_argument("--rank", type=count, metavar="N", help="of the LoRA matrices")
    how.add_argument(
        "--resolution", type=count, metavar="N", help="side in pixels (default: the key's, or the base's own)"
    )
    how.add_argument("--unbalanced", dest="balanced", action="store_false", help="draw images, not classes, evenly")
    how.add_argument("--saliency", metavar="NAME", help="weigh the loss by the maps of a backend, or of a bank")
    add_settings(how, SaliencySettings, only="options")
    how.add_argument("--saliency-weight", type=float, default=1.0, metavar="F", help="how much")
    how.add_argument("--gradient-accumulation", type=count, default=1, metavar="N", help="parts of a step")
    how.add_argument("--gradient-checkpointing", action="store_true", help="less memory, more time")
    how.add_argument(
        "--mixed-precision",
        choices=("no", "fp16", "bf16"),
        help="default: bf16 where GPU or CPU have it, fp16 on other GPUs",
    )
    _add_seed(how, "of weights, order and noise")
    course = finetune.add_argument_group("the run")
    course.add_argument("--checkpoint-every", type=count, metavar="N", help="steps between checkpoints")
    course.add_argument("--samples-every", type=count, metavar="N", help="steps between sample grids")
    course.add_argument("--overwrite", action="store_true", help="replace the refiner in OUT, and do not resume")


def _drift(commands: _Commands) -> None:
    def run(*, options: list[str], **arguments: Any) -> int:
        from sgdmix_albu.audit import run_drift

        teacher = {name: arguments.pop(f"teacher_{name}") for name in ("arch", "class_names", "normalize")}
        result = run_drift(saliency_options=_options(options), **teacher, **arguments)
        print(result.table())
        _say(f"answer   {result.sentence}")
        _say(f"report   {result.report}")
        return 0

    drift = _command(commands, "drift", run, "measure how often a refiner changes the class, for each strength")
    add_data(drift, "folder of the report")
    drift.add_argument("--refiner", required=True, metavar="KEY_OR_DIR", help="which refiner: sgdmix refiners")
    drift.add_argument(
        "--strengths",
        type=real(0, 1, open_low=True),
        nargs="+",
        default=[0.1, 0.3, 0.5, 0.7, 0.9, 1.0],
        metavar="S",
        help="to sweep over",
    )
    drift.add_argument(
        "--preserve", nargs="+", choices=("none", "soft", "strict"), default=["none", "soft", "strict"], help="modes"
    )
    drift.add_argument("--sources", type=count, default=96, metavar="N", help="images")
    add_settings(drift, SaliencySettings, only="saliency options")
    add_settings(drift, Settings, only="mask fill place")
    _add_seed(drift, "the same seed, the same sources, mixes and noise")
    drift.add_argument("--overwrite", action="store_true", help="replace what an earlier sweep left in OUT")
    teacher = drift.add_argument_group("teacher, the classifier that says what it sees (default: one is trained)")
    teacher.add_argument("--teacher", metavar="FILE", help="its weights")
    add_settings(teacher, ClassifierSettings, prefix="teacher_", without="model")


def _add_mixing(group: argparse._ActionsContainer, more: str = "") -> None:
    add_settings(group, SaliencySettings, only="saliency options")
    mixing = "p candidates target_class fill place max_coverage feather min_agreement agreement_with seed"
    add_settings(group, Settings, only=f"mask {more} {mixing}")


def _add_seed(group: argparse._ActionsContainer, text: str) -> None:
    group.add_argument("--seed", type=seed, default=0, metavar="N", help=text)


def _add_run(parser: Parser, workers: str) -> tuple[argparse._ArgumentGroup, argparse._ArgumentGroup]:
    """What is read and written, and by whom."""
    files, who = parser.add_argument_group("files"), parser.add_argument_group("who does it")
    add_settings(files, FileSettings)
    files.add_argument("--limit", type=count, metavar="N", help="take N images only, spread over the classes")
    files.add_argument("--overwrite", action="store_true", help="begin anew, and remove what an earlier run left")
    who.add_argument("--workers", type=count, metavar="N", help=workers)
    who.add_argument("--engine", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster")
    who.add_argument("--address", metavar="ADDRESS", help="of a running Ray cluster: auto, ray://host:10001")
    return files, who


def _add_classifier(parser: Parser) -> None:
    group = parser.add_argument_group("classifier, for saliency that looks through one (gradcam, ...)")
    add_settings(group, ClassifierSettings)


def _options(texts: list[str]) -> dict[str, Any] | None:
    from sgdmix_albu.saliency.options import parse_options

    return parse_options(texts) or None


def _strengths(texts: list[str] | None) -> tuple[float, ...] | str | None:
    if texts is None:
        return None
    if texts == ["adaptive"]:
        return "adaptive"
    try:
        return tuple(map(float, texts))
    except ValueError:
        said = " ".join(texts)
        raise InvalidInputError(f"--strengths takes numbers in (0, 1], or adaptive alone, got {said!r}") from None


def _expanded(result: Any) -> int:
    """Print what an expansion did, or a dry run expects; the exit code."""
    print(result)
    if getattr(result, "there", None) == 0:
        raise DataError(f"no image was written to {result.out}; the lines above say why")
    return 1 if getattr(result, "skipped", ()) or getattr(result, "came", ()) else 0


def _say(*lines: str) -> None:
    """Lines that name files or classes."""
    for line in lines:
        print(printable(line))
