"""An expanded set from the hub, at a pinned commit."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sgdmix_albu.errors import DataError
from sgdmix_albu.expand.names import METADATA, RUN
from sgdmix_albu.expand.store.manifest import manifest_rows
from sgdmix_albu.expand.store.verify import verify
from sgdmix_albu.hub.cards import README, files_named
from sgdmix_albu.io.files import TEMPORARY, beside, check_new, make_folder, move_folder, path_inside, refusals_named
from sgdmix_albu.io.outputs import local_output
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.pretrained.hub import fetch


def pull_expanded(
    repository: str, out: str | os.PathLike[str], *, revision: str, progress: Progress | None = None
) -> Path:
    """Fetch an expanded set that :func:`push_to_hub` pushed, and check every file.

    The files are fetched into a hidden folder beside ``out``. It stays if the network breaks off, and the same call
    resumes from it. ``out`` gets the card, the manifest and what the manifest names, once all of it is whole.

    Args:
        repository: Hub id, ``"owner/name"``.
        out: A folder for it; new or empty.
        revision: The commit, 40 hexadecimal digits.
        progress: Where to report.

    Returns:
        The folder. :class:`sgdmix_albu.synthetic.SyntheticMix` and others read it as if it had been written here.

    Raises:
        InvalidInputError: The revision is no commit.
        DataError: The folder holds anything; the hub cannot be reached; a file is not what the manifest says.
    """
    folder = local_output(out).resolve()
    check_new(folder)
    # The same name for the same pull, so that it is found again.
    part = folder.parent / f"{TEMPORARY}pull-{folder.name}-{str(revision)[:12]}"
    fetch(repository, revision, kind="dataset", into=part, local="a folder that was fetched")
    if (fault := _fault(part, progress)) is not None:
        shutil.rmtree(part, ignore_errors=True)  # the client would take its files for right ever after
        raise DataError(f"{repository!r} at {revision[:12]} is not what was pushed: {fault}")
    _move_named(part, folder)
    shutil.rmtree(part, ignore_errors=True)
    return folder


def _fault(part: Path, progress: Progress | None) -> str | None:
    """What is wrong with an expanded set, if anything."""
    try:
        found = verify(part, progress=progress)
    except DataError as error:
        return str(error).replace(str(part), "it")
    return next(iter((*found.wrong, *found.strangers)), None)


def _move_named(part: Path, folder: Path) -> None:
    """Only what was pushed: the client's own folder ``.cache`` would be a class to those that read class folders."""
    names = files_named(manifest_rows(Storage(part).lines(METADATA)))
    with beside(folder) as filled, refusals_named(folder):
        card = [README] if (part / README).is_file() else []
        for name in dict.fromkeys((METADATA, RUN, *names, *card)):
            place = path_inside(filled, name)
            make_folder(place.parent)
            path_inside(part, name).replace(place)
        move_folder(filled, folder)
