"""Image files: list a class-per-folder tree, and read its photographs.

Torch-free (Pillow and numpy), so that the command line and the offline stages can use it cheaply.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.io.files import open_regular, refusals_named

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_BYTES",
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

# What these suffixes stand for; a phone's JPEG with several pictures in it is opened as JPEG. Pillow knows 40 formats
# more, and would start Ghostscript to read PostScript.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

# Pillow's own threshold for a decompression bomb: 256 MB of RGB.
MAX_PIXELS = 1024 * 1024 * 1024 // 4 // 3

# As many pixels of 16-bit RGBA, not compressed: no photograph's file is larger. Some readers take in a file as a whole.
MAX_BYTES = 8 * MAX_PIXELS

_STRIPE = 2**20  # pixels that are converted at once


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
    that lie outside a class folder are not part of the tree. A pipe, a device or a link to nothing with an image's
    name is listed as an image is: :func:`read_image` says what is wrong with it.

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
        raise DataError(f"expected a folder of images, {root} {'is a file' if root.exists() else 'does not exist'}")
    with refusals_named(root, "read"), os.scandir(root) as entries:
        seen = [entry for entry in entries if not is_hidden(entry.name)]
        classes = sorted(entry.name for entry in seen if _is_folder(entry))
    if not classes:
        images = sum(Path(entry.name).suffix.lower() in IMAGE_SUFFIXES for entry in seen)
        raise DataError(f"expected one folder per class in {root}, found no folder and {images} image(s)")
    return classes


def read_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image file as upright 8-bit RGB, or say why it cannot be read.

    Only files are opened, and only the formats of :data:`IMAGE_SUFFIXES` are decoded, whatever the file's name.
    Besides Pillow's decoder, only the result takes memory.

    The EXIF orientation is applied. Grey, palette and CMYK become RGB; 16-bit grey is scaled to 8 bits;
    transparency is laid over white; an animation gives its first frame.

    Args:
        path: The file.
        max_pixels: Files that declare more pixels (width times height) are refused before they are decoded.

    Raises:
        DataError: The file is missing, empty, no regular file, not an image, truncated, damaged or too large (more
            than ``max_pixels`` pixels or :data:`MAX_BYTES` bytes).
        InvalidInputError: ``max_pixels`` is not positive.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "half_clear.png"
        >>> Image.new("LA", (2, 1), (0, 128)).save(file)
        >>> read_image(file).getpixel((0, 0))
        (127, 127, 127)
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        return _decoded(file, size, os.fspath(path), max_pixels)


def decode_image(content: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The same for a file's content that came from elsewhere; ``name`` is for messages."""
    return _decoded(io.BytesIO(content), len(content), name, max_pixels)


def _decoded(file: BinaryIO, size: int, name: str, max_pixels: int) -> Image.Image:
    if max_pixels < 1:
        raise InvalidInputError(f"max_pixels must be positive, got {max_pixels}")
    if not size:
        raise DataError(f"cannot read {name}: the file is empty")
    if size > MAX_BYTES:
        raise DataError(f"cannot read {name}: it is larger than {MAX_BYTES} bytes, the limit")
    try:
        image, orientation = _rgb_as_stored(file, max_pixels)
        image.getexif()[ExifTags.Base.Orientation] = orientation
        ImageOps.exif_transpose(image, in_place=True)
    except UnidentifiedImageError as error:
        raise DataError(f"cannot read {name}: not an image, or its header is damaged") from error
    # Pillow's decoders meet damaged files with errors of many kinds: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise DataError(f"cannot read {name}: {_reason(error)}") from error
    return image


def _rgb_as_stored(file: BinaryIO, max_pixels: int) -> tuple[Image.Image, int]:
    """The image and its EXIF orientation. It is turned when the decoder's copy of the pixels is gone."""
    with Image.open(file, formats=_FORMATS) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise ValueError(f"{width} x {height} pixels, the limit is {max_pixels}")
        image.load()
        return _to_rgb(image), image.getexif().get(ExifTags.Base.Orientation, 1)


def is_hidden(name: str) -> bool:
    """Whether a file's or folder's name begins with a dot."""
    return name.startswith(".")


def files_below(folder: Path, *, hidden: bool = False) -> Iterator[Path]:
    """Everything but folders at any depth below a folder, through links to folders too.

    Args:
        folder: Where to begin.
        hidden: Whether hidden files and folders are among them. A hidden folder that cannot be read, or whose link
            leads back, is itself given instead of what is in it.

    Raises:
        DataError: A folder cannot be read, or a link leads back to a folder that it lies in.
    """
    # Where the folders on the way to each one really are; a stack, for folders may lie deeper than Python's calls may.
    waiting: list[tuple[Path, tuple[str, ...], bool]] = [(folder, (os.path.realpath(folder),), False)]
    while waiting:
        here, inside, secret = waiting.pop()
        try:
            with refusals_named(here, "read"), os.scandir(here) as entries:
                found = sorted((one for one in entries if hidden or not is_hidden(one.name)), key=lambda one: one.name)
        except DataError:
            if not secret:
                raise
            yield here
            continue
        for entry in found:
            path, below = Path(entry.path), secret or is_hidden(entry.name)
            if not _is_folder(entry):
                yield path
                continue
            place = os.path.realpath(path) if entry.is_symlink() else f"{inside[-1]}/{entry.name}"
            if place not in inside:
                waiting.append((path, (*inside, place), below))
            elif below:
                yield path
            else:
                raise DataError(f"{path} is a link to {place}, which contains it; remove the link")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link that leads nowhere or round in a circle is none."""
    try:
        return entry.is_dir()
    except PermissionError:
        return True  # it may be one, and must not be passed over: reading it will be refused
    except OSError:
        return False


def _images_below(folder: Path) -> list[Path]:
    found = [path for path in files_below(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(found, key=Path.as_posix)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _in_stripes(image, _from_16_bit)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.has_transparency_data:
        return _in_stripes(image, _over_white)
    return image.convert("RGB")


def _in_stripes(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert some rows at a time: what a conversion takes beside its result is as small as a stripe."""
    result = Image.new("RGB", image.size)
    rows = max(1, _STRIPE // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        result.paste(convert(image.crop(box)), box)
    return result


def _over_white(image: Image.Image) -> Image.Image:
    clear = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """16-bit grey to RGB: 65535 is white; Pillow's own conversion clips at 255 instead."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"integer pixels from {values.min()} to {values.max()}, expected 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text if text and not isinstance(error, KeyError) else f"{type(error).__name__} {text}".strip()
