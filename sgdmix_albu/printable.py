"""How text of others (names of files and classes, what a file says) is shown: in messages, summaries and reports."""

from __future__ import annotations

__all__ = ["printable"]


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
