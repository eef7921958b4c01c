"""Image files: listing a class-per-folder tree and reading whatever photograph lies in it.

Torch-free (Pillow and numpy), so that the command line and the offline stages can use it cheaply.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sgdmix_albu.errors import DataError, InvalidInputError

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "ImageEntry",
    "class_folders",
    "decode_image",
    "files_below",
    "is_hidden",
    "list_images",
    "read_image",
]

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

# Pillow's own threshold for a decompression bomb: 256 MB of RGB.
MAX_PIXELS = 1024 * 1024 * 1024 // 4 // 3


@dataclass(frozen=True)
class ImageEntry:
    """One image file of a class-per-folder tree.

    Attributes:
        key: Path below the folder with forward slashes, ``"warbler/0001.jpg"``: the image's name everywhere.
        path: Where the file is.
        class_name: Name of the first-level folder.
        label: Index of ``class_name`` among the sorted first-level folders, as in torchvision's ImageFolder.
    """

    key: str
    path: Path
    class_name: str
    label: int


def list_images(folder: str | os.PathLike[str]) -> list[ImageEntry]:
    """List the image files of a class-per-folder tree, sorted by class and key; nothing is opened.

    The classes are those of :func:`class_folders`; images are looked for at any depth below them, in linked folders
    too, by suffix (:data:`IMAGE_SUFFIXES`, any case). Hidden files and folders, files of other kinds, and images
    that lie outside a class folder are not part of the tree.

    Args:
        folder: The tree's root.

    Raises:
        DataError: No such folder, no class folder in it, no image in any of them, or a linked folder that holds itself.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "owl").mkdir(); (root / "tit").mkdir(); (root / "tit" / "1.PNG").touch()
        >>> [(entry.key, entry.class_name, entry.label) for entry in list_images(root)]
        [('tit/1.PNG', 'tit', 1)]
    """
    root = Path(folder).expanduser()
    classes = class_folders(root)
    entries = [
        ImageEntry(path.relative_to(root).as_posix(), path, name, label)
        for label, name in enumerate(classes)
        for path in _images_below(root / name)
    ]
    if not entries:
        raise DataError(
            f"found no image in the {len(classes)} class folder(s) of {root}; known suffixes: "
            + ", ".join(sorted(IMAGE_SUFFIXES))
        )
    return entries


def class_folders(folder: str | os.PathLike[str]) -> list[str]:
    """Names of the classes of a class-per-folder tree, by label: the one rule that all commands share.

    Each first-level folder is a class (a link to a folder too), with images in it or without, in sorted order: as in
    torchvision's ImageFolder, so that a classifier trained there counts alike. Hidden folders are none.

    Raises:
        DataError: No such folder, or no folder in it.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DataError(f"expected a folder of images, {root} is {'a file' if root.exists() else 'not there'}")
    try:
        classes = sorted(path.name for path in root.iterdir() if path.is_dir() and not is_hidden(path.name))
    except OSError as error:
        _refuse(error)
    if not classes:
        raise DataError(f"expected one folder per class in {root}, found no folder there")
    return classes


def read_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image file as upright 8-bit RGB, or say why it cannot be read.

    The EXIF orientation is applied. Grey, palette and CMYK become RGB; 16-bit grey is scaled to 8 bits;
    transparency is laid over white; of an animation the first frame is taken.

    Args:
        path: The file.
        max_pixels: Files that declare more pixels (width times height) are refused before they are decoded.

    Raises:
        DataError: The file is missing, empty, not an image, truncated, damaged or too large.
        InvalidInputError: ``max_pixels`` is not positive.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "half_clear.png"
        >>> Image.new("LA", (2, 1), (0, 128)).save(file)
        >>> read_image(file).getpixel((0, 0))
        (127, 127, 127)
    """
    path = Path(path).expanduser()
    try:
        empty = path.stat().st_size == 0
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if empty:
        raise DataError(f"cannot read {path}: the file is empty")
    return _decoded(path, str(path), max_pixels)


def decode_image(content: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The same for a file's content that came from elsewhere; ``name`` is for messages."""
    if not content:
        raise DataError(f"cannot read {name}: the file is empty")
    return _decoded(io.BytesIO(content), name, max_pixels)


def _decoded(file: Path | io.BytesIO, name: str, max_pixels: int) -> Image.Image:
    if max_pixels < 1:
        raise InvalidInputError(f"max_pixels must be positive, got {max_pixels}")
    try:
        with Image.open(file) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise DataError(f"cannot read {name}: {width} x {height} pixels, the limit is {max_pixels}")
            return _to_rgb(ImageOps.exif_transpose(image))
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"cannot read {name}: not an image, or its header is damaged") from error
    # Pillow's decoders meet damaged files with errors of many kinds: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise DataError(f"cannot read {name}: {_reason(error)}") from error


def is_hidden(name: str) -> bool:
    """Whether a file's or folder's name begins with a dot."""
    return name.startswith(".")


def files_below(folder: Path, *, hidden: bool = False) -> Iterator[Path]:
    """Every file at any depth below a folder, through links to folders too.

    Args:
        folder: Where to begin.
        hidden: Whether hidden files and folders are among them.

    Raises:
        DataError: A folder cannot be read, or a link leads back to a folder that it lies in.
    """
    yield from _walk(folder, hidden, (os.path.realpath(folder),))


def _walk(folder: Path, hidden: bool, inside: tuple[str, ...]) -> Iterator[Path]:
    """``inside``: where the folders that lead here really are."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(
                (entry for entry in entries if hidden or not is_hidden(entry.name)), key=lambda one: one.name
            )
    except OSError as error:
        _refuse(error)
    for entry in sorted(found, key=lambda one: one.name):
        if not entry.is_dir():
            yield Path(entry.path)
            continue
        place = os.path.realpath(entry.path) if entry.is_symlink() else f"{inside[-1]}/{entry.name}"
        if place in inside:
            raise DataError(f"{entry.path} is a link to {place}, a folder that it lies in; remove the link")
        yield from _walk(Path(entry.path), hidden, (*inside, place))


def _images_below(folder: Path) -> list[Path]:
    found = [path for path in files_below(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(found, key=Path.as_posix)


def _refuse(error: OSError) -> NoReturn:
    raise DataError(f"cannot read {error.filename}: {error.strerror or error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        return Image.alpha_composite(white, clear).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """16-bit grey to RGB: 65535 is white; Pillow's own conversion clips at 255 instead."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"integer pixels from {values.min()} to {values.max()}, expected 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text if text and not isinstance(error, KeyError) else f"{type(error).__name__} {text}".strip()
