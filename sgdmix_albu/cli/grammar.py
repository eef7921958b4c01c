"""The words that commands share: DATA and OUT, settings as options, what is printed."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from sgdmix_albu.cli.said import Said
from sgdmix_albu.parsing import Parser, count, real, seed
from sgdmix_albu.settings import ClassifierSettings

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # it has no public name

# Where the command calls a setting otherwise, and what stands for a value.
_FLAGS = {
    "agreement_with": "--agreement",
    "image_format": "--format",
    "loras": "--lora",
    "options": "--saliency-option",
}
_METAVARS = {"base": "PATH_OR_ID", "class_names": "FILE", "loras": "FILE", "model": "FILE", "strengths": "S"}


def command(commands: Commands, name: str, run: Callable[..., Said], text: str) -> Parser:
    """A new command.

    Args:
        commands: Where it goes.
        name: What users type.
        run: Is given what was parsed.
        text: What it does, without a full stop.
    """
    added = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    added.set_defaults(command=run, in_its_words=added.in_its_words)
    added.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    added.add_argument("--quiet", action="store_true", help="print only errors (with --json, also the object)")
    return added


def add_data(parser: Parser, out: str | None = None, metavar: str = "OUT") -> None:
    """DATA, or ``--dataset NAME`` in its place; and OUT after it where the command has one.

    Args:
        parser: Of the command.
        out: Help of OUT.
        metavar: What OUT is called.
    """
    parser.add_argument("data", metavar="DATA", nargs="?", help="folder with one folder of images per class")
    if out is not None:
        parser.add_argument("out", metavar=metavar, help=out)
    parser.add_argument("--dataset", metavar="NAME", help="an embedded data set (aviary); leave DATA out")

    def one_of_both(found: argparse.Namespace) -> str | None:
        if found.data is not None and found.dataset is not None:
            return f"expected DATA or --dataset NAME, got both: {found.data} and {found.dataset}"
        if found.data is None and found.dataset is None:
            greedy = [one for one in parser.several if getattr(found, one.dest) != one.default]
            hint = f"; put folders before {greedy[0].option_strings[0]}, which takes several words" if greedy else ""
            came = "" if out is None else f", and {metavar}; got only {found.out}"
            return f"expected DATA or --dataset NAME{came}{hint}"
        return None

    parser.checks.append(one_of_both)


def add_settings(
    group: argparse._ActionsContainer, settings: type, *, only: str = "", without: str = "", prefix: str = ""
) -> None:
    """An option for each field of a settings class; its help is the text of the class.

    Args:
        group: Where they go.
        settings: The class; see :mod:`sgdmix_albu.settings`.
        only: The fields that the command offers, parted by spaces; all, where none is named.
        without: Fields that it does not offer.
        prefix: Before each name.
    """
    hints, texts = get_type_hints(settings), _texts(settings)
    known = {field.name: field for field in fields(settings)}
    for name in only.split() or [name for name in texts if name in known and name not in without.split()]:
        flag = _FLAGS.get(name, f"--{prefix}{name}".replace("_", "-"))
        how = {"default": known[name].default, "help": texts[name], **_kind(name, hints[name])}
        group.add_argument(flag, dest=f"{prefix}{name}", **how)


def add_seed(group: argparse._ActionsContainer, text: str) -> None:
    """``--seed``, and what it decides."""
    group.add_argument("--seed", type=seed, default=0, metavar="N", help=text)


def add_classifier(parser: Parser) -> None:
    """The classifier of saliency that looks through one."""
    group = parser.add_argument_group("classifier, for saliency that uses one (gradcam, ...)")
    add_settings(group, ClassifierSettings)


def options_of(texts: list[str]) -> dict[str, Any] | None:
    """What several ``--saliency-option NAME=VALUE`` mean."""
    from sgdmix_albu.saliency.options import parse_options

    return parse_options(texts) or None


def made(settings: type, arguments: dict[str, Any], *, prefix: str = "", **given: Any) -> Any:
    """The settings that were parsed, taken out of the arguments.

    Args:
        settings: The class.
        arguments: What was parsed; what belongs to the settings is removed.
        prefix: Before each name.
        **given: Fields that are known otherwise.
    """
    own = [field.name for field in fields(settings) if f"{prefix}{field.name}" in arguments]
    return settings(**{name: arguments.pop(f"{prefix}{name}") for name in own} | given)


def _texts(settings: type) -> dict[str, str]:
    """What a settings class, and those that it is made from, say of each field, as a command's help says it."""
    found: dict[str, str] = {}
    for kind in reversed(settings.__mro__):
        _, _, section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section.partition("\n\n")[0], re.MULTILINE):
            plain = re.sub(r":\w+:`~?([\w.]+)`", r"\1", " ".join(text.split())).replace("``", "")
            small = plain if plain[1:2].isupper() else plain[:1].lower() + plain[1:]
            found[name] = small.removesuffix(".").replace("%", "%%")
    return found


def _kind(name: str, hint: Any) -> dict[str, Any]:
    """How argparse reads a value of a type: of several that it may be, the first."""
    if get_origin(hint) in (Union, UnionType):
        hint = get_args(hint)[0]
    if hint is bool:
        return {"action": "store_true"}
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    if get_origin(hint) is Mapping:
        return {"action": "append", "default": [], "metavar": "NAME=VALUE"}
    found: dict[str, Any] = {"metavar": _METAVARS.get(name, "NAME")}
    if get_origin(hint) is tuple:
        found["nargs"] = "+"
    elif hint is int:
        found |= {"metavar": "N", "type": seed if name == "seed" else count}
    elif hint is float:
        found |= {"metavar": "F", "type": real()}
    return found
