"""Safetensors files, read as what anyone may have written: LoRA files, embeddings, tokens, checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sgdmix_albu.errors import DataError
from sgdmix_albu.io.files import open_regular, write_whole
from sgdmix_albu.io.records import UnsoundError, anything, items, mapping, one_of, parse, record, text, whole
from sgdmix_albu.registry import import_optional

if TYPE_CHECKING:
    from torch import Tensor

_DTYPES = ("F64", "F32", "F16", "BF16")
_LONGEST_HEADER = 2**25  # bytes; a whole Stable Diffusion XL has half a million
_TENSOR = record({"dtype": one_of(*_DTYPES), "shape": items(whole(1), most=8), "data_offsets": anything})
_NOTES = mapping(text(longest=_LONGEST_HEADER))  # the header's own texts, such as an adapter's settings


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> None:
    """Write tensors, from wherever they are, into a file that appears whole."""
    save = import_optional("safetensors.torch", extra="diffusion").save
    ready = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_whole(path, lambda file: file.write(save(ready, header and dict(header))))


def read_safetensors(path: str | os.PathLike[str], *, most: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file.

    Args:
        path: The file.
        most: Bytes that it may have, by what it is for: the sizes in it are anyone's.

    Raises:
        DataError: No such file, damaged, larger, tensors that are empty or not of floating point, NaN or infinite
            numbers in them, or a pickle (``.bin``, ``.pt``, ``.ckpt``), with the way to convert it.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise DataError(
            f"expected a .safetensors file, got {path}. Files like .bin, .pt and .ckpt are pickles, which can run any "
            "code when they are read. If you trust it, convert it once: "
            'python -c "import torch, safetensors.torch as s; '
            f"s.save_file(torch.load('{path}', weights_only=True), '{path.with_suffix('.safetensors')}')\""
        )
    safetensors = import_optional("safetensors", extra="diffusion")
    _check_header(path, most)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = dict(file.metadata() or {})
    except Exception as error:  # SafetensorError has no stable home, and odd bytes raise others
        raise DataError(f"cannot read {path}: {error}") from error
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise DataError(
            f"{path} holds NaN or infinite numbers, in {broken[0][:200]!r} and {len(broken)} tensor(s) in all"
        )
    return tensors, header


def _check_header(path: Path, most: int) -> None:
    """Refuse, before anything of such a size is held in memory, what the file says that it holds."""
    with open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        if size > most:
            raise DataError(f"cannot read {path}: it has {size} bytes, expected {most} at most for what it is to be")
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if length > min(size, _LONGEST_HEADER):
            raise DataError(f"cannot read {path}: it is damaged, or no safetensors file")
        content = file.read(length)
    try:
        tensors = parse(content, mapping(anything))
        _NOTES(tensors.pop("__metadata__", {}))
        mapping(_TENSOR)(tensors)
    except UnsoundError as error:
        raise DataError(f"cannot read {path}: {error}") from error
