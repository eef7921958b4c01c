"""One check for each kind of argument: what was expected and what it got, in the same words wherever it is given."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from sgdmix_albu.errors import InvalidInputError

_LONGEST = 200  # signs of a value in a message
_MOST = 2**63 - 1  # what torch and numpy count with
MOST_SIDE = 8192  # pixels: one image of this side is 200 MB, and a run holds many


def accepts(function: Callable[..., Any], name: str, *, passed_on: bool = True) -> bool:
    """Whether a function can be given an argument by this name; ``passed_on``: also as one of its ``**more``.

    Example:
        >>> accepts(lambda x: x, "x"), accepts(lambda x: x, "y"), accepts(lambda **more: more, "y")
        (True, False, True)
    """
    parameters = inspect.signature(function).parameters
    return name in parameters or (passed_on and any(one.kind is one.VAR_KEYWORD for one in parameters.values()))


def said(value: Any) -> str:
    """A value as messages show it: itself where it is short, dtype and shape of a tensor or an array.

    Example:
        >>> import torch
        >>> said("otsu"), said(torch.zeros(2, 3)), said([])
        ("'otsu'", 'torch.float32 (2, 3)', '[]')
    """
    try:
        shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
        text = f"{dtype} {tuple(shape)}" if isinstance(shape, tuple) and shape and dtype is not None else repr(value)
    except Exception:  # a stranger's __repr__ may raise anything, and Python's own refuses numbers of 5000 digits
        return type(value).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def check_number(name: str, value: Any, expected: str, *, low: float, high: float, open_low: bool = False) -> None:
    """Refuse what is no finite real number in a range: also True and False, and tensors of one number.

    Args:
        name: The argument, for the message.
        value: What came.
        expected: What it must be, in words: "must be a probability in [0, 1]".
        low: The least that it may be.
        high: The most.
        open_low: Whether ``low`` itself is refused.

    Raises:
        InvalidInputError: The argument, what it must be, and what came.

    Example:
        >>> check_number("p", 2, "must be a probability in [0, 1]", low=0, high=1)
        Traceback (most recent call last):
        ...
        sgdmix_albu.errors.InvalidInputError: p must be a probability in [0, 1], got 2
    """
    number = finite(value)
    if number is None or not low <= number <= high or (open_low and number == low):
        raise InvalidInputError(f"{name} {expected}, got {said(value)}")


def finite(value: Any) -> float | None:
    """A real number as Python's own; None where it is none, or is not finite. True and False are none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def check_count(name: str, value: Any, expected: str, *, least: int = 1, most: int = _MOST) -> None:
    """Refuse what is no whole number from ``least`` to ``most``; True and False are none.

    Raises:
        InvalidInputError: The argument, what it must be, and what came.

    Example:
        >>> check_count("memory", -1, "must be a number of images, 0 or more", least=0)
        Traceback (most recent call last):
        ...
        sgdmix_albu.errors.InvalidInputError: memory must be a number of images, 0 or more, got -1
    """
    whole = not isinstance(value, bool) and isinstance(value, Integral)
    if not whole or not least <= int(value) <= most:
        limit = f" ({most} at the most)" if whole and int(value) > most and str(most) not in expected else ""
        raise InvalidInputError(f"{name} {expected}{limit}, got {said(value)}")


def check_counts(**counts: int | None) -> None:
    """Refuse numbers below 1; None stands for a default."""
    for name, count in counts.items():
        if count is not None:
            check_count(name, count, "must be 1 or more")


def check_side(**sides: int | None) -> None:
    """Refuse what is no side of an image in pixels, and sides that no memory holds; None stands for a default."""
    for name, side in sides.items():
        if side is not None:
            expected = f"must be a side in pixels, 1 to {MOST_SIDE}"
            check_count(name, side, expected, most=MOST_SIDE)


def check_seed(seed: int) -> None:
    """Refuse what a generator of random numbers cannot count with."""
    check_count("seed", seed, "must be a number from 0 to 2**63 - 1", least=0)


def check_switch(**switches: Any) -> None:
    """Refuse what is neither True nor False."""
    for name, switch in switches.items():
        if not isinstance(switch, bool):
            raise InvalidInputError(f"{name} must be True or False, got {said(switch)}")


def check_functions(**functions: Any) -> None:
    """Refuse what cannot be called; None is no function."""
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise InvalidInputError(f"{name} must be a function or None, got {said(function)}")


def check_sequence(value: Any, expected: str) -> None:
    """Refuse what is no list or tuple, or the like: strings and bytes are none.

    Raises:
        InvalidInputError: What was expected and what came.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray | memoryview):
        raise InvalidInputError(f"expected {expected}, got {said(value)}")


def check_names(name: str, value: Any) -> None:
    """Refuse what is no sequence of strings.

    Raises:
        InvalidInputError: What was expected and what came.
    """
    check_sequence(value, f"{name} as a sequence of strings")
    for one in value:
        if not isinstance(one, str):
            raise InvalidInputError(f"expected {name} as a sequence of strings, got {said(one)} among them")


def check_text(**texts: Any) -> None:
    """Refuse what is no string, or an empty one."""
    for name, text in texts.items():
        if not isinstance(text, str) or not text:
            raise InvalidInputError(f"{name} must be a string that is not empty, got {said(text)}")


def check_choice(name: str, value: Any, known: Collection[str]) -> None:
    """Refuse what is not among the names ``known``.

    Example:
        >>> check_choice("mode", "sauce", ["source", "class"])
        Traceback (most recent call last):
        ...
        sgdmix_albu.errors.InvalidInputError: mode must be one of source, class, got 'sauce'
    """
    if not isinstance(value, str) or value not in known:
        raise InvalidInputError(f"{name} must be one of {', '.join(known)}, got {said(value)}")


def check_plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that can be written down and sent to other processes: text, numbers, True and False.

    Raises:
        InvalidInputError: No mapping of names to such.
    """
    if not isinstance(options, Mapping):
        raise InvalidInputError(f"expected the options of a saliency backend as a mapping, got {said(options)}")
    for name, value in options.items():
        if not isinstance(name, str) or not isinstance(value, str | int | float):
            raise InvalidInputError(
                f"expected text, a number, True or False as option {name!r} of a saliency backend that is given by "
                f"name, got {said(value)}"
            )
    return dict(options)
