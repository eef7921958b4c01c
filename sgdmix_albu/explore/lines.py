"""The code for what is set on the page: a line for a training script, and a command. Defaults are left out."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import fields

from sgdmix_albu.expand.models import PASSED_ON
from sgdmix_albu.explore.wishes import Choices, Given, saliency_settings
from sgdmix_albu.saliency.catalogue import GIVEN
from sgdmix_albu.settings import RefinerSettings
from sgdmix_albu.types import SERVED

_MIXING = ("mask", "fill", "place", "candidates")
_DEFAULTS = {field.name: field.default for field in fields(Choices)}
_CLASSIFIER = ("model", "arch", "class_names", "normalize")
OUT = "out/"


def python_lines(given: Given, choices: Choices) -> str:
    """The transform for a training script.

    Example:
        >>> print(python_lines(Given(data="photos"), Choices(mask="otsu", candidates=20)))
        from sgdmix_albu import SGDMix
        <BLANKLINE>
        mix = SGDMix(mask="otsu", candidates=20)
        >>> print(python_lines(Given(data="photos"), Choices(saliency="bank:maps")).splitlines()[-1])
        mix = SGDMix("given")  # of WithMaps(data, "maps")
        >>> print(python_lines(Given(data="photos", refiner=RefinerSettings("ft1", steps=10)), Choices()))
        from sgdmix_albu import SGDMix
        from sgdmix_albu.refine import get_refiner
        <BLANKLINE>
        refiner = get_refiner("ft1", steps=10)
        mix = SGDMix(refiner=refiner, strength=0.7)
    """
    imports, refiner = ["from sgdmix_albu import SGDMix"], []
    asked = saliency_settings(given, choices.saliency)
    served = choices.saliency.startswith(SERVED)  # its maps come with the samples
    name = GIVEN if served else choices.saliency
    arguments = [] if name == _DEFAULTS["saliency"] else [_quoted(name)]
    if asked.model is not None:
        arguments.append("model=model")
    arguments += [f"{name}={_quoted(getattr(choices, name))}" for name in _changed(choices, _MIXING)]
    if given.refiner is not None:
        how = {name: _quoted(value) for name, value in _how(given.refiner).items()}
        if "dtype" in how:
            how["dtype"] = f"torch.{given.refiner.dtype}"
            imports.insert(0, "import torch")
        if how:
            imports.append("from sgdmix_albu.refine import get_refiner")
            words = [_quoted(given.refiner.name), *(f"{name}={value}" for name, value in how.items())]
            refiner.append(f"refiner = get_refiner({', '.join(words)})")
        arguments.append("refiner=refiner" if how else f"refiner={_quoted(given.refiner.name)}")
        arguments.append(f"strength={choices.strength!r}")
        arguments += [f"preserve={_quoted(choices.preserve)}"] if _changed(choices, ["preserve"]) else []
    arguments += [f"{name}={_quoted(value)}" for name, value in asked.options.items()]
    maps = f"  # of WithMaps(data, {_quoted(choices.saliency.removeprefix(SERVED))})" if served else ""
    return "\n".join([*imports, "", *refiner, f"mix = SGDMix({', '.join(arguments)}){maps}"])


def command_line(given: Given, choices: Choices) -> str:
    """The command that writes the picture shown, and those of all other images.

    Example:
        >>> print(command_line(Given(data="my photos"), Choices(fill="source", seed=3)))
        sgdmix mix 'my photos' out/ --size 224 --fill source --seed 3
    """
    return shlex.join(_words(given, choices))


def _words(given: Given, choices: Choices) -> Iterator[str]:
    yield from ("sgdmix", "mix" if given.refiner is None else "generate")
    yield from (OUT, "--dataset", given.dataset) if given.dataset is not None else (given.data or "", OUT)
    yield from ("--size", str(given.size))
    asked = saliency_settings(given, choices.saliency)
    if choices.saliency != _DEFAULTS["saliency"]:
        yield from ("--saliency", choices.saliency)
    for name, value in asked.options.items():
        yield from ("--saliency-option", f"{name}={value}")
    if asked.model is not None:
        for field in fields(given.classifier):
            value = getattr(given.classifier, field.name)
            if value != field.default:
                yield from (_flag(field.name), str(value))
    for name in _changed(choices, (*_MIXING, "seed")):
        yield from (_flag(name), str(getattr(choices, name)))
    if given.refiner is not None:
        yield from ("--multiplier", "1", "--refiner", given.refiner.name, "--strengths", str(choices.strength))
        if _changed(choices, ["preserve"]):
            yield from ("--preserve", choices.preserve)
        for name, value in _how(given.refiner).items():
            if name == "loras":
                yield from ("--lora", *given.refiner.loras)
            else:
                yield from (_flag(name),) if value is True else (_flag(name), str(value))


def _how(refiner: RefinerSettings) -> dict[str, object]:
    """How a refiner is to work, where it is not as usual; its strength and what it protects are set on the page."""
    defaults = {field.name: field.default for field in fields(refiner)}
    asked = {name: getattr(refiner, name) for name in (*PASSED_ON, "dtype")}
    return {name: value for name, value in asked.items() if value != defaults[name]}


def _changed(choices: Choices, names: tuple[str, ...] | list[str]) -> list[str]:
    return [name for name in names if getattr(choices, name) != _DEFAULTS[name]]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _quoted(value: object) -> str:
    """As black writes it: double quotes where they need no escape."""
    text = repr(value)
    return f'"{text[1:-1]}"' if isinstance(value, str) and text[0] == "'" and '"' not in text else text
