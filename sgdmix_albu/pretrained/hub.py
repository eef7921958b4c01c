"""The Hugging Face hub: what is fetched is a pinned commit, and nothing of it is run; what is pushed is one commit."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.io.progress import silenced
from sgdmix_albu.registry import import_optional

_BASE = "base=FOLDER (--base FOLDER)"
COMMIT = re.compile("[0-9a-f]{40}")
HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*", re.ASCII)

Kind: TypeAlias = Literal["model", "dataset"]
"""What a repository holds."""


def folder_of(
    name: str | os.PathLike[str],
    revision: str | None,
    *,
    patterns: Sequence[str],
    kind: str,
    local: str = _BASE,
    command: str | None = None,
) -> Path:
    """The folder that a local path or a hub id means.

    Args:
        name: A local folder, which never touches the network, or a hub id.
        revision: Commit of a hub id.
        patterns: Files wanted of a hub's repository.
        kind: What the folder is to be, for the message: "a folder in diffusers' layout".
        local: As in :func:`fetch`.
        command: Fetches such a folder, for the message.

    Raises:
        InvalidInputError: The revision is no commit.
        DataError: No such folder, and no hub id; or the hub cannot be reached.
    """
    text, path = os.fspath(name), Path(name).expanduser()
    if path.is_dir():
        return path
    how = f". To fetch one: {command}" if command else ""
    if path.exists():
        raise DataError(f"expected {kind}, {text!r} is a file{how}")
    if path.is_absolute() or text.startswith((".", "~")) or not re.fullmatch(r"[^/\\\s]+/[^/\\\s]+", text):
        raise DataError(f"there is no folder {text!r}; expected {kind} or a hub id (organisation/name){how}")
    if revision is None:
        raise InvalidInputError(
            f"there is no folder {text!r}; if it is a hub id, it needs revision=, the commit's 40 hexadecimal "
            f"digits{how}"
        )
    return fetch(text, revision, patterns=patterns, local=local)


def fetch(
    repository: str,
    revision: str | None,
    *,
    patterns: Sequence[str] | None = None,
    local: str = _BASE,
    kind: Kind = "model",
    into: Path | None = None,
) -> Path:
    """The local folder of a repository at a commit; from the hub's cache where it is there already.

    Args:
        repository: Hub id, ``"organisation/name"``.
        revision: The commit, 40 hexadecimal digits: a branch or tag may mean other weights tomorrow.
        patterns: Files wanted; None for all.
        local: The setting that takes a local folder in the repository's place, for the message.
        kind: What the repository holds.
        into: A folder to write the files into; None for the hub's cache.

    Raises:
        InvalidInputError: The revision is no commit.
        DataError: The hub cannot be reached, or has no such repository or commit.
    """
    if revision is None or not COMMIT.fullmatch(revision):
        raise InvalidInputError(
            f"a hub id needs revision=, the commit's 40 hexadecimal digits; got {revision!r} for {repository!r}"
        )
    wanted = None if patterns is None else list(patterns)
    with _client() as hub:
        try:
            found = hub.snapshot_download(
                repository, repo_type=kind, revision=revision, allow_patterns=wanted, local_dir=into
            )
        # The hub's client raises errors of several packages: no network, no such repository, no permission.
        except Exception as error:
            command = f"hf download {repository} --revision {revision} --local-dir FOLDER"
            command += "" if kind == "model" else f" --repo-type {kind}"
            raise DataError(
                f"cannot fetch {repository!r} at {revision[:12]}: {first_line(error)} Where there is a network, run: "
                f"{command}; here pass {local}"
            ) from error
    return Path(found)


class Pushed(NamedTuple):
    """What the hub made of a push: the page of the repository, and the commit."""

    url: str
    commit: str


def push(
    repository: str,
    files: Mapping[str, Path | bytes],
    *,
    kind: Kind,
    message: str,
    private: bool,
    overwrite: bool,
    replaced: Mapping[str, Callable[[bytes], bool]],
) -> Pushed:
    """Put files into a repository as one commit: it has all of them or none.

    Args:
        repository: Hub id; made if it is not there.
        files: Name in the repository to the file, or to its content.
        kind: What the repository holds.
        message: Of the commit.
        private: Make a new repository private; one that is there stays as it is.
        overwrite: Remove other files that are there, and replace all that have the same names.
        replaced: Names of files to what says, of their content on the hub, whether it may be replaced.

    Raises:
        InvalidInputError: It is no hub id.
        DataError: The hub cannot be reached or refuses; or the repository has other files, or its own of these names.
    """
    if not HUB_ID.fullmatch(repository):
        raise InvalidInputError(f"expected a hub id (organisation/name) to push to, got {repository!r}")
    with _client() as hub:
        try:
            client = hub.HfApi()
            url = str(client.create_repo(repository, repo_type=kind, private=private or None, exist_ok=True))
            there = set(client.list_repo_files(repository, repo_type=kind))
            others = sorted(there - {*files, ".gitattributes"})
            if others and not overwrite:
                raise DataError(f"{repository!r} has other files, such as {others[0]}; pass overwrite to remove them")
            for name in sorted(there & {*replaced}) if not overwrite else ():
                if not replaced[name](_content(hub, repository, name, kind)):
                    raise DataError(
                        f"{repository!r} has its own {name}: sgdmix push did not write it, or it was edited since; "
                        "pass overwrite to replace it"
                    )
            added = [hub.CommitOperationAdd(name, content) for name, content in files.items()]
            removed = [hub.CommitOperationDelete(name) for name in others]
            done = client.create_commit(repository, [*added, *removed], commit_message=message, repo_type=kind)
        except DataError:
            raise
        except Exception as error:
            why = first_line(_root(error))
            raise DataError(
                f"cannot push to {repository!r}: {why} If you are not logged in, run: hf auth login"
            ) from error
    return Pushed(url, done.oid)


@contextmanager
def _client() -> Iterator[Any]:
    """The hub's client, without telemetry, and silent: it tells of every retry, and errors say all there is to say."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    hub = import_optional("huggingface_hub", extra="hub")
    told = import_optional("huggingface_hub.utils.logging", extra="hub")
    bars = import_optional("huggingface_hub.utils", extra="hub")
    level, hidden = told.get_verbosity(), bars.are_progress_bars_disabled()
    told.set_verbosity(logging.CRITICAL)
    if silenced() or not sys.stderr.isatty():
        bars.disable_progress_bars()
    try:
        yield hub
    finally:
        told.set_verbosity(level)
        if not hidden:
            bars.enable_progress_bars()


def _content(hub: Any, repository: str, name: str, kind: Kind) -> bytes:
    """A small file of a repository as it is now; nothing stays in the hub's cache."""
    with tempfile.TemporaryDirectory() as folder:
        return Path(hub.hf_hub_download(repository, name, repo_type=kind, local_dir=folder)).read_bytes()


def _root(error: BaseException) -> BaseException:
    """What an error follows from: the client says "error while uploading", and hides why."""
    return error if error.__cause__ is None else _root(error.__cause__)


def first_line(error: BaseException) -> str:
    """The first line of what a library says; the error's name where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
