"""The aviary as image files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from sgdmix_albu.datasets.aviary.dataset import Aviary
from sgdmix_albu.io.files import beside, check_new, make_folder, move_folder


def export(dataset: Aviary, folder: str | os.PathLike[str]) -> None:
    """Write a dataset as class-per-folder PNG files with their masks beside them.

    The files are ``images/<class>/<number>.png`` (RGB) and ``masks/<class>/<number>.png`` (0 and 255), so
    ``ImageFolder(folder / "images")`` reads it; its labels are the dataset's own where the species are in order of
    their index. The folder appears under its name when all files are in it; transforms are not applied.

    Args:
        dataset: What to write.
        folder: Where to; made if absent.

    Raises:
        DataError: ``folder`` is a file or holds anything already, or the operating system refused.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export(Aviary(species=2, per_species=1, size=32), folder)
        ...     sorted(path.name for path in Path(folder, "masks").iterdir())
        ['000.common_olive_warbler', '001.common_blue_robin']
    """
    root = Path(folder).expanduser()
    check_new(root)
    with beside(root) as unfinished:
        for index, key in enumerate(dataset.source_keys):
            sample = dataset.render(index)
            for kind, pixels in (("images", sample.image), ("masks", np.uint8(255) * sample.mask)):
                make_folder((unfinished / kind / key).parent)
                Image.fromarray(pixels).save(unfinished / kind / key)
        move_folder(unfinished, root)
