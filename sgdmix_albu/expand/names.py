"""What a run keeps in its folder, and what its outputs may be called."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from sgdmix_albu.io.images import is_hidden
from sgdmix_albu.io.records import UnsoundError, name_below

METADATA = "metadata.jsonl"  # the manifest: the name that Hugging Face's imagefolder looks for
# All hidden, so that other readers pass over them: those that stay, and those that go when the run is finished.
RUN, LISTING = ".sgdmix-run.json", ".sgdmix-images.jsonl"
PLAN, QUARANTINE = ".sgdmix-plan.jsonl", ".sgdmix-quarantine.jsonl"
WORK = ".sgdmix"
BANK, ATTEMPTS = f"{WORK}/bank", f"{WORK}/attempts"


def done_name(number: int) -> str:
    """The file that says that a chunk of the plan is done.

    Example:
        >>> done_name(7)
        '.sgdmix/done/000007.jsonl'
    """
    return f"{WORK}/done/{number:06d}.jsonl"


def output_name(value: Any) -> str:
    """The kind of an output's file name: an image below the folder, and none of the files that a run keeps there."""
    name = name_below(value)
    parts = PurePosixPath(name).parts
    if parts[0] == METADATA or is_hidden(parts[0]):
        raise UnsoundError(f"it is the name of a file that is kept here: {name!r:.60}")
    if PurePosixPath(name).suffix not in (".png", ".jpg") or str(PurePosixPath(name)) != name:
        raise UnsoundError(f"it is no name of an output: {name!r:.60}")
    return name
