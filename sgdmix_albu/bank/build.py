"""Building a saliency bank: resumable at any point, and nothing half-written looks whole."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from sgdmix_albu import __version__
from sgdmix_albu.arguments import check_switch
from sgdmix_albu.bank import parts
from sgdmix_albu.bank.describe import Read, described
from sgdmix_albu.bank.map_source import MapSource, open_saliency
from sgdmix_albu.bank.maps import AGAIN, FORMAT, HEADER, INDEX, SaliencyBank, header_sum, read_header
from sgdmix_albu.bank.parts import LARGEST_SIDE, Entry, Parts
from sgdmix_albu.datasets.pixels import Loaded, to_pixels
from sgdmix_albu.datasets.source import Item, open_source
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.io.files import TEMPORARY, check_own, refusals_named
from sgdmix_albu.io.images import class_folders, decode_image
from sgdmix_albu.io.lock import locked
from sgdmix_albu.io.outputs import local_output
from sgdmix_albu.io.places import check_apart
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.io.records import line
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.io.threads import default_jobs, ordered_map
from sgdmix_albu.saliency.base import Saliency
from sgdmix_albu.saliency.fingerprint import fingerprint
from sgdmix_albu.saliency.resolve import get_backend
from sgdmix_albu.settings import SaliencySettings
from sgdmix_albu.types import BEST_SALIENCY, SERVED, Normalize

_MOST = 2**26  # bytes of maps that are held
_OFTEN = 30.0  # seconds after which what was computed is written, for a slow backend takes hours for a part
_Content = tuple[bytes, int]  # SHA-256 of an image's file, and the class that its map explains or -1


def build_bank(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    backend: Saliency,
    *,
    size: int | tuple[int, int] = 224,
    batch_size: int = 32,
    workers: int = 0,
    overwrite: bool = False,
    progress: bool = True,
    **options: Any,
) -> SaliencyBank:
    """Compute the saliency maps of a class-per-folder image tree that are missing from ``out``.

    A map is recomputed only if the image's content changed. A bank of another backend, other
    options, another model (architecture or weights), ``size`` or version of this package is refused. If
    interrupted, make the same call to resume. Maps are stored as uint8 at the backend's own resolution (64 x 64 bytes
    an image for spectral residual). One process at a time may build a bank; a second one is refused.

    Args:
        folder: One folder per class; the classes' indices are the labels that model-based backends explain.
        out: The bank's folder, created if needed.
        backend: What :func:`get_backend` takes.
        size: (H, W), or one number for both, that images are resized to before the backend sees them; the maps
            cover the whole image whatever its proportions.
        batch_size: Images per call of the backend.
        workers: Threads that read the images; 0 for one per core.
        overwrite: Replace a bank that was made with other settings.
        progress: Whether to show a progress bar.
        **options: The backend's.

    Returns:
        The bank, opened. Images that cannot be read, that the backend refuses, or that lie in no class folder are left
        out and listed in its ``skipped``.

    Raises:
        DataError: ``folder`` has no readable image; ``out`` holds something else or a bank of other
            settings, or cannot be written; or another process builds it.
        InvalidInputError: Invalid options.

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
    check_switch(overwrite=overwrite)
    check_apart(out, folder)
    bank = local_output(out)
    maker = get_backend(backend, **options)
    source = open_source(folder)
    made_by = fingerprint([type(maker), maker.settings()])
    settings = {"backend": made_by, "size": [height, width], "version": __version__}
    if _occupied(bank):
        read_header(bank)  # an error if the folder holds something else
    with locked(bank, "build_bank"):
        growth = _Growth(bank, settings, labelled=maker.uses_labels, overwrite=overwrite)
        skipped = list(source.skipped)
        reading = ordered_map(partial(growth.read, size=(width, height)), source.items, workers or default_jobs())
        told = Progress(quiet=not progress).over(reading, repr(maker), len(source.items))
        # Where it has made maps before, a backend that refuses all that is left refuses those images alone.
        hopeless = len(source.items) + 1 if growth.known else 1
        computed = described(growth.missing(told), MapSource(maker), None, skipped, batch=batch_size, hopeless=hopeless)
        growth.add(computed)
        if not growth.contents:
            raise DataError(f"no image of {folder} can be read; {skipped[0]}")
        growth.finish([item.key for item in source.items], {"made_by": repr(maker), "skipped": dict(skipped)})
    return SaliencyBank(bank)


