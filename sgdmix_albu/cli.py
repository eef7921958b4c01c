"""The command ``sgdmix``: arguments in, a call, an exit code out. No logic lives here.

Exit codes: 0 done; 1 done, but files were skipped; 2 not done, one line on stderr says why; 130 interrupted;
141 nobody read the output to its end.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, TypeAlias, get_args

from sgdmix_albu import __version__
from sgdmix_albu.errors import DataError, InvalidInputError, SGDMixError
from sgdmix_albu.io.interrupts import INTERRUPTED, Interrupts
from sgdmix_albu.printable import printable
from sgdmix_albu.types import BEST_FILL, BEST_MASK, BEST_SALIENCY, Fill

__all__ = ["main", "run"]

_PIPE = 141  # what shells report of a command that nobody reads any more: 128 and SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = vars(_parser(argv).parse_args(argv))
    command: Callable[..., int] = arguments.pop("command")
    try:
        with Interrupts(raising=True), warnings.catch_warnings():
            # Of files that can be read all the same: a line for each odd tag of a TIFF, which may have thousands.
            warnings.filterwarnings("ignore", module="PIL")
            code = command(**arguments)
            sys.stdout.flush()  # here, where it can be told, and not when Python ends
            return code
    except BrokenPipeError:
        # Whoever read us, such as head, has read enough. Python would complain of it when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE
    except SGDMixError as error:
        print("sgdmix: error:", error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sgdmix: interrupted", file=sys.stderr)
        return INTERRUPTED


def run() -> NoReturn:
    """The command as a process: Ctrl-C while Python ends is no reason for a traceback."""
    code = INTERRUPTED
    with suppress(KeyboardInterrupt):  # one in the moment when the command has just ended
        code = main()
    signal.signal(signal.SIGINT, lambda *_: os._exit(code))
    sys.exit(code)


def _mix(*, saliency_options: list[str], **arguments: Any) -> int:
    from sgdmix_albu.expand import mix_folder

    summary = mix_folder(saliency_options=_options(saliency_options), **arguments)
    print(summary)
    if not summary.written:
        raise _nothing_written(summary.out)
    return 1 if summary.skipped else 0


def _generate(
    *,
    refiner: str,
    base: str | None,
    preserve: str,
    hole_strength: float | None,
    strengths: list[str] | None,
    device: str | None,
    saliency_options: list[str],
    **arguments: Any,
) -> int:
    from sgdmix_albu.expand import Expansion, RefinerSettings, SaliencySettings, Settings, TeacherSettings, generate

    def taken(kind: Any, **renamed: str) -> dict[str, Any]:
        names = {field: renamed.get(field, field) for field in kind.__dataclass_fields__}
        return {field: arguments.pop(name) for field, name in names.items() if name in arguments}

    teacher = taken(
        TeacherSettings,
        model="teacher",
        arch="teacher_arch",
        class_names="teacher_class_names",
        normalize="teacher_normalize",
    )
    look = SaliencySettings(
        arguments["saliency"], **taken(SaliencySettings, saliency=""), options=_options(saliency_options) or {}
    )
    adaptive = strengths == ["adaptive"]
    refining = partial(RefinerSettings, base=base, adaptive=adaptive, device=device, hole_strength=hole_strength)
    result = generate(
        settings=Settings(**taken(Settings)),
        look=look,
        refiner=None if refiner == "none" else refining(refiner, preserve=preserve),  # type: ignore[arg-type]
        strengths=None if adaptive or not strengths else [_strength(text) for text in strengths],
        teacher=None if teacher["model"] is None else TeacherSettings(**teacher),
        **arguments,
    )
    print(result)
    if isinstance(result, Expansion) and result.there == 0:
        raise _nothing_written(result.out)
    return 1 if isinstance(result, Expansion) and (result.skipped or result.came) else 0


def _verify(*, out: str) -> int:
    from sgdmix_albu.expand import verify

    found = verify(out)
    print(found)
    return 0 if found.good else 1


def _audit(*, saliency_options: list[str], **arguments: Any) -> int:
    from sgdmix_albu.audit import run_audit

    result = run_audit(saliency_options=_options(saliency_options), **arguments)
    for key, reason in result.skipped:
        _say(f"skipped  {key}: {reason}")
    _say(f"verdict  {result.best}: {result.verdict}")
    _say(f"report   {result.report}")
    return 1 if result.skipped else 0


def _demo(**arguments: Any) -> int:
    from sgdmix_albu.demo import run_demo

    run_demo(**arguments)
    return 0


def _refiners() -> int:
    from sgdmix_albu.refine import refiners_table

    print(refiners_table())
    return 0


def _bank(*, saliency_options: list[str], **arguments: Any) -> int:
    from sgdmix_albu.expand import make_bank

    bank = make_bank(saliency_options=_options(saliency_options), **arguments)
    for key, reason in list(bank.skipped.items())[:_SHOWN]:
        _say(f"skipped  {key}: {reason}")
    if len(bank.skipped) > _SHOWN:
        _say(f"skipped  {len(bank.skipped) - _SHOWN} more, see bank.json")
    _say(f"maps     {len(bank)}, each {bank.shape[0]} x {bank.shape[1]}")
    _say(f"bank     {bank.folder}; use it as --saliency bank:{bank.folder}")
    return 1 if bank.skipped else 0


def _finetune(
    *, data: str | None, key: str, saliency: str | None, saliency_options: list[str], **arguments: Any
) -> int:
    from sgdmix_albu.bank.maps import open_bank
    from sgdmix_albu.datasets import get_dataset
    from sgdmix_albu.refine import finetune
    from sgdmix_albu.refine.catalogue import metaclass_of
    from sgdmix_albu.saliency import get_backend
    from sgdmix_albu.saliency.judged import prompted

    options = prompted(saliency, _options(saliency_options), metaclass_of(key))
    if saliency is not None:
        arguments["saliency"] = open_bank(saliency, **options) or get_backend(saliency, **options)
    elif options:
        raise InvalidInputError("--saliency-option goes with --saliency")
    # The embedded species are drawn, not read.
    card = finetune(get_dataset(key) if data is None else data, key=key, **arguments)
    skipped = card.training["skipped"]
    for name, reason in skipped[:_SHOWN]:
        _say(f"skipped  {name}: {reason}")
    if len(skipped) > _SHOWN:
        _say(f"skipped  {len(skipped) - _SHOWN} more, see refiner.json")
    _say(f"refiner  {card.key}: {len(card.classes)} classes")
    _say(f"folder   {arguments['out']}")
    return 0


def _distil(*, saliency_options: list[str], **arguments: Any) -> int:
    from sgdmix_albu.distillation import distil

    result = distil(options=_options(saliency_options), **arguments)
    print(result)
    return 1 if result.skipped else 0


def _drift(*, saliency_options: list[str], **arguments: Any) -> int:
    from sgdmix_albu.audit import run_drift

    result = run_drift(saliency_options=_options(saliency_options), **arguments)
    print(result.table())
    _say(f"answer   {result.sentence}")
    _say(f"report   {result.report}")
    return 0


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sgdmix",
        description="Put objects of labelled photographs on each other's backgrounds (SGD-Mix, arXiv 2505.11813).",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sgdmix {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    # With --dataset there is no DATA. argparse cannot say that of a positional argument (an optional one
    # swallows the wrong word as soon as options stand between the two), so it is left out.
    named = _value_of("--dataset", argv)
    embedded = named is not None
    _add_demo(commands)
    _add_mix(commands, embedded)
    _add_generate(commands, embedded)
    verify = _add_command(commands, "verify", _verify, "compare what generate or mix wrote with its manifest")
    verify.add_argument("out", metavar="OUT", help="folder that generate or mix wrote")
    _add_audit(commands, embedded)
    _add_command(commands, "refiners", _refiners, "list the refiners, and where their weights are or what makes them")
    _add_bank(commands)
    _add_distil(commands, embedded)
    _add_finetune(commands, drawn=named == "aviary")
    _add_drift(commands, embedded)
    return parser


_SHOWN = 20  # images left out that are printed


def _say(line: str) -> None:
    """A line that names files or classes."""
    print(printable(line))


def _options(texts: list[str]) -> dict[str, Any] | None:
    from sgdmix_albu.saliency.options import parse_options

    return parse_options(texts) or None


def _nothing_written(out: object) -> DataError:
    return DataError(f"no image was written to {out}; the lines above say why")


def _value_of(option: str, argv: Sequence[str]) -> str | None:
    """What follows an option, which is not its name among other arguments; None where it is not given."""
    for place, word in enumerate(argv):
        if word == "--":
            return None
        name, equals, value = word.partition("=")
        if name == option:
            return value if equals else "".join(argv[place + 1 : place + 2])
    return None


_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # it has no public name


def _add_command(commands: _Commands, name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        allow_abbrev=False,
    )
    parser.set_defaults(command=run)
    return parser


def _add_demo(commands: _Commands) -> None:
    parser = _add_command(commands, "demo", _demo, "run the whole method on the embedded birds, and say where to look")
    parser.add_argument(
        "--out", default="demo-output", metavar="DIR", help="where the results go (default: %(default)s)"
    )


def _add_mix(commands: _Commands, embedded: bool) -> None:
    parser = _add_command(
        commands, "mix", _mix, "write a mixed copy of a folder of labelled images, and what was done to each"
    )
    _add_data(parser, embedded)
    parser.add_argument("out", metavar="OUT", help="folder to write; one folder per class and metadata.jsonl")
    how = parser.add_argument_group("how to mix")
    _add_mixing(how)
    how.add_argument(
        "--p", type=float, default=1.0, metavar="P", help="probability that an image is mixed (default: %(default)s)"
    )
    how.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="the same seed gives the same images (default: %(default)s)"
    )
    _add_model(parser)
    files = parser.add_argument_group("files")
    _add_files(files)
    files.add_argument("--overwrite", action="store_true", help="replace what an earlier run left in OUT")
    files.add_argument("--jobs", type=_count, metavar="N", help="threads that read and write (default: one a core)")


def _add_generate(commands: _Commands, embedded: bool) -> None:
    parser = _add_command(
        commands, "generate", _generate, "expand a folder of labelled images; interrupted, the same command goes on"
    )
    _add_data(parser, embedded)
    parser.add_argument("out", metavar="OUT", help="folder or URL to write; one folder per class and metadata.jsonl")
    how = parser.add_argument_group("how much, and how to mix")
    how.add_argument(
        "--multiplier", type=_count, default=5, metavar="N", help="outputs of each image (default: %(default)s)"
    )
    _add_mixing(how)
    how.add_argument("--seed", type=_seed, default=0, metavar="N", help="the same seed gives the same images")
    refine = parser.add_argument_group("how to refine")
    refine.add_argument("--refiner", required=True, metavar="KEY_OR_DIR", help="see: sgdmix refiners; or none")
    refine.add_argument("--base", metavar="PATH_OR_ID", help="another base model than the refiner names")
    refine.add_argument(
        "--strengths", nargs="+", metavar="S", help="to draw from, or: adaptive (default: the refiner's own)"
    )
    refine.add_argument(
        "--preserve", choices=("none", "soft", "strict"), default="strict", help="the object (default: %(default)s)"
    )
    refine.add_argument(
        "--hole-strength", type=float, metavar="S", help="with --fill inpaint, of the paint (default: the image's own)"
    )
    refine.add_argument("--device", metavar="NAME", help="cpu or cuda (default: a GPU if there is one)")
    _add_model(parser)
    group = parser.add_argument_group("teacher, a classifier that judges each output, and decides adaptive strengths")
    group.add_argument("--teacher", metavar="FILE", help="its weights")
    group.add_argument("--teacher-arch", metavar="NAME", help="its name in torchvision or timm")
    group.add_argument("--teacher-class-names", metavar="FILE", help="names of its outputs, one a line")
    group.add_argument("--teacher-normalize", choices=("imagenet", "none"), default="imagenet")
    files = parser.add_argument_group("files")
    _add_files(files)
    files.add_argument("--shards", action="store_true", help="tar shards as WebDataset reads them, not folders")
    files.add_argument("--overwrite", action="store_true", help="begin anew, and remove what an earlier run left")
    files.add_argument("--dry-run", action="store_true", help="write nothing; say what to expect")
    who = parser.add_argument_group("who does it")
    who.add_argument("--engine", choices=("local", "ray"), default="local", help="(default: %(default)s)")
    who.add_argument("--workers", type=_count, metavar="N", help="at once (default: one a core, or GPU share)")
    who.add_argument("--gpus-per-worker", type=float, metavar="F", help="with ray: share of a GPU of each worker")
    who.add_argument("--address", metavar="ADDRESS", help="of a running Ray cluster: auto, ray://host:10001")


def _add_mixing(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--saliency", default=BEST_SALIENCY, metavar="NAME", help="saliency backend (default: %(default)s)"
    )
    _add_saliency_option(group)
    group.add_argument("--mask", default=BEST_MASK, metavar="NAME", help="mask preset (default: %(default)s)")
    group.add_argument(
        "--candidates",
        type=_count,
        default=50,
        metavar="N",
        help="candidates drawn for each image (default: %(default)s)",
    )
    group.add_argument(
        "--target-class",
        choices=("any", "same", "different"),
        default="any",
        help="which targets may be chosen (default: %(default)s)",
    )
    _add_fill(group)
    group.add_argument(
        "--max-coverage",
        type=float,
        default=0.95,
        metavar="F",
        help="largest share that may be kept, or painted over (default: %(default)s)",
    )
    group.add_argument(
        "--min-agreement",
        type=float,
        default=0,
        metavar="F",
        help="leave out images whose mask holds a smaller share of what a better backend sees (default: ask nobody)",
    )
    group.add_argument(
        "--agreement",
        dest="agreement_with",
        default=BEST_SALIENCY,
        metavar="NAME",
        help="that better backend (default: %(default)s)",
    )
    group.add_argument(
        "--feather",
        type=float,
        metavar="PX",
        help="fade outside the mask (default: 0 with --fill source, a soft border with inpaint)",
    )


def _add_fill(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--fill",
        choices=get_args(Fill),
        default=BEST_FILL,
        help="what stands where the target's object was: the source's pixels, or paint (default: %(default)s)",
    )


def _add_files(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--size", type=_count, default=None, metavar="N", help="bring all images to N x N (default: as they are)"
    )
    group.add_argument(
        "--format",
        dest="image_format",
        choices=("png", "jpg"),
        default="png",
        help="format of the images written (default: %(default)s)",
    )
    group.add_argument("--limit", type=_count, metavar="N", help="take N images only, spread over the classes")


def _add_audit(commands: _Commands, embedded: bool) -> None:
    parser = _add_command(
        commands, "audit", _audit, "show what saliency and masks do on a folder of images, and whether to trust them"
    )
    _add_data(parser, embedded)
    parser.add_argument("--out", required=True, metavar="DIR", help="where the report goes")
    parser.add_argument(
        "--saliency",
        nargs="+",
        default=[BEST_SALIENCY],
        metavar="NAME",
        help=f"backends to compare (default: {BEST_SALIENCY})",
    )
    _add_saliency_option(parser)
    parser.add_argument(
        "--mask", nargs="+", default=[BEST_MASK], metavar="NAME", help=f"mask presets to compare (default: {BEST_MASK})"
    )
    _add_fill(parser)
    parser.add_argument("--masks", metavar="DIR", help="folder of true foreground masks, for coverage and leak")
    parser.add_argument(
        "--agreement",
        dest="agreement_with",
        metavar="NAME",
        help=f"a better backend to compare masks with, or none (default: {BEST_SALIENCY}, for those worse than it)",
    )
    parser.add_argument(
        "--samples", type=_count, default=10, metavar="N", help="samples that are shown (default: %(default)s)"
    )
    parser.add_argument(
        "--pairs", type=_count, default=50, metavar="N", help="pairs that are measured (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier audit left in DIR")
    parser.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="the same seed draws the same samples (default: %(default)s)"
    )
    _add_model(parser)


def _add_bank(commands: _Commands) -> None:
    parser = _add_command(
        commands, "bank", _bank, "compute the saliency maps of a folder once, for all other commands and for training"
    )
    parser.add_argument("data", metavar="DATA", help="folder with one folder of images per class")
    parser.add_argument("out", metavar="OUT", help="the bank's folder; use it as --saliency bank:OUT")
    parser.add_argument(
        "--saliency", default=BEST_SALIENCY, metavar="NAME", help="saliency backend (default: %(default)s)"
    )
    _add_saliency_option(parser)
    parser.add_argument(
        "--size", type=_count, default=224, metavar="N", help="the backend sees N x N pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--batch", type=_count, default=16, metavar="N", help="images to a call of the backend (default: %(default)s)"
    )
    parser.add_argument("--workers", type=_count, default=0, metavar="N", help="processes that read (default: none)")
    _add_model(parser)


def _add_distil(commands: _Commands, embedded: bool) -> None:
    parser = _add_command(
        commands, "distil", _distil, "train a small saliency network on what a better one sees in your photographs"
    )
    _add_data(parser, embedded)
    parser.add_argument("out", metavar="FILE", help="the .safetensors file to write; use it as --saliency FILE")
    who = parser.add_argument_group("who teaches it")
    who.add_argument("--teacher", metavar="NAME", help="a saliency backend")
    _add_saliency_option(who)
    who.add_argument("--masks", metavar="DIR", help="a folder of masks in its place, object light")
    how = parser.add_argument_group("how to train")
    how.add_argument("--steps", type=_count, default=600, metavar="N", help="gradient steps (default: %(default)s)")
    how.add_argument("--batch", type=_count, default=32, metavar="N", help="views in each (default: %(default)s)")
    how.add_argument(
        "--limit", type=_count, default=5000, metavar="N", help="the most photographs (default: %(default)s)"
    )
    how.add_argument("--seed", type=_seed, default=0, metavar="N", help="(default: %(default)s)")
    how.add_argument("--device", metavar="NAME", help="cpu or cuda (default: a GPU if there is one)")
    how.add_argument("--overwrite", action="store_true", help="replace FILE")
    _add_model(parser)


def _add_finetune(commands: _Commands, drawn: bool) -> None:
    parser = _add_command(
        commands, "finetune", _finetune, "fine-tune a refiner for a data set, by Textual Inversion and LoRA"
    )
    if drawn:
        parser.set_defaults(data=None)
    else:
        parser.add_argument("data", metavar="DATA", help="folder with one folder of images per class")
    parser.add_argument(
        "--dataset",
        dest="key",
        required=True,
        metavar="KEY",
        help="the refiner's key, see: sgdmix refiners; with aviary leave DATA out",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the refiner's folder")
    parser.add_argument("--base", metavar="PATH_OR_ID", help="base model: a folder in diffusers' layout or a hub id")
    parser.add_argument("--revision", metavar="COMMIT", help="commit of a hub id, 40 hexadecimal digits")
    how = parser.add_argument_group("how to train (default: the key's recipe)")
    how.add_argument("--steps", type=_count, metavar="N", help="optimiser steps")
    how.add_argument("--batch-size", type=_count, metavar="N", help="images of one step, over all processes")
    how.add_argument("--learning-rate", type=float, metavar="F", help="of the LoRA matrices")
    how.add_argument("--token-learning-rate", type=float, metavar="F", help="of the new token embeddings")
    how.add_argument("--rank", type=_count, metavar="N", help="of the LoRA matrices")
    how.add_argument("--resolution", type=_count, metavar="N", help="side in pixels")
    how.add_argument("--unbalanced", dest="balanced", action="store_false", help="draw images, not classes, evenly")
    how.add_argument("--saliency", metavar="NAME", help="weigh the loss by the maps of a backend, or of a bank")
    _add_saliency_option(how)
    how.add_argument("--saliency-weight", type=float, default=1.0, metavar="F", help="how much (default: %(default)s)")
    how.add_argument("--gradient-accumulation", type=_count, default=1, metavar="N", help="parts of a step")
    how.add_argument("--gradient-checkpointing", action="store_true", help="less memory, more time")
    how.add_argument(
        "--mixed-precision", choices=("no", "fp16", "bf16"), help="default: fp16 on a GPU, bf16 on a CPU that has it"
    )
    how.add_argument("--seed", type=_seed, default=0, metavar="N", help="(default: %(default)s)")
    run = parser.add_argument_group("the run")
    run.add_argument("--checkpoint-every", type=_count, metavar="N", help="steps between checkpoints")
    run.add_argument("--samples-every", type=_count, metavar="N", help="steps between sample grids")
    run.add_argument("--overwrite", action="store_true", help="replace the refiner in DIR, and do not resume")


def _add_drift(commands: _Commands, embedded: bool) -> None:
    parser = _add_command(commands, "drift", _drift, "measure how often a refiner changes the class, for each strength")
    _add_data(parser, embedded)
    parser.add_argument("--refiner", required=True, metavar="KEY_OR_DIR", help="which refiner: sgdmix refiners")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the report goes")
    parser.add_argument(
        "--strengths", type=float, nargs="+", default=[0.1, 0.3, 0.5, 0.7, 0.9, 1.0], metavar="S", help="to sweep over"
    )
    parser.add_argument(
        "--preserve", nargs="+", choices=("none", "soft", "strict"), default=["none", "soft", "strict"], help="modes"
    )
    parser.add_argument("--sources", type=_count, default=96, metavar="N", help="images (default: %(default)s)")
    parser.add_argument("--saliency", default=BEST_SALIENCY, metavar="NAME", help="backend (default: %(default)s)")
    _add_saliency_option(parser)
    parser.add_argument("--mask", default=BEST_MASK, metavar="NAME", help="mask preset (default: %(default)s)")
    _add_fill(parser)
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier sweep left in DIR")
    group = parser.add_argument_group("teacher, the classifier that says what it sees (default: one is trained)")
    group.add_argument("--teacher", metavar="FILE", help="its weights")
    group.add_argument("--arch", metavar="NAME", help="its name in torchvision or timm, unless the file says it")
    group.add_argument("--class-names", metavar="FILE", help="names of its outputs, one a line")
    group.add_argument("--normalize", choices=("imagenet", "none"), default="imagenet", help="(default: %(default)s)")


def _add_saliency_option(group: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--saliency-option",
        dest="saliency_options",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the saliency backend, such as session=u2net; may be given again",
    )


def _add_data(parser: argparse.ArgumentParser, embedded: bool) -> None:
    if embedded:
        parser.set_defaults(data=None)
    else:
        parser.add_argument("data", metavar="DATA", help="folder with one folder of images per class")
    parser.add_argument("--dataset", metavar="NAME", help="an embedded data set (aviary); leave DATA out")


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("classifier, for saliency that looks through one (gradcam, ...)")
    group.add_argument("--model", metavar="FILE", help="its weights: safetensors, or torch.save(model.state_dict())")
    group.add_argument("--arch", metavar="NAME", help="its name in torchvision or timm, unless the file says it")
    group.add_argument(
        "--class-names", metavar="FILE", help="names of its outputs, one a line (default: the sorted class folders)"
    )
    group.add_argument(
        "--normalize",
        choices=("imagenet", "none"),
        default="imagenet",
        help="what it expects of pixels in [0, 1] (default: %(default)s)",
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return number


def _strength(text: str) -> float:
    from sgdmix_albu.errors import InvalidInputError

    try:
        return float(text)
    except ValueError:
        raise InvalidInputError(f"--strengths takes numbers in (0, 1], or adaptive alone, got {text!r}") from None


def _seed(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**63:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 2**63 - 1, got {text}")
    return number
