"""Records from files that anyone may have written: JSON, checked as a whole before any of it is used.

A kind says what a value must be. It takes the value that was found and returns the value to use, or raises
:class:`UnsoundError` with the reason. Kinds are made of kinds, so that a file's schema reads like the file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn, TypeAlias

from sgdmix_albu.io.files import stays_below
from sgdmix_albu.printable import printable

Kind: TypeAlias = Callable[[Any], Any]

_DEEPEST = 32  # lists in lists and objects in objects; none of our files has more than four
_LARGEST = 2**63 - 1
_LONGEST = 2**28  # bytes of a file
_JSON = json.JSONEncoder(allow_nan=False)  # made once: there may be ten million lines
_MOST_VALUES = 5_000_000  # in a file: each takes some sixty bytes of memory, and three bytes of the file


class UnsoundError(ValueError):
    """A record is not what it should be; says where and why."""


def parse(content: bytes | str, kind: Kind) -> Any:
    """A JSON text as a value of a kind.

    Raises:
        UnsoundError: It is not JSON, or not of the kind.

    Example:
        >>> parse(b'{"images": 3}', record({"images": whole(1)}))
        {'images': 3}
        >>> parse(b'{"images": NaN}', record({"images": number(0, 9)}))
        Traceback (most recent call last):
        ...
        sgdmix_albu.io.records.UnsoundError: not JSON: NaN is no number
    """
    _check_room(content)
    try:
        value = json.loads(content, parse_constant=_no_number)
    except UnsoundError:
        raise
    except (ValueError, RecursionError) as error:
        raise UnsoundError(f"not JSON: {printable(str(error)) or type(error).__name__}") from error
    return kind(value)


def line(value: Mapping[str, Any]) -> bytes:
    """A record as a line of a file of them."""
    return _JSON.encode(value).encode() + b"\n"


def record(fields: Mapping[str, Kind], *, may: Mapping[str, Kind] | None = None, others: bool = False) -> Kind:
    """An object with certain fields.

    Args:
        fields: Those that must be there.
        may: Those that may be there.
        others: Whether it may have further fields, which are kept as they are; else they are refused.
    """
    known = {**fields, **(may or {})}

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            _refuse("an object", value)
        missing = [name for name in fields if name not in value]
        if missing:
            raise UnsoundError(f"{missing[0]!r} is missing")
        strange = [name for name in value if name not in known]
        if strange and not others:
            raise UnsoundError(f"{_shown(strange[0])} is no field of it")
        for name in strange:
            _plain(value[name])
        return {name: _field(known[name], name, found) if name in known else found for name, found in value.items()}

    return check


def mapping(kind: Kind, *, most: int = 100_000) -> Kind:
    """An object whose values are all of one kind."""

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            _refuse("an object", value)
        _few(value, most)
        return {name: _field(kind, name, found) for name, found in value.items()}

    return check


def items(kind: Kind, *, least: int = 0, most: int = 10_000_000) -> Kind:
    """A list whose items are all of one kind."""

    def check(value: Any) -> list[Any]:
        if not isinstance(value, list):
            _refuse("a list", value)
        _few(value, most)
        if len(value) < least:
            raise UnsoundError(f"expected at least {least} items, got {len(value)}")
        return [_field(kind, place, found) for place, found in enumerate(value)]

    return check


def pair(first: Kind, second: Kind) -> Kind:
    """A list of two values, each of its own kind."""

    def check(value: Any) -> tuple[Any, Any]:
        if not isinstance(value, list) or len(value) != 2:
            _refuse("a list of two", value)
        return _field(first, 0, value[0]), _field(second, 1, value[1])

    return check


def optional(kind: Kind) -> Kind:
    """A value of a kind, or null."""
    return lambda value: None if value is None else kind(value)


def text(longest: int = 10_000) -> Kind:
    """A string of so many characters at most."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            _refuse("a string", value)
        if len(value) > longest:
            raise UnsoundError(f"expected at most {longest} characters, got {len(value)}")
        return value

    return check


def name_below(value: Any) -> str:
    """The name of a file that lies below the folder it is relative to."""
    name: str = text(4096)(value)
    try:
        name.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can say and no file is called
        _refuse("a name in UTF-8", name)
    if not stays_below(name):
        raise UnsoundError(f"a name leads out of its folder: {_shown(name)}")
    return name


def sha256(value: Any) -> str:
    """A SHA-256 in hexadecimal."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        _refuse("a SHA-256", value)
    return value


def whole(low: int = 0, high: int = _LARGEST) -> Kind:
    """A whole number in a range, both ends in it."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            _refuse(f"a whole number from {low} to {high}", value)
        return value

    return check


def number(low: float, high: float, *, above: bool = False) -> Kind:
    """A finite number in a range, both ends in it, the lower not where it must lie ``above``."""

    def check(value: Any) -> float:
        right = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        if not right or (above and value == low):
            _refuse(f"a number {'above' if above else 'from'} {low:g} {'and up ' if above else ''}to {high:g}", value)
        return value  # type: ignore[no-any-return]

    return check


def flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        _refuse("true or false", value)
    return value


def one_of(*values: Any) -> Kind:
    """One of a few values."""

    def check(value: Any) -> Any:
        if not any(value is known or (type(value) is type(known) and value == known) for known in values):
            _refuse(f"one of {', '.join(map(repr, values))}", value)
        return value

    return check


def anything(value: Any) -> Any:
    """Whatever JSON can say, if it is not nested beyond reason and its numbers are finite."""
    _plain(value)
    return value


def _plain(value: Any, depth: int = 0) -> None:
    if depth > _DEEPEST:
        raise UnsoundError(f"nested more than {_DEEPEST} deep")
    if isinstance(value, float) and not math.isfinite(value):
        _refuse("a finite number", value)
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _plain(part, depth + 1)


def _field(kind: Kind, name: str | int, value: Any) -> Any:
    try:
        return kind(value)
    except UnsoundError as error:
        raise UnsoundError(f"{_shown(name)}: {error}") from None


def _check_room(content: bytes | str) -> None:
    """That what comes of it fits into memory, by the signs that stand between its values."""
    if len(content) > _LONGEST:
        raise UnsoundError(f"{len(content)} bytes, the limit is {_LONGEST}")
    signs = (",", "[", "{") if isinstance(content, str) else (b",", b"[", b"{")
    if len(content) > _MOST_VALUES and sum(map(content.count, signs)) > _MOST_VALUES:  # type: ignore[arg-type]
        raise UnsoundError(f"more than {_MOST_VALUES} values")


def _few(value: Collection[Any], most: int) -> None:
    if len(value) > most:
        raise UnsoundError(f"expected at most {most} items, got {len(value)}")


def _refuse(expected: str, value: Any) -> NoReturn:
    raise UnsoundError(f"expected {expected}, got {_shown(value)}")


def _no_number(name: str) -> NoReturn:
    raise UnsoundError(f"not JSON: {name} is no number")


def _shown(value: Any) -> str:
    """A value as Python writes it, cut short: a hostile one may be a gigabyte, or a number of 4,000 digits."""
    if isinstance(value, str):
        value = value[:60] + "..." if len(value) > 60 else value
    elif isinstance(value, int) and abs(value) > _LARGEST:
        return f"a number of {len(hex(abs(value))) - 2} hexadecimal digits"
    elif isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return printable(repr(value))