def make_bank(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    saliency: str = BEST_SALIENCY,
    saliency_options: Mapping[str, Any] | None = None,
    model: str | os.PathLike[str] | None = None,
    arch: str | None = None,
    class_names: str | os.PathLike[str] | None = None,
    normalize: Normalize = "imagenet",
    size: int = 224,
    batch: int = 16,
    workers: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> SaliencyBank:
    """Compute the maps of a class-per-folder tree that are missing; see :func:`build_bank`.

    Use the result as ``"bank:OUT"`` in ``mix``, ``generate``, ``audit``, ``drift``, ``distil`` and ``finetune``.
    A map belongs to a file's content, not to its place: an image that was changed or added later has none, and is
    refused by name. A map covers its whole image, whatever size the image is resized to.

    Args:
        data: One folder per class.
        out: The bank's folder, created if needed.
        saliency: A backend's name, or the path of a distilled network.
        saliency_options: Options of the backend: text, numbers, True or False.
        model: Weights of the classifier that the backend looks through.
        arch: Its architecture in torchvision or timm, if the file does not name it.
        class_names: Text file with the names of its outputs, one per line.
        normalize: How to normalise pixels in [0, 1] for it: "imagenet" or "none".
        size: Side in pixels to which images are resized before the backend sees them, whatever their shape.
        batch: Images per call of the backend.
        workers: Threads that read images; 0 for one per core.
        overwrite: Replace a bank that was made with other settings.
        progress: Whether to show a bar.

    Raises:
        InvalidInputError: Invalid settings.
        UnknownNameError: No such backend or architecture.
        DataError: No images, unreadable weights, or ``out`` holds something else, or a bank of other settings.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sgdmix_albu.datasets import get_dataset
        >>> from sgdmix_albu.datasets.tree import write_tree
        >>> root = Path(tempfile.mkdtemp())
        >>> write_tree(get_dataset("aviary", per_species=1, size=48), root / "birds")
        >>> bank = make_bank(root / "birds", root / "maps", saliency="spectral_residual", size=48, progress=False)
        >>> len(bank), bank.shape
        (12, (64, 64))
    """
    if str(saliency).startswith(SERVED):
        raise InvalidInputError(f"a bank is made of what a backend computes, got {saliency!r}")
    classes = class_folders(data) if model is not None else ()
    settings = SaliencySettings(saliency, model, arch, class_names, normalize, saliency_options or {})
    backend = open_saliency(settings, classes).backend
    assert not isinstance(backend, SaliencyBank)  # refused above
    return build_bank(
        data, out, backend, size=size, batch_size=batch, workers=workers, overwrite=overwrite, progress=progress
    )


class _Growth:
    """A bank while it grows: what was computed is in its parts; the index and the finished header come last.

    Attributes:
        contents: The content of each image that has a map, by its key.
        known: What has had one since before.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, labelled: bool, overwrite: bool) -> None:
        for path in (folder / HEADER, folder / INDEX, *sorted(folder.glob("part-*"))):
            check_own(path)
        self.storage, self.settings, self.labelled = Storage(folder), settings, labelled
        self.parts = Parts(self.storage, AGAIN)
        self.contents: dict[str, _Content] = {}
        self._begun = False
        if not _occupied(folder):
            self._begin()
        else:
            header = read_header(folder)
            changed = [name for name in settings if header["settings"][name] != settings[name]]
            if changed and not overwrite:
                raise DataError(
                    f"the saliency bank in {folder} was made with another {', '.join(changed)}: name another folder, "
                    "or replace it with overwrite=True, --overwrite on the command line"
                )
            if changed or not header["complete"]:
                self._begin()
            if changed:
                for number in self.parts.numbers():
                    self.parts.remove(number)
            elif "shape" in header:
                self.parts.shape = tuple(header["shape"])
        self.known: set[_Content] = set()
        for number in self.parts.numbers():
            rows = self.parts.repaired(number)
            self.known.update(zip(map(bytes, rows["sha256"]), rows["label"].tolist(), strict=True))
            if len(rows):
                self.parts.shape = self.parts.read(number).shape

    def read(self, item: Item, size: tuple[int, int]) -> tuple[Item, Loaded | str | bytes]:
        """An image of ``size`` = (width, height); or its file's SHA-256 if its map is there; or why there is none."""
        try:
            content = item.reader.read(item.key)
            sha256 = hashlib.sha256(content).digest()
            if (sha256, self._label(item)) in self.known:
                return item, sha256
            image = decode_image(content, item.reader.path(item.key)).resize(size, Image.Resampling.BILINEAR)
        except DataError as error:
            return item, str(error)
        return item, Loaded(to_pixels(image), sha256)

    def missing(self, reading: Iterable[tuple[Item, Loaded | str | bytes]]) -> Iterator[Read]:
        """The images that have no map yet; the others are noted."""
        for item, found in reading:
            if isinstance(found, bytes):
                self.contents[item.key] = found, self._label(item)
            else:
                yield item, found

    def add(self, computed: Iterable[Entry]) -> None:
        """Write parts of what is computed; a bank that is finished is so until there is something."""
        number = max(self.parts.numbers(), default=-1) + 1
        for entries in _portions(computed):
            self._begin()
            for one in entries:
                self._check_shape(one.map.shape)
                one.row["label"] = one.row["label"] if self.labelled else -1
                self.contents[one.key] = bytes(one.row["sha256"]), int(one.row["label"])
            self.parts.write(number, entries, range(len(entries)))
            number += 1

    def finish(self, keys: Iterable[str], about: dict[str, Any]) -> None:
        """Write which image has which map, and that the bank is complete."""
        found = ((key, *self.contents[key]) for key in keys if key in self.contents)
        index = b"".join(line({"key": key, "sha256": sha256.hex(), "label": label}) for key, sha256, label in found)
        self.storage.write(INDEX, index)
        about |= {"index_sha256": hashlib.sha256(index).hexdigest(), "shape": self.parts.shape}
        self._write_header(complete=True, parts=self.parts.numbers(), **about)

    def _label(self, item: Item) -> int:
        return item.label if self.labelled else -1

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if max(shape) > LARGEST_SIDE:
            raise DataError(f"a bank's maps have at most {LARGEST_SIDE} pixels a side, the backend gives {shape}")
        self.parts.shape = self.parts.shape or (shape[0], shape[1])
        if shape != self.parts.shape:
            raise DataError(f"the bank's maps have shape {self.parts.shape}, the backend now gives {shape}")

    def _begin(self) -> None:
        """The bank is not finished, until it says so again."""
        if not self._begun:
            self._write_header(complete=False)
        self._begun = True

    def _write_header(self, **more: Any) -> None:
        header = {"format": FORMAT, "settings": self.settings, **more}
        self.storage.write(HEADER, json.dumps({**header, "sha256": header_sum(header)}, indent=1).encode() + b"\n")


def _portions(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """What is written together: a part, less where maps are large, or what was computed in half a minute."""
    portion: list[Entry] = []
    since = time.monotonic()
    for one in entries:
        portion.append(one)
        full = len(portion) == parts.PART or len(portion) * one.map.size >= _MOST
        if full or time.monotonic() - since > _OFTEN:
            yield portion
            portion, since = [], time.monotonic()
    if portion:
        yield portion


def _occupied(folder: Path) -> bool:
    """Whether there is anything in a folder but the lock and what a killed process has not finished."""
    with refusals_named(folder):
        return folder.is_dir() and any(not path.name.startswith(TEMPORARY) for path in folder.iterdir())
