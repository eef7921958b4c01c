"""One clear error for options that a backend does not have, or lacks."""

from __future__ import annotations

from collections.abc import Collection

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.registry import nearest_names

__all__ = ["check_options"]


def check_options(name: str, known: list[str], needed: Collection[str], given: Collection[str]) -> None:
    """Raise unless every option given is known and every option needed is given.

    Args:
        name: The backend, for the message.
        known: All its options, in the order in which a user should read them.
        needed: Those without a default.
        given: Those that the user passed.

    Raises:
        InvalidInputError: The message names the option and lists what the backend takes.

    Example:
        >>> check_options("'gradcam'", ["model", "layer"], ["model"], ["layers"])
        Traceback (most recent call last):
        ...
        sgdmix_albu.errors.InvalidInputError: 'gradcam' has no option 'layers'; did you mean 'layer'? Its options: \
model, layer
    """
    listed = f"Its options: {', '.join(known)}"
    for option in given:
        if option not in known:
            raise InvalidInputError(f"{name} has no option {option!r}{nearest_names(option, known) or '.'} {listed}")
    for option in known:
        if option in needed and option not in given:
            raise InvalidInputError(f"{name} needs {option}=. {listed}")
