"""Building a saliency bank: resumable at any point, and nothing half-written looks whole."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from sgdmix_albu import __version__
from sgdmix_albu.bank.maps import (
    FORMAT,
    HEADER,
    INDEX,
    LARGEST_SIDE,
    MAPS,
    IndexLine,
    SaliencyBank,
    header_sum,
    parsed_line,
    read_header,
    read_index,
)
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.io.files import (
    TEMPORARY,
    check_own,
    open_regular,
    read_regular,
    refusals_named,
    write_whole,
)
from sgdmix_albu.io.images import MAX_BYTES, ImageEntry, decode_image, list_images
from sgdmix_albu.io.lock import locked
from sgdmix_albu.io.places import check_apart
from sgdmix_albu.io.records import UnsoundError
from sgdmix_albu.saliency.base import SaliencyBackend
from sgdmix_albu.saliency.fingerprint import fingerprint
from sgdmix_albu.saliency.resolve import get_backend

__all__ = ["build_bank"]

_Known = dict[tuple[str, int], tuple[int, int]]  # content and label to row and checksum


def build_bank(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    backend: Any,
    *,
    size: int | tuple[int, int] = 224,
    batch_size: int = 32,
    workers: int = 0,
    progress: bool = True,
    **options: Any,
) -> SaliencyBank:
    """Compute the saliency maps of a class-per-folder image tree, or those that are missing from ``out``.

    A map is computed again when the image's content, the backend, its options, its model (architecture or
    weights), ``size`` or this package's version has changed, and only then. A run that was killed is taken up
    where it stopped. Maps are kept as uint8 at the backend's own resolution (64 x 64 bytes an image for
    spectral residual). One process at a time may build a bank; a second one is refused.

    Args:
        folder: One folder per class, as :func:`sgdmix_albu.io.images.list_images` reads it; the classes' indices
            are the labels that model-based backends explain.
        out: The bank's folder, made if need be.
        backend: What :func:`get_backend` takes.
        size: (H, W), or one number for both, that images are resized to before the backend sees them; the maps
            cover the whole image whatever its proportions.
        batch_size: Images to a call of the backend.
        workers: Processes that read the images; 0 reads them here.
        progress: Whether to show a progress bar.
        **options: The backend's.

    Returns:
        The bank, opened. Images that cannot be read are left out and listed in its ``skipped``.

    Raises:
        DataError: ``folder`` has no images, none of them can be read, ``out`` holds something else or cannot be
            written, or another process builds it.
        InvalidInputError: A wrong option.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "data" / "tit").mkdir(parents=True)
        >>> Image.effect_noise((50, 40), 60).save(root / "data" / "tit" / "1.png")
        >>> bank = build_bank(root / "data", root / "bank", "spectral_residual", progress=False)
        >>> len(bank), bank["tit/1.png"].shape
        (1, torch.Size([64, 64]))
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width, batch_size) < 1 or workers < 0:
        raise InvalidInputError(f"size and batch_size must be positive, got {size!r} and {batch_size!r}")
    maker = get_backend(backend, **options)
    check_apart(out, folder)
    entries = list_images(folder)
    made_by = fingerprint([type(maker), maker.settings()])
    settings = {"backend": made_by, "size": [height, width], "version": __version__}
    bank = Path(out).expanduser()
    if _occupied(bank):
        read_header(bank)  # an error if the folder holds something else
    with locked(bank, "build_bank"):
        journal = _Journal(bank, settings)
        files = _Files(entries, (height, width), set(journal.known), maker.uses_labels)
        lines: list[IndexLine] = []
        skipped: dict[str, str] = {}
        with tqdm(total=len(entries), desc=repr(maker), unit="image", disable=None if progress else True) as bar:
            for batch in DataLoader(files, batch_size, num_workers=workers, collate_fn=list):
                journal.add(_computed(maker, [item for item in batch if item.image is not None]))
                lines += [journal.line(item) for item in batch if not item.reason]
                skipped.update({item.entry.key: item.reason for item in batch if item.reason})
                bar.update(len(batch))
        if not lines:
            key, reason = next(iter(skipped.items()))
            raise DataError(f"no image of {folder} can be read; {key}: {reason}")
        journal.finish(lines, {"made_by": repr(maker), "skipped": skipped})
    return SaliencyBank(bank)


def _occupied(folder: Path) -> bool:
    """Whether there is anything in a folder but the lock and what a killed process has not finished."""
    with refusals_named(folder):
        return folder.is_dir() and any(not path.name.startswith(TEMPORARY) for path in folder.iterdir())


@dataclass(frozen=True)
class _Item:
    """An image file as a reader hands it over: with pixels if its map is missing, with a reason if unreadable."""

    entry: ImageEntry
    sha256: str = ""
    label: int = -1
    image: Tensor | None = None
    reason: str = ""


