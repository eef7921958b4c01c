"""The one place that imports optional packages."""

from __future__ import annotations

import importlib
from types import ModuleType

from sgdmix_albu.errors import MissingExtraError

__all__ = ["import_optional"]


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
        target = f"'sgdmix-albu[{extra}]'" if extra else package
        raise MissingExtraError(f"{module} is needed and is not installed; run: pip install {target}") from error
