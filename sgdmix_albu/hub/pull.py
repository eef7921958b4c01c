"""An expanded set from the hub, at a pinned commit."""

from __future__ import annotations

import os
from pathlib import Path

from sgdmix_albu.errors import DataError
from sgdmix_albu.expand.store.verify import verify
from sgdmix_albu.io.files import check_new
from sgdmix_albu.io.outputs import local_output
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.pretrained.hub import fetch


def pull_expanded(
    repository: str, out: str | os.PathLike[str], *, revision: str, progress: Progress | None = None
) -> Path:
    """Fetch an expanded set that :func:`push_to_hub` pushed, and check every file.

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
    folder = local_output(out)
    check_new(folder)
    fetch(repository, revision, kind="dataset", into=folder, local="a folder that was fetched")
    found = verify(folder, progress=progress)
    if not found.good:
        first = [*found.wrong, *found.strangers][0]
        raise DataError(f"{repository!r} at {revision[:12]} is not what was pushed: {first}")
    return folder
