"""The sides of images that a base takes, read from its descriptions before a network is in memory."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sgdmix_albu.io.records import Kind, items, record, whole
from sgdmix_albu.pretrained.configs import read_json
from sgdmix_albu.refine.components import read_index

_NETWORK: Kind = record({"block_out_channels": items(whole(1), least=1, most=8)}, others=True)


class Sides(NamedTuple):
    """In pixels.

    Attributes:
        trained: The side that the base was trained at; None where it does not say.
        multiple: A side must be a multiple of it, for autoencoder and UNet to halve and double it without a rest.
    """

    trained: int | None
    multiple: int


def sides_of(folder: Path) -> Sides:
    """The sides that the base in a folder takes.

    Raises:
        DataError: It is no base, or its descriptions cannot be read.

    Example:
        >>> from sgdmix_albu.refine.components import base_folder
        >>> sides_of(base_folder("embedded:aviary"))
        Sides(trained=64, multiple=16)
    """
    read_index(folder)
    unet, vae = (read_json(folder / part / "config.json", _NETWORK) for part in ("unet", "vae"))
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    sample = unet.get("sample_size")
    known = isinstance(sample, int) and not isinstance(sample, bool) and sample > 0
    return Sides(sample * factor if known else None, factor * 2 ** (len(unet["block_out_channels"]) - 1))
