"""Any of the data sets as a class-per-folder tree, which the command line and ImageFolder read."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sgdmix_albu.errors import DataError
from sgdmix_albu.files import TEMPORARY, refusals_named, umask

__all__ = ["write_tree"]


def write_tree(dataset: Any, folder: str | os.PathLike[str]) -> None:
    """Write images as ``folder/<source key>``: photographs byte for byte, drawn images as PNG.

    The folder appears under its name when all files are in it.

    Args:
        dataset: Has ``source_keys``, and ``paths`` or PIL images; its ``transform`` must be None.
        folder: Where to; a new or an empty folder.

    Raises:
        DataError: ``folder`` is a file or holds anything already, or the operating system refused.

    Example:
        >>> from sgdmix_albu.datasets import get_dataset
        >>> folder = tempfile.mkdtemp()
        >>> write_tree(get_dataset("aviary", species=2, per_species=1, size=32), folder)
        >>> sorted(path.name for path in Path(folder).rglob("*.png"))
        ['00000.png', '00000.png']
    """
    root = Path(folder)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root}: expected an empty folder or a new one")
    with refusals_named(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=root.parent))
        try:
            _fill(dataset, unfinished)
            unfinished.chmod(0o777 & ~umask())
            unfinished.replace(root)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise


def _fill(dataset: Any, folder: Path) -> None:
    paths = getattr(dataset, "paths", None)
    for index, key in enumerate(tqdm(dataset.source_keys, desc="writing", unit="image", disable=None, leave=False)):
        place = folder / key
        place.parent.mkdir(parents=True, exist_ok=True)
        if paths is None:
            dataset[index][0].save(place, format="PNG")
        else:
            shutil.copyfile(paths[index], place)
