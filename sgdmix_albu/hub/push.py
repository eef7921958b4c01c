"""A refiner or an expanded set to the hub: checked first, then one commit with all files and the card."""

from __future__ import annotations

import json
import os
import re
from itertools import islice
from pathlib import Path

from sgdmix_albu.audit.drift_result import Cell, DriftResult
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.expand.names import METADATA, RUN
from sgdmix_albu.expand.store.manifest import manifest_rows
from sgdmix_albu.expand.store.run_file import read_run
from sgdmix_albu.expand.store.verify import verify
from sgdmix_albu.hub.cards import README, dataset_card, files_named, is_ours, model_card
from sgdmix_albu.io.files import read_regular
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.pretrained.hub import HUB_ID, Kind, Pushed, push
from sgdmix_albu.refine.folder import CARD, LORA, TOKENS, read_refiner
from sgdmix_albu.refine.refiner import Refiner

_MOST_FILES = 20_000  # of a commit: the hub advises 100,000 in a repository, and takes fewer at once
_MOST_BYTES = 2**26  # of a drift.json
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{1,60}")


def push_to_hub(
    folder: str | os.PathLike[str] | Refiner,
    repository: str,
    *,
    license: str,  # noqa: A002  what the hub calls it
    about: str | None = None,
    drift: DriftResult | str | os.PathLike[str] | None = None,
    private: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Pushed:
    """Push a refiner's folder, or an expanded set, with a card that says what it is and how to use it.

    Only the refiner's three files are pushed, or the manifest and the images that it names: no checkpoints, no logs.
    All is checked against its SHA-256 first. One commit holds everything, so a push that breaks off leaves nothing.

    Args:
        folder: A folder that ``sgdmix finetune``, ``generate`` or ``mix`` wrote; or a refiner.
        repository: Hub id, ``"owner/name"``; made if it is not there.
        license: Of what is pushed, as the hub names it: "apache-2.0", "cc-by-4.0", "other". There is no default: it
            follows from the licences of the photographs and of the base model.
        about: What the photographs are and where they come from, in words.
        drift: Of a refiner: what :func:`sgdmix_albu.audit.run_drift` found, or its folder.
        private: Make a new repository private.
        overwrite: Remove other files that the repository has, and replace a ``README.md`` that you wrote or edited.
        progress: Where to report.

    Returns:
        The page of the repository, and the commit, by which it is pulled.

    Raises:
        InvalidInputError: The licence or the hub id is none, or a drift report of an expanded set.
        DataError: The folder is neither, is not finished, or was changed; the hub cannot be reached or refuses.
    """
    root = folder.folder if isinstance(folder, Refiner) else Path(folder).expanduser()
    if not isinstance(license, str) or not _LICENSE.fullmatch(license):
        raise InvalidInputError(
            f"expected a licence as the hub names it, such as apache-2.0, cc-by-4.0 or other; got {license!r}"
        )
    if not HUB_ID.fullmatch(repository):
        raise InvalidInputError(f"expected a hub id (owner/name), got {repository!r}")
    kind: Kind
    if (root / CARD).is_file():
        kind, files = "model", _refiner_files(root, repository, license, about, drift)
    elif (root / METADATA).is_file() or (root / RUN).is_file():
        if drift is not None:
            raise InvalidInputError(f"a drift report is about a refiner, and {root} is an expanded set")
        kind, files = "dataset", _expanded_files(root, repository, license, about, progress or Progress())
    else:
        raise DataError(
            f"expected a folder that sgdmix finetune, generate or mix wrote: {root} has neither {CARD} nor {METADATA}"
        )
    said = _message(kind)
    return push(
        repository, files, kind=kind, message=said, private=private, overwrite=overwrite, replaced={README: is_ours}
    )


def _message(kind: Kind) -> str:
    return "Refiner, with sgdmix push" if kind == "model" else "Expanded set, with sgdmix push"


def _refiner_files(
    root: Path, repository: str, licence: str, about: str | None, drift: DriftResult | str | os.PathLike[str] | None
) -> dict[str, Path | bytes]:
    card = read_refiner(root)
    readme = model_card(card, repository=repository, licence=licence, about=about, cells=_cells(drift))
    return {README: readme.encode(), **{name: root / name for name in (CARD, LORA, TOKENS)}}


def _expanded_files(
    root: Path, repository: str, licence: str, about: str | None, progress: Progress
) -> dict[str, Path | bytes]:
    found = verify(root, progress=progress)
    if not found.good:
        wrong = [*found.wrong, *(f"{one} is not in {METADATA}" for one in found.strangers)]
        raise DataError(f"{root} is not as it was written: {wrong[0]}")
    storage = Storage(root)
    rows = list(manifest_rows(storage.lines(METADATA)))
    names = files_named(rows)
    if len(names) > _MOST_FILES:
        raise DataError(f"{root} has {len(names)} files, and the hub takes {_MOST_FILES}: write it with --shards")
    readme = dataset_card(rows, read_run(storage).settings, repository=repository, licence=licence, about=about)
    return {README: readme.encode(), **{name: root / name for name in (METADATA, RUN, *names)}}


def _cells(drift: DriftResult | str | os.PathLike[str] | None) -> tuple[Cell, ...]:
    """What a drift report found."""
    if drift is None or isinstance(drift, DriftResult):
        return () if drift is None else drift.cells
    path = Path(drift).expanduser()
    path = path / "drift.json" if path.is_dir() else path
    try:
        found = json.loads(read_regular(path, _MOST_BYTES))["cells"]
        names = ("preserve", "strength", "timestep", "drifted", "count", "added")
        return tuple(Cell(**{name: cell[name] for name in names}) for cell in islice(found, 1000))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a report of sgdmix drift") from error
