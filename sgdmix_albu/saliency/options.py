"""A backend's options: as a command line gives them, and one clear error for those that it does not have, or lacks."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sgdmix_albu.arguments import accepts, check_plain
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.registry import nearest_names
from sgdmix_albu.saliency.catalogue import BACKENDS

# Of few digits: a commit's forty may all be digits.
_TEXTS = ("model", "model_path", "prompt", "revision", "session", "weights")
_NUMBER = re.compile(r"[+-]?(\d{1,18}|\d{0,18}\.\d{1,18}|\d{1,18}\.)([eE][+-]?\d{1,2})?", re.ASCII)


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
            raise InvalidInputError(f"{name} needs {option}= (--saliency-option {option}=...). {listed}")


def parse_options(texts: Iterable[str]) -> dict[str, Any]:
    """Options as ``NAME=VALUE``: true and false, whole and other numbers where the value reads as one, else text.

    Prompts, models and the like are text whatever they read as: ``prompt=747``.

    Raises:
        InvalidInputError: Something else, or a name twice.

    Example:
        >>> parse_options(["session=u2net", "microbatch=4", "scale=0.5", "soft=true"])
        {'session': 'u2net', 'microbatch': 4, 'scale': 0.5, 'soft': True}
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier() or not value:
            raise InvalidInputError(f"expected an option of the saliency backend as NAME=VALUE, got {text!r}")
        if name in found:
            raise InvalidInputError(f"the option {name!r} of the saliency backend is given twice")
        found[name] = value if name in _TEXTS else _value(value)
    return found


def maker_of(spec: Any) -> Any:
    """The class or function behind a name or a target; None of a name that nobody has."""
    target = (BACKENDS.load(spec) if spec in BACKENDS.names() else None) if isinstance(spec, str) else spec
    return target.func if isinstance(target, functools.partial) else target


def takes(spec: Any, option: str) -> bool:
    """Whether a name's backend says that it has an option; of those that it passes on, to Captum, it says none."""
    maker = maker_of(spec) if isinstance(spec, str) else None
    return callable(maker) and accepts(maker, option, passed_on=False)


def prompted(spec: Any, options: Mapping[str, Any] | None, metaclass: str | None) -> dict[str, Any]:
    """A backend's options, with what all classes are as the prompt, where it takes one and none is given.

    Example:
        >>> prompted("text", {"model": "clipseg"}, "bird"), prompted("spectral_residual", None, "bird")
        ({'prompt': 'bird', 'model': 'clipseg'}, {})
    """
    asked = metaclass is not None and takes(spec, "prompt")
    return {**({"prompt": metaclass} if asked else {}), **(options or {})}


def options_of_each(
    specs: Collection[Any], options: Mapping[str, Any] | None, metaclass: str | None
) -> list[dict[str, Any]]:
    """The options of each of several backends: each gets those that it says it has.

    One backend alone gets all, and says itself which it does not have.

    Args:
        specs: The backends.
        options: What was given for all of them.
        metaclass: What all classes are, for a prompt that is not given.

    Raises:
        InvalidInputError: An option that none of them has.

    Example:
        >>> options_of_each(["spectral_residual", "rembg"], {"session": "u2net"}, None)
        [{}, {'session': 'u2net'}]
    """
    given = check_plain(options or {})
    if len(specs) == 1:
        return [prompted(spec, given, metaclass) for spec in specs]
    unknown = [name for name in given if not any(takes(spec, name) for spec in specs)]
    if unknown:
        raise InvalidInputError(f"none of {', '.join(map(str, specs))} has an option {unknown[0]!r}")
    own = [{name: value for name, value in given.items() if takes(spec, name)} for spec in specs]
    return [prompted(spec, options, metaclass) for spec, options in zip(specs, own, strict=True)]


def _value(text: str) -> str | int | float | bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if not _NUMBER.fullmatch(text):
        return text
    return int(text) if text.lstrip("+-").isdigit() else float(text)
