"""How commands and recipes read their words: folders and options in any order, and errors of one line that help."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from sgdmix_albu.arguments import said
from sgdmix_albu.registry import nearest_names

MOST = 2**63 - 1  # what torch and numpy count with

# What other tools, and earlier drafts of these commands, call the same things.
_OTHER_WORDS = {
    "--out": "the output folder is given without an option: {usage}",
    "--output": "the output folder is given without an option: {usage}",
    "--data": "the data folder is given without an option: {usage}",
    "--jobs": "use --workers",
}


class HelpFormatter(argparse.HelpFormatter):
    """Adds defaults where the text does not speak of one; the usage names what is needed only."""

    def add_usage(self, usage: str | None, actions: Any, groups: Any, prefix: str | None = None) -> None:
        """The usage without the forty options, which are listed below it."""
        if usage is None:
            options = [one for one in actions if one.option_strings]
            folders = [one for one in actions if not one.option_strings]
            words = [f"[{one.metavar}]" if one.nargs == "?" else str(one.metavar) for one in folders]
            words += [f"{one.option_strings[-1]} {one.metavar}" for one in options if one.required]
            usage = " ".join(["%(prog)s", *words, *(["[options]"] if options else [])])
        super().add_usage(usage, actions, groups, prefix)

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        shown = type(default) in (str, int, float) and default != argparse.SUPPRESS
        return f"{text} (default: %(default)s)" if shown and "default:" not in text else text


class Parser(argparse.ArgumentParser):
    """Takes options between folders too, and says what must be given together.

    Attributes:
        checks: Each is given what was parsed, and says what is wrong with it, or None.
    """

    def __init__(self, **described: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "formatter_class": HelpFormatter, **described})
        self.checks: list[Callable[[argparse.Namespace], str | None]] = []
        self._inside = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, with the positional arguments collected first: an optional one takes no other's word."""
        if self._inside or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        args = sys.argv[1:] if args is None else list(args)
        # argparse collects no words after "--", which stand for themselves: then folders stand together.
        parse = super().parse_known_args if "--" in args else self.parse_known_intermixed_args
        self._inside = True  # argparse comes back here twice
        try:
            found, rest = parse(args, namespace)
        finally:
            self._inside = False
        if rest:
            self.error(self._unknown(rest))
        for check in self.checks:
            if wrong := check(found):
                self.error(wrong)
        return found, rest

    @property
    def several(self) -> list[argparse.Action]:
        """Options that take all the words up to the next option, and so may swallow a folder."""
        return [action for action in self._get_optional_actions() if action.nargs == "+"]

    def in_its_words(self, message: str) -> str:
        """An error of the library with the command's options in the place of arguments: ``--fill source``."""
        name, _, rest = message.partition(" ")
        flags = {one.dest: one.option_strings[-1] for one in self._get_optional_actions()}
        if name in flags and rest.startswith(("must", "expected", "needs")):
            message = f"{flags[name]} {rest}".replace(", or None", "")

        def as_option(found: re.Match[str]) -> str:
            name, value = found.groups()
            return f"{flags[name]} {value.strip(chr(39))}" if name in flags else found[0]

        # Not what is said of Python alone, SGDMix(saliency='given'), nor the value of another option.
        message = re.sub(r"(?<![(\w.-])(?<!-option )(\w+)=('[^']*'|\w[\w.]*)", as_option, message)
        return re.sub(r"(--\S+ \S+) \(\1\)", r"\1", message)  # where the message named both

    def error(self, message: str) -> NoReturn:
        """Leave with one line: what is wrong, and where the options are listed. The usage would bury it."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (options: {self.prog} --help)\n")

    def _unknown(self, words: list[str]) -> str:
        """What is wrong with words that nobody takes, and what may have been meant by the first option."""
        flag = next((word.partition("=")[0] for word in words if word.startswith("-")), None)
        hint = ""
        if flag in _OTHER_WORDS:
            positional = " ".join(
                str(action.metavar or action.dest).upper() for action in self._get_positional_actions()
            )
            hint = "; " + _OTHER_WORDS[flag].format(usage=f"{self.prog} {positional}")
        elif flag is not None:
            known = [name for action in self._get_optional_actions() for name in action.option_strings]
            hint = nearest_names(flag, known)
        return f"unrecognized arguments: {' '.join(words)}{hint}"

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """One of several words; argparse's message differs between versions of Python, and suggests nothing."""
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            expected = f"expected one of {', '.join(known)}, got {said(value)}{nearest_names(str(value), known)}"
            raise argparse.ArgumentError(action, expected)


def whole(least: int, most: int = MOST) -> Callable[[str], int]:
    """The type of an argument that is a whole number, from ``least`` to ``most``.

    Example:
        >>> whole(1)("fifty")
        Traceback (most recent call last):
        ...
        argparse.ArgumentTypeError: expected a whole number, 1 or more, got 'fifty'
    """
    bounds = f"{least} or more" if most == MOST else f"{least} to {most}"

    def number(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,19}", text, re.ASCII) or not least <= int(text) <= min(most, MOST):
            raise argparse.ArgumentTypeError(f"expected a whole number, {bounds}, got {said(text)}")
        return int(text)

    return number


def real(low: float = -math.inf, high: float = math.inf, *, open_low: bool = False) -> Callable[[str], float]:
    """The type of an argument that is a finite number from ``low`` to ``high``; ``open_low``: above ``low``.

    Example:
        >>> real(0, 1)("half")
        Traceback (most recent call last):
        ...
        argparse.ArgumentTypeError: expected a number from 0 to 1, got 'half'
    """
    if math.isfinite(high):
        expected = f"a number {'above' if open_low else 'from'} {low:g} {'and at most' if open_low else 'to'} {high:g}"
    elif math.isfinite(low):
        expected = "a positive number" if open_low and not low else f"a number, {low:g} or more"
    else:
        expected = "a number"

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or not low <= value <= high or (open_low and value == low):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {said(text)}")
        return value

    return number


count = whole(1)
seed = whole(0)
