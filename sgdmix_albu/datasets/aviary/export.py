"""The aviary as image files."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from sgdmix_albu.datasets.aviary.dataset import Aviary
from sgdmix_albu.errors import DataError


def export(dataset: Aviary, folder: str | os.PathLike[str]) -> None:
    """Write a dataset as class-per-folder PNG files with their masks beside them.

    The files are ``images/<class>/<number>.png`` (RGB) and ``masks/<class>/<number>.png`` (0 and 255), so
    ``ImageFolder(folder / "images")`` reads it; its labels are the dataset's own where the species are in order of
    their index. A file appears under its name only when it is complete; transforms are not applied.

    Args:
        dataset: What to write.
        folder: Where to; made if absent.

    Raises:
        DataError: ``folder`` is a file or holds anything already.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export(Aviary(species=2, per_species=1, size=32), folder)
        ...     sorted(path.name for path in Path(folder, "masks").iterdir())
        ['000.common_olive_warbler', '001.common_blue_robin']
    """
    root = Path(folder).expanduser()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root}: expected an empty folder or a new one")
    for name in dataset.classes:
        for kind in ("images", "masks"):
            (root / kind / name).mkdir(parents=True)
    numbers = [number for count in dataset.counts for number in range(count)]
    for index, number in enumerate(numbers):
        sample = dataset.render(index)
        file = Path(dataset.classes[sample.label], f"{number:05d}.png")
        _write(Image.fromarray(sample.image), root / "images" / file)
        _write(Image.fromarray(sample.mask).convert("L"), root / "masks" / file)


def _write(image: Image.Image, path: Path) -> None:
    part = path.with_suffix(".part")
    image.save(part, format="PNG")
    part.replace(path)
