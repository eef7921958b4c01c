"""``sgdmix mix``, ``generate`` and ``verify``: new images of a folder, and whether they are whole."""

from __future__ import annotations

import argparse
from typing import Any

from sgdmix_albu.cli.grammar import Commands, add_classifier, add_data, add_settings, command, made, options_of
from sgdmix_albu.cli.said import Said
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.parsing import Parser, count, real
from sgdmix_albu.settings import ClassifierSettings, FileSettings, RefinerSettings, SaliencySettings, Settings

_OUT = "folder or URL to write; one folder per class and metadata.jsonl"


def add_mix(commands: Commands) -> None:
    """``sgdmix mix``."""

    def run(*, options: list[str], **arguments: Any) -> Said:
        from sgdmix_albu.expand import mix_folder

        return _expanded(mix_folder(saliency_options=options_of(options), **arguments))

    mix = command(commands, "mix", run, "write a mixed copy of a folder of labelled images, and a record of each mix")
    add_data(mix, _OUT)
    _add_mixing(mix, "mixing")
    add_classifier(mix)
    _add_run(mix, "number of workers (default: one per core)")


def add_generate(commands: Commands) -> None:
    """``sgdmix generate``."""

    def run(*, options: list[str], strengths: list[str] | None, **arguments: Any) -> Said:
        from sgdmix_albu.expand import generate

        teacher = made(ClassifierSettings, arguments, prefix="teacher_", model=arguments.pop("teacher"))
        arguments["teacher"] = teacher if teacher.model else None
        arguments["refiner"] = made(RefinerSettings, arguments, strengths=_strengths(strengths))
        saliency = made(SaliencySettings, arguments, options=options_of(options) or {})
        return _expanded(generate(settings=made(Settings, arguments, saliency=saliency), **arguments))

    generate = command(
        commands, "generate", run, "expand a folder of labelled images; if interrupted, run the same command to resume"
    )
    add_data(generate, _OUT)
    _add_mixing(generate, "mixing", "multiplier")
    refine = generate.add_argument_group("refining")
    refine.add_argument(
        "--refiner",
        dest="name",
        required=True,
        metavar="KEY_OR_DIR",
        help="a key (see: sgdmix refiners), a folder, or none",
    )
    add_settings(refine, RefinerSettings, without="name")
    teacher = generate.add_argument_group(
        "teacher: a classifier that judges each output and decides adaptive strengths"
    )
    teacher.add_argument("--teacher", metavar="FILE", help="its weights")
    add_settings(teacher, ClassifierSettings, prefix="teacher_", without="model")
    add_classifier(generate)
    files, who = _add_run(generate, "number of workers (default: one per core, or per GPU share)")
    files.add_argument("--dry-run", action="store_true", help="write nothing; estimate time and size")
    who.add_argument("--gpus-per-worker", type=real(0), metavar="F", help="with ray: share of a GPU for each worker")


def add_verify(commands: Commands) -> None:
    """``sgdmix verify``."""

    def run(*, out: str) -> Said:
        from sgdmix_albu.expand import verify

        found = verify(out)
        return Said([str(found)], found.to_json(), 0 if found.good else 1)

    verify = command(commands, "verify", run, "check every file that generate or mix wrote against its checksum")
    verify.add_argument("out", metavar="OUT", help="folder that generate or mix wrote")


def _add_mixing(parser: Parser, title: str, more: str = "") -> None:
    group = parser.add_argument_group(title)
    add_settings(group, SaliencySettings, only="saliency options")
    mixing = "p candidates target_class fill place max_coverage feather min_agreement agreement_with seed"
    add_settings(group, Settings, only=f"mask {more} {mixing}")

    def somebody_is_asked(found: argparse.Namespace) -> str | None:
        if found.min_agreement or found.agreement_with == Settings.agreement_with:
            return None
        return f"--agreement {found.agreement_with} does nothing without --min-agreement F"

    parser.checks.append(somebody_is_asked)


def _add_run(parser: Parser, workers: str) -> tuple[argparse._ArgumentGroup, argparse._ArgumentGroup]:
    """What is read and written, and by whom."""
    files, who = parser.add_argument_group("files"), parser.add_argument_group("execution")
    add_settings(files, FileSettings)
    files.add_argument("--limit", type=count, metavar="N", help="use N images only, spread over the classes")
    files.add_argument("--overwrite", action="store_true", help="start over; remove the files of an earlier run")
    who.add_argument("--workers", type=count, metavar="N", help=workers)
    who.add_argument("--engine", choices=("local", "ray"), default="local", help="this machine or a Ray cluster")
    who.add_argument("--address", metavar="ADDRESS", help="address of a running Ray cluster: auto, ray://host:10001")
    return files, who


def _strengths(texts: list[str] | None) -> tuple[float, ...] | str | None:
    if texts is None:
        return None
    if texts == ["adaptive"]:
        return "adaptive"
    try:
        return tuple(map(float, texts))
    except ValueError:
        said = " ".join(texts)
        raise InvalidInputError(f"--strengths takes numbers in (0, 1], or only adaptive, got {said!r}") from None


def _expanded(result: Any) -> Said:
    """What an expansion did, or a dry run expects."""
    return Said([str(result)], result.to_json(), result.code, result.failure)
