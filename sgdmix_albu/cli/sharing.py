"""``sgdmix push`` and ``pull``: the Hugging Face hub."""

from __future__ import annotations

from typing import Any

from sgdmix_albu.cli.grammar import Commands, command
from sgdmix_albu.cli.said import Said
from sgdmix_albu.errors import InvalidInputError


def add_push(commands: Commands) -> None:
    """``sgdmix push``."""

    def run(**arguments: Any) -> Said:
        from sgdmix_albu.hub import push_to_hub

        done = push_to_hub(**arguments)
        return Said([f"pushed   {done.url}", f"commit   {done.commit}"], done._asdict())

    push = command(commands, "push", run, "push a refiner or an expanded set to the Hugging Face hub, with a card")
    push.add_argument("folder", metavar="DIR", help="folder that finetune, generate or mix wrote")
    push.add_argument("repository", metavar="OWNER/NAME", help="hub id; created if needed")
    push.add_argument(
        "--license", required=True, metavar="ID", help="licence of what is pushed: apache-2.0, cc-by-4.0, other"
    )
    push.add_argument("--about", metavar="TEXT", help="what the photographs are and where they come from, for the card")
    push.add_argument("--drift", metavar="DIR", help="report of sgdmix drift, for a refiner's card")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    push.add_argument(
        "--overwrite",
        action="store_true",
        help="replace your own README.md there, remove other files",
    )


def add_pull(commands: Commands) -> None:
    """``sgdmix pull``."""

    def run(*, source: str, out: str) -> Said:
        from sgdmix_albu.hub import pull_expanded

        repository, _, commit = source.partition("@")
        if not commit:
            raise InvalidInputError(f"expected OWNER/NAME@COMMIT, a hub id and a commit, got {source!r}")
        folder = pull_expanded(repository, out, revision=commit)
        return Said([f"out      {folder}"], {"out": str(folder)})

    pull = command(commands, "pull", run, "fetch an expanded set from the Hugging Face hub, and check every file")
    pull.add_argument("source", metavar="OWNER/NAME@COMMIT", help="hub id, and the commit's 40 hexadecimal digits")
    pull.add_argument("out", metavar="OUT", help="folder to write; new or empty")
