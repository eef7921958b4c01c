"""Any of the data sets as a class-per-folder tree, which the command line and ImageFolder read."""

from __future__ import annotations

import io
import os
from typing import Any

from PIL import Image

from sgdmix_albu.io.files import beside, check_new, make_folder, move_folder, read_regular
from sgdmix_albu.io.images import MAX_BYTES
from sgdmix_albu.io.outputs import local_output
from sgdmix_albu.io.places import check_apart
from sgdmix_albu.io.progress import Progress

__all__ = ["content_of", "write_tree"]


def write_tree(dataset: Any, folder: str | os.PathLike[str]) -> None:
    """Write images as ``folder/<source key>``: photographs byte for byte, drawn images as PNG.

    The folder appears under its name when all files are in it.

    Args:
        dataset: Has ``source_keys``, and ``paths`` or PIL images; its ``transform`` must be None.
        folder: Where to; a new or an empty folder.

    Raises:
        DataError: ``folder`` is a file or holds anything already, or the operating system refused.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sgdmix_albu.datasets import get_dataset
        >>> folder = tempfile.mkdtemp()
        >>> write_tree(get_dataset("aviary", species=2, per_species=1, size=32), folder)
        >>> sorted(path.name for path in Path(folder).rglob("*.png"))
        ['00000.png', '00000.png']
    """
    root = local_output(folder)
    check_apart(root, getattr(dataset, "root", None))
    check_new(root)
    keys = dataset.source_keys
    with beside(root) as unfinished:
        for index, key in enumerate(Progress().over(keys, "writing", len(keys))):
            make_folder((unfinished / key).parent)
            (unfinished / key).write_bytes(content_of(dataset, index))
        move_folder(unfinished, root)


def content_of(dataset: Any, index: int) -> bytes:
    """The file of one image: a photograph's own bytes, a drawn image as PNG.

    Args:
        dataset: Has ``paths``, or gives PIL images.
        index: Which image.

    Raises:
        DataError: The file cannot be read.
    """
    paths = getattr(dataset, "paths", None)
    return as_png(dataset[index][0]) if paths is None else read_regular(paths[index], MAX_BYTES)


def as_png(image: Image.Image) -> bytes:
    """An image as the bytes of a PNG file."""
    content = io.BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()
