"""The exceptions that sgdmix-albu raises on purpose.

Each one also derives from the built-in exception that a caller would expect, so
``except ValueError`` works for people who do not know this package.
"""

from __future__ import annotations

from sgdmix_albu.printable import printable

__all__ = [
    "DataError",
    "InvalidInputError",
    "InvalidTypeError",
    "MissingExtraError",
    "SGDMixError",
    "UnknownNameError",
]


class SGDMixError(Exception):
    """Base of every error that this package raises on purpose.

    Its text is one line, and safe to print whatever file names it contains.
    """

    def __str__(self) -> str:
        return printable(" ".join(super().__str__().splitlines()))


class InvalidInputError(SGDMixError, ValueError):
    """An argument has the wrong type, shape or range; the message says what was expected and what it got."""


class InvalidTypeError(SGDMixError, TypeError):
    """A value of a completely wrong kind, such as a sample without an image."""


class UnknownNameError(SGDMixError, LookupError):
    """A name is not registered; the message lists the known names and suggests the nearest."""


class MissingExtraError(SGDMixError, ImportError):
    """An optional package is missing; the message is the install command."""


class DataError(SGDMixError, ValueError):
    """A file or folder cannot be used; the message names it and says why."""
