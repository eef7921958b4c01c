"""How text of others (names of files and classes, what a file says) is shown: in messages, summaries and reports."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice

_SHOWN = 20  # images left out that a summary names


def printable(text: str) -> str:
    r"""The same text without anything that a terminal or a page would act on instead of showing it.

    Control characters (a terminal's escape sequences begin with one), marks that turn the direction of the text, line
    breaks, invisible characters and what is not valid UTF-8 are written as Python writes them in a string.

    Example:
        >>> print(printable("owl\x1b[2J.png"), printable("chouette hulotte, 鴞"))
        owl\x1b[2J.png chouette hulotte, 鴞
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def skipped_lines(skipped: Collection[tuple[str, str]], where: str | None = None) -> Iterator[str]:
    """What a summary says of images that were left out, key and reason: the first, and the file that names the rest.

    Example:
        >>> list(skipped_lines([("owl/1.jpg", "it is empty")]))
        ['skipped  owl/1.jpg: it is empty']
    """
    for key, reason in islice(skipped, _SHOWN):
        yield printable(f"skipped  {key}: {reason}")
    if len(skipped) > _SHOWN:
        yield f"skipped  {len(skipped) - _SHOWN} more{f', see {where}' if where else ''}"


def skipped_rows(skipped: Collection[tuple[str, str]]) -> list[dict[str, str]]:
    """The same as JSON has it, all of them.

    Example:
        >>> skipped_rows([("owl/1.jpg", "it is empty")])
        [{'key': 'owl/1.jpg', 'reason': 'it is empty'}]
    """
    return [{"key": key, "reason": reason} for key, reason in skipped]


def duration(seconds: float) -> str:
    """A time as people say it.

    Example:
        >>> duration(42), duration(600), duration(100_000)
        ('42.0 s', '10.0 min', '27.8 h')
    """
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
