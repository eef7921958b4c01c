"""The words of the commands: settings as options, and folders before, between or after them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["Parser", "add_data", "add_settings", "count", "made", "seed"]


class Parser(argparse.ArgumentParser):
    """Takes options between folders too, and says what must be given together.

    Attributes:
        checks: Each is given what was parsed, and says what is wrong with it, or None.
    """

    def __init__(self, **described: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **described})
        self.checks: list[Callable[[argparse.Namespace], str | None]] = []
        self._inside = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, with the positional arguments collected first: an optional one takes no other's word."""
        if self._inside or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._inside = True  # argparse comes back here twice
        try:
            found, rest = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._inside = False
        for check in self.checks if not rest else ():
            if wrong := check(found):
                self.error(wrong)
        return found, rest


def add_data(parser: Parser, out: str | None = None) -> None:
    """DATA, or ``--dataset NAME`` in its place; and OUT after it where the command has one.

    Args:
        parser: Of the command.
        out: Help of OUT.
    """
    parser.add_argument("data", metavar="DATA", nargs="?", help="folder with one folder of images per class")
    if out is not None:
        parser.add_argument("out", metavar="OUT", help=out)
    parser.add_argument("--dataset", metavar="NAME", help="an embedded data set (aviary); leave DATA out")

    def one_of_both(found: argparse.Namespace) -> str | None:
        if found.data is not None and found.dataset is not None:
            return f"expected DATA or --dataset NAME, got both: {found.data} and {found.dataset}"
        if found.data is None and found.dataset is None:
            return "expected DATA or --dataset NAME" + ("" if out is None else f", and OUT; got only {found.out}")
        return None

    parser.checks.append(one_of_both)


def add_settings(
    group: argparse._ActionsContainer, settings: type, *, prefix: str = "", without: Collection[str] = ()
) -> None:
    """An option for each field of a settings class that has a help text.

    Args:
        group: Where they go.
        settings: The class; see :mod:`sgdmix_albu.settings`.
        prefix: Before each name.
        without: Fields that the command does not offer.
    """
    hints = get_type_hints(settings)
    for field in fields(settings):
        text = field.metadata.get("help")
        if text is None or field.name in without:
            continue
        flag = field.metadata.get("flag") or f"--{prefix}{field.name}".replace("_", "-")
        plain = field.default in (None, MISSING, ()) or isinstance(field.default, bool) or "(default" in text
        how: dict[str, Any] = {"default": field.default, **_kind(hints[field.name], field.metadata)}
        text = text if plain else f"{text} (default: %(default)s)"
        group.add_argument(flag, dest=f"{prefix}{field.name}", help=text, **how)


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


def count(text: str) -> int:
    """A number of things."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return number


def seed(text: str) -> int:
    """A seed of the plan's generator."""
    number = int(text)
    if not 0 <= number < 2**63:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 2**63 - 1, got {text}")
    return number


def _kind(hint: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """How argparse reads a value of a type: of several that it may be, the first."""
    if get_origin(hint) in (Union, UnionType):
        hint = get_args(hint)[0]
    if hint is bool:
        return {"action": "store_true"}
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    found: dict[str, Any] = {"metavar": metadata.get("metavar")}
    if get_origin(hint) is tuple:
        found["nargs"] = "+"
    elif get_origin(hint) is Mapping:
        found |= {"action": "append", "default": []}
    elif hint is int:
        found["type"] = seed if metadata.get("least") == 0 else count
    elif hint is float:
        found["type"] = float
    return found
