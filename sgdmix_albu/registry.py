"""One lazy registry, a name to ``"module:Object"``; and the one place that imports optional packages."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable
from types import ModuleType
from typing import Any, NamedTuple

from sgdmix_albu.arguments import said
from sgdmix_albu.errors import InvalidInputError, MissingExtraError, UnknownNameError


def import_optional(module: str, *, extra: str | None = None) -> ModuleType:
    """Import ``module``, or say which command installs it.

    Args:
        module: Dotted module name.
        extra: The extra of ``sgdmix-albu`` that brings the package; None when it is an ordinary package.

    Raises:
        MissingExtraError: The package that holds ``module`` is not installed. An import error inside an
            installed package is not this package's business and passes through.

    Example:
        >>> import_optional("json").loads("[1]")
        [1]
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingExtraError(_missing(module, extra)) from error


def check_installed(*packages: str, extra: str) -> None:
    """Refuse, before any work and without importing them, packages that are not there.

    Raises:
        MissingExtraError: As of :func:`import_optional`.

    Example:
        >>> check_installed("torch", "ryy", extra="ray")
        Traceback (most recent call last):
        ...
        sgdmix_albu.errors.MissingExtraError: ryy is needed and is not installed; run: pip install 'sgdmix-albu[ray]' \
(from a checkout: pip install '.[ray]')
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(_missing(package, extra))


def _missing(module: str, extra: str | None) -> str:
    command = install_command(extra) if extra else f"pip install {module.partition('.')[0]}"
    return f"{module} is needed and is not installed; run: {command}"


def install_command(extra: str) -> str:
    """How to install an extra, for the end of a message: of the published package, or of a checkout.

    Example:
        >>> install_command("ray")
        "pip install 'sgdmix-albu[ray]' (from a checkout: pip install '.[ray]')"
    """
    return f"pip install 'sgdmix-albu[{extra}]' (from a checkout: pip install '.[{extra}]')"


def nearest_names(name: str, known: Iterable[str]) -> str:
    """Say what ``name`` may have meant: ``"; did you mean 'a' or 'b'?"`` or an empty string.

    Names are near where most of their letters agree, or one begins or ends with the other. What is much less near than
    the nearest is not named.

    Example:
        >>> nearest_names("gradcan", ["gradcam", "occlusion", "gradcam"]), nearest_names("nope", ["pets"])
        ("; did you mean 'gradcam'?", '')
    """

    def nearness(other: str) -> float:
        part = len(plain) >= 3 and (other.startswith(plain) or other.endswith(plain))
        return 0.9 if part else difflib.SequenceMatcher(None, other, plain).ratio()

    plain = name.lower().lstrip("-")
    near = {other: nearness(other.lower().lstrip("-")) for other in sorted(set(known))}
    least = max(0.65, max(near.values(), default=0) - 0.1)
    close = sorted((other for other in near if near[other] >= least), key=near.__getitem__, reverse=True)[:3]
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


class _Row(NamedTuple):
    target: Any
    extra: str | None


class Registry:
    """Names to objects, each imported on first use.

    Args:
        kind: What the rows are, in words, for messages: ``"saliency backend"``.
        group: Entry-point group through which other packages add rows, read once, on first use.
            A row registered here wins over an entry point of the same name.

    Example:
        >>> registry = Registry("codec")
        >>> registry.register("json", "json:loads")
        >>> registry.names(), registry.load("json")("[1]")
        (['json'], [1])
    """

    def __init__(self, kind: str, group: str | None = None) -> None:
        self.kind = kind
        self._group = group
        self._rows: dict[str, _Row] = {}
        self._entry_points_read = False

    def register(self, name: str, target: Any, *, extra: str | None = None) -> None:
        """Add a row.

        Args:
            name: The name that users type.
            target: ``"module:Object"``, imported on first use, or the object itself.
            extra: The pip extra that ``module`` needs, named in the error when it is missing.

        Raises:
            InvalidInputError: The name is taken or empty, or a string target is not ``"module:Object"``.
        """
        if not isinstance(name, str) or not name:
            raise InvalidInputError(f"a {self.kind} needs a name (a non-empty string), got {said(name)}")
        if name in self._rows:
            raise InvalidInputError(f"a {self.kind} named {name!r} is registered already")
        if isinstance(target, str) and not all(target.partition(":")):
            raise InvalidInputError(f"expected 'module:Object' for the {self.kind} {name!r}, got {target!r}")
        self._rows[name] = _Row(target, extra)

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._read_entry_points()
        return sorted(self._rows)

    def load(self, name: str) -> Any:
        """Import and return what ``name`` stands for.

        Raises:
            UnknownNameError: No such name; the nearest ones are suggested.
            MissingExtraError: The row's package is not installed.
        """
        if name not in self._rows and name not in (known := self.names()):
            raise UnknownNameError(
                f"unknown {self.kind} {name!r}{nearest_names(str(name), known) or '.'} Known: {', '.join(known)}"
            )
        row = self._rows[name]
        if not isinstance(row.target, str):
            return row.target
        module, _, attribute = row.target.partition(":")
        return getattr(import_optional(module, extra=row.extra), attribute)

    def _read_entry_points(self) -> None:
        if self._group is None or self._entry_points_read:
            return
        self._entry_points_read = True
        for entry in importlib.metadata.entry_points(group=self._group):
            self._rows.setdefault(entry.name, _Row(entry.value, None))
