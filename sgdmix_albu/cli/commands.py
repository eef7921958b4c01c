"""The whole command line; each command says what it takes, what it calls and what it prints."""

from __future__ import annotations

from argparse import SUPPRESS

from sgdmix_albu import __version__
from sgdmix_albu.cli.completion import SHELLS, PrintCompletion
from sgdmix_albu.cli.expanding import add_generate, add_mix, add_verify
from sgdmix_albu.cli.exploring import add_explore
from sgdmix_albu.cli.learning import add_bank, add_distil
from sgdmix_albu.cli.looking import add_audit, add_demo, add_drift
from sgdmix_albu.cli.refiners import add_finetune, add_refiners
from sgdmix_albu.cli.sharing import add_pull, add_push
from sgdmix_albu.parsing import Parser


def parser() -> Parser:
    """The whole command line."""
    whole = Parser(
        prog="sgdmix",
        description="Put objects of labelled photographs on each other's backgrounds (SGD-Mix, arXiv 2505.11813).",
    )
    whole.add_argument("--version", action="version", version=f"sgdmix {__version__}")
    whole.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=SHELLS,
        default=SUPPRESS,
        metavar="SHELL",
        help=f"print a script that completes commands and options in a shell: {', '.join(SHELLS)}",
    )
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for add in (
        *(add_demo, add_explore, add_mix, add_generate, add_verify, add_audit),
        *(add_refiners, add_bank, add_distil, add_finetune, add_drift, add_push, add_pull),
    ):
        add(commands)
    return whole
