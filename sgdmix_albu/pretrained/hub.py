"""Fetching a pinned commit from the Hugging Face hub: safetensors and JSON, nothing that is unpickled or run."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.registry import import_optional

_BASE = "base=FOLDER (--base FOLDER)"


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


def fetch(repository: str, revision: str | None, *, patterns: Sequence[str], local: str = _BASE) -> Path:
    """The local folder of a repository at a commit; from the hub's cache where it is there already.

    Args:
        repository: Hub id, ``"organisation/name"``.
        revision: The commit, 40 hexadecimal digits: a branch or tag may mean other weights tomorrow.
        patterns: Files wanted.
        local: The setting that takes a local folder in the repository's place, for the message.

    Raises:
        InvalidInputError: The revision is no commit.
        DataError: The hub cannot be reached, or has no such repository or commit.
    """
    if revision is None or not re.fullmatch("[0-9a-f]{40}", revision):
        raise InvalidInputError(
            f"a hub id needs revision=, the commit's 40 hexadecimal digits; got {revision!r} for {repository!r}"
        )
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    hub = import_optional("huggingface_hub", extra="diffusion")
    told = import_optional("huggingface_hub.utils.logging", extra="diffusion")
    level = told.get_verbosity()
    told.set_verbosity(logging.CRITICAL)  # it tells of every retry; the error below says all that there is to say
    try:
        found = hub.snapshot_download(repository, revision=revision, allow_patterns=list(patterns))
    # The hub's client raises errors of several packages: no network, no such repository, no permission.
    except Exception as error:
        raise DataError(
            f"cannot fetch {repository!r} at {revision[:12]}: {first_line(error)} Where there is a network, run: "
            f"hf download {repository} --revision {revision} --local-dir FOLDER; here pass {local}"
        ) from error
    finally:
        told.set_verbosity(level)
    return Path(found)


def first_line(error: Exception) -> str:
    """The first line of what a library says; the error's name where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