class _Files(Dataset[_Item]):
    def __init__(
        self, entries: list[ImageEntry], size: tuple[int, int], known: set[tuple[str, int]], labels: bool
    ) -> None:
        self.entries, self.size, self.known, self.labels = entries, size, known, labels

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> _Item:
        entry = self.entries[index]
        label = entry.label if self.labels else -1
        try:
            content = read_regular(entry.path, MAX_BYTES)
            sha256 = hashlib.sha256(content).hexdigest()
            if (sha256, label) in self.known:
                return _Item(entry, sha256, label)
            height, width = self.size
            image = decode_image(content, str(entry.path))
            pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        except DataError as error:
            return _Item(entry, reason=str(error))
        return _Item(entry, sha256, label, torch.from_numpy(pixels.copy()).permute(2, 0, 1))


def _computed(maker: SaliencyBackend, items: list[_Item]) -> list[tuple[_Item, np.ndarray[Any, Any]]]:
    images = [item.image for item in items if item.image is not None]
    if not images:
        return []
    labels = torch.tensor([item.entry.label for item in items])
    maps = maker.coarse(torch.stack(images), labels)
    return list(zip(items, (maps * 255).round().to(torch.uint8).cpu().numpy(), strict=True))


class _Journal:
    """The bank while it grows: maps are on disk before the lines that speak of them."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        self.shape: tuple[int, int] | None = None
        self.known: _Known = {}
        self._take_up()
        self._rows = max((row for row, _ in self.known.values()), default=-1) + 1
        with refusals_named(folder / MAPS), (folder / MAPS).open("ab") as maps:
            maps.truncate(self._rows * self.shape[0] * self.shape[1] if self.shape else 0)

    def line(self, item: _Item) -> IndexLine:
        row, crc32 = self.known[item.sha256, item.label]
        return IndexLine(item.entry.key, item.sha256, item.label, row, crc32)

    def add(self, computed: list[tuple[_Item, np.ndarray[Any, Any]]]) -> None:
        if not computed:
            return
        self._fix_shape(computed[0][1].shape)
        with refusals_named(self.folder / MAPS), (self.folder / MAPS).open("ab") as maps:
            for item, values in computed:
                maps.write(values.tobytes())
                self.known[item.sha256, item.label] = (self._rows, zlib.crc32(values.tobytes()))
                self._rows += 1
            maps.flush()
            os.fsync(maps.fileno())
        with refusals_named(self.folder / INDEX), (self.folder / INDEX).open("a", encoding="utf-8") as index:
            index.writelines(_text(self.line(item)) for item, _ in computed)

    def finish(self, lines: list[IndexLine], about: dict[str, Any]) -> None:
        text = "".join(map(_text, lines)).encode()
        write_whole(self.folder / INDEX, lambda file: file.write(text))
        self._write_header(complete=True, index_sha256=hashlib.sha256(text).hexdigest(), **about)

    def _take_up(self) -> None:
        """Go on where an earlier run with the same settings ended, or begin anew."""
        for name in (HEADER, INDEX, MAPS):
            check_own(self.folder / name)
        if _occupied(self.folder):
            header = read_header(self.folder)
            if header["settings"] == self.settings and header["shape"]:
                self.shape = tuple(header["shape"])
                self.known = _intact(self.folder, self.shape)
                self._write_header(complete=False)
                return
            # The index goes first: without it no map can be mistaken for one of the new settings.
            with refusals_named(self.folder / INDEX):
                (self.folder / INDEX).unlink(missing_ok=True)
        self._write_header(complete=False)

    def _fix_shape(self, shape: tuple[int, ...]) -> None:
        if self.shape is None:
            if max(shape) > LARGEST_SIDE:
                raise DataError(f"a bank's maps have at most {LARGEST_SIDE} pixels a side, the backend gives {shape}")
            self.shape = (shape[0], shape[1])
            self._write_header(complete=False)
        elif shape != self.shape:
            raise DataError(f"the bank's maps have shape {self.shape}, the backend now gives {shape}")

    def _write_header(self, **more: Any) -> None:
        header = {"format": FORMAT, "settings": self.settings, "shape": self.shape, **more}
        content = json.dumps({**header, "sha256": header_sum(header)}, indent=1).encode()
        write_whole(self.folder / HEADER, lambda file: file.write(content + b"\n"))


def _intact(folder: Path, shape: tuple[int, int]) -> _Known:
    """The maps of an earlier run that are whole; a run may have been killed while it wrote."""
    cells = shape[0] * shape[1]
    found: _Known = {}
    if not ((folder / INDEX).exists() and (folder / MAPS).exists()):
        return found
    with open_regular(folder / MAPS) as file:
        count = os.fstat(file.fileno()).st_size // cells
        for text in read_index(folder).splitlines():
            try:
                line = parsed_line(text)
            except UnsoundError:
                continue  # cut off
            if line.row >= count:
                continue  # the map is cut off, or the line is not ours
            file.seek(line.row * cells)
            if zlib.crc32(file.read(cells)) == line.crc32:
                found[line.sha256, line.label] = (line.row, line.crc32)
    return found


def _text(line: IndexLine) -> str:
    return json.dumps(asdict(line)) + "\n"
