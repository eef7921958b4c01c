"""Completion for shells: ``sgdmix --print-completion bash``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

SHELLS = ("bash", "zsh", "tcsh")


class PrintCompletion(argparse.Action):
    """Prints the script of a shell, and ends. The parser is changed for it, and must not parse any more."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, shell: Any, option: str | None = None) -> None:
        """Called by argparse where the option stands."""
        import shtab  # a small package; nobody else waits for it

        files, folders = ("FILE",), ("DATA", "DIR", "KEY_OR_DIR", "OUT", "PATH_OR_ID")
        names = {"saliency": _backends, "mask": _presets, "refiner": _refiners, "name": _refiners}
        for action in _actions(parser):
            if action.metavar in files:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif action.dest in names and action.choices is None:
                action.choices = names[action.dest]()
            elif action.metavar in folders:
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        print(shtab.complete(parser, shell))
        parser.exit()


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)


def _backends() -> Sequence[str]:
    from sgdmix_albu.saliency import list_backends

    return list_backends()


def _presets() -> Sequence[str]:
    from sgdmix_albu.masks import list_masks

    return list_masks()


def _refiners() -> Sequence[str]:
    from sgdmix_albu.refine import list_refiners

    return [*list_refiners(), "none"]
