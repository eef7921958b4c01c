"""Weights files: data, never code, and no more of it than the file has.

A safetensors file, or a file that ``torch.load(weights_only=True)`` accepts. Anyone may have made it: what it says of
itself is checked against its size before memory is taken for it.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickletools
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import safetensors
import torch
from torch import Tensor

from sgdmix_albu.errors import DataError
from sgdmix_albu.io.files import open_regular
from sgdmix_albu.io.records import Kind, UnsoundError, items, number, optional, parse, record, text
from sgdmix_albu.mixing.colour import Normalization

_WRAPPERS = re.compile(r"^(module\.)?(_orig_mod\.)?")  # left by DistributedDataParallel and torch.compile
_NESTED = ("state_dict", "model", "model_state_dict")

_MOST = 2**35  # bytes; the largest classifiers have 20 GB
_MOST_PICKLED = 2**24  # bytes of names and shapes, which are beside the numbers; published files have some 100 KB
_NOT_DENSE = ("sparse_tensor", "sparse_csr_tensor", "nested_tensor", "meta_tensor_no_storage")
# PyTorch lets these calls pass. Weights need none of them: a few bytes ask for any amount of memory with the
# first two, and the others make tensors that are not dense.
_CALLS = frozenset({"bytearray", "encode", *(f"_rebuild_{kind}" for kind in _NOT_DENSE)})
_LEGACY_PICKLES = 5  # before the numbers in files of PyTorch 1.5 and earlier
# Of pixels in [0, 1], one number for each channel.
_PIXELS = record(
    {
        "mean": items(number(-1e6, 1e6), least=3, most=3),
        "std": items(number(1e-6, 1e6), least=3, most=3),
    }
)


@dataclass(frozen=True)
class Checkpoint:
    """What a weights file holds.

    Attributes:
        path: The file.
        tensors: Parameters and buffers by name.
        arch: The architecture's name, if the file gives it.
        class_names: Names of the model's outputs in their order, where the file gives them.
        normalization: Mean and deviation of the pixels that the model expects, where the file gives them.
        sha256: Of the file.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    arch: str | None
    class_names: tuple[str, ...] | None
    normalization: Normalization | None
    sha256: str


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a weights file without running any code that it may hold.

    Training checkpoints are understood where the parameters lie under ``state_dict``, ``model`` or
    ``model_state_dict``; the prefixes that DistributedDataParallel and ``torch.compile`` leave are dropped.

    Raises:
        DataError: The file cannot be read or holds no tensors, or holds more than data, or less than it says.
    """
    path = Path(path).expanduser()
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _MOST:
            raise DataError(f"cannot read the weights {path}: it has {size} bytes, the limit is {_MOST}")
        try:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"cannot read the weights {path}: {error.strerror or error}") from error
        content, notes = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path, file, size)
    tensors = {_WRAPPERS.sub("", str(key)): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise DataError(f"{path} holds no parameters; save them with torch.save(model.state_dict(), path)")
    for name, value in tensors.items():
        if value.numel() * value.element_size() > size:  # the same number for all of its elements
            raise DataError(
                f"{name!r} in {path} has the shape {tuple(value.shape)}, for which {size} bytes are too few"
            )
    names = _note(path, notes, "class_names", items(_class_name))
    pixels = _note(path, notes, "pixels", _PIXELS)
    return Checkpoint(
        path=path,
        tensors=tensors,
        arch=_note(path, notes, "arch", text(200)),
        class_names=None if names is None else tuple(names),
        normalization=None if pixels is None else (tuple(pixels["mean"]), tuple(pixels["std"])),
        sha256=digest,
    )


def _read_safetensors(path: Path) -> tuple[Mapping[str, Any], dict[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            notes: dict[str, Any] = dict(file.metadata() or {})
            names = file.keys()  # the file itself cannot be iterated
            content = {name: file.get_tensor(name) for name in names}
        for name, kind in (("class_names", items(_class_name)), ("pixels", _PIXELS)):
            if name in notes:
                notes[name] = parse(notes[name], optional(kind))
    # safetensors has one error of its own and passes on others; all mean that the file is damaged.
    except Exception as error:
        raise DataError(f"cannot read the weights {path}: {error}") from error
    return content, notes


def _read_torch(path: Path, file: io.BufferedReader, size: int) -> tuple[Mapping[str, Any], dict[str, Any]]:
    try:
        _check_pickles(file, size)
        file.seek(0)
        content = torch.load(file, map_location="cpu", weights_only=True)
    # The unpickler meets damaged files with errors of many kinds.
    except Exception as error:
        raise DataError(
            f"cannot read the weights {path}: not a file of dense tensors only, or damaged; "
            "save them with torch.save(model.state_dict(), path)"
        ) from error
    if not isinstance(content, Mapping):
        raise DataError(f"expected named parameters in {path}, found {type(content).__name__}")
    for key in _NESTED:
        if isinstance(content.get(key), Mapping):
            return content[key], dict(content)
    return content, {}


def _check_pickles(file: io.BufferedReader, size: int) -> None:
    """Refuse what would take far more memory than the file: packed numbers, and calls that ask for it."""
    file.seek(0)
    if file.read(4) != b"PK\3\4":
        file.seek(0)
        for _ in range(_LEGACY_PICKLES):
            _check_pickle(file)
        return
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("its entries are compressed or nested; torch.save does neither")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                with archive.open(entry) as content:
                    _check_pickle(content)


def _check_pickle(file: IO[bytes]) -> None:
    begin = file.tell()
    for operation, argument, place in pickletools.genops(file):
        if (place or 0) - begin > _MOST_PICKLED:
            raise ValueError(f"more than {_MOST_PICKLED} bytes of names and shapes")
        if operation.name == "GLOBAL" and str(argument).rpartition(" ")[2] in _CALLS:
            raise ValueError(f"it calls {argument}")


def _note(path: Path, notes: Mapping[str, Any], name: str, kind: Kind) -> Any:
    """What the file says of its model; None where it says nothing."""
    value = notes.get(name)
    try:
        return optional(kind)(list(value) if isinstance(value, tuple) else value)
    except UnsoundError as error:
        raise DataError(f"{name} in {path}: {error}") from error


def _class_name(value: Any) -> str:
    """A name; a number is one too."""
    name: str = text(1000)(str(value) if isinstance(value, int) and not isinstance(value, bool) else value)
    return name
