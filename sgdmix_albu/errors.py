"""The exceptions that sgdmix-albu raises on purpose.

Each one also derives from the built-in exception that a caller would expect, so
``except ValueError`` keeps working for people who do not know this package.
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

    Its text is one line, and safe to print whatever the files are called that it names.
    """

    def __str__(self) -> str:
        return printable(" ".join(super().__str__().splitlines()))


class InvalidInputError(SGDMixError, ValueError):
    """An argument has the wrong type, shape or range; the message says what was expected and what came."""


class InvalidTypeError(SGDMixError, TypeError):
    """A value of the wrong kind altogether, such as a sample in which there is no image."""


class UnknownNameError(SGDMixError, LookupError):
    """A name is not registered; the message lists what is and suggests the nearest."""


class MissingExtraError(SGDMixError, ImportError):
    """An optional package is absent; the message is the install command."""


class DataError(SGDMixError, ValueError):
    """A file or folder cannot be used; the message names it and says why."""
