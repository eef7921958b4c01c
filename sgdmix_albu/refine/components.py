"""The parts of a base model: UNet, autoencoder, scheduler, text encoders; Stable Diffusion 1, 2, Turbo or XL."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgdmix_albu.errors import DataError
from sgdmix_albu.io.files import sha256_of
from sgdmix_albu.io.places import settled
from sgdmix_albu.io.records import items, optional, record, text
from sgdmix_albu.pretrained.configs import check_encoder, check_model, check_scheduler, read_json
from sgdmix_albu.pretrained.hub import folder_of
from sgdmix_albu.pretrained.parts import PICKLES, load_model, load_tokenizer, loaded
from sgdmix_albu.refine.catalogue import download_command
from sgdmix_albu.refine.schedulers import SCHEDULERS
from sgdmix_albu.registry import import_optional
from sgdmix_albu.tensors import sent

_DECIDING = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
EMBEDDED = "embedded:"
# No "*fp16*": the plain file is what every repository has, and it is cast on loading.
_WANTED = (
    "model_index.json",
    "*/*.json",
    "*/*.txt",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model-*.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "text_encoder_2/model.safetensors",
)


@dataclass
class Encoder:
    """A text encoder with its tokenizer.

    Attributes:
        name: "text_encoder" or "text_encoder_2", as in diffusers' folders.
        tokenizer: A CLIP tokenizer.
        model: A CLIP text model.
    """

    name: str
    tokenizer: Any
    model: Any


@dataclass
class Components:
    """A loaded base model.

    Attributes:
        unet: ``UNet2DConditionModel``.
        vae: ``AutoencoderKL``.
        scheduler: Any of diffusers' schedulers.
        encoders: One text encoder, or two for "sdxl".
        architecture: "sd" or "sdxl".
        settings: ``model_index.json``: a few booleans besides the names of the parts.
        folder: Where it was loaded from.
    """

    unet: Any
    vae: Any
    scheduler: Any
    encoders: list[Encoder]
    architecture: str
    settings: dict[str, Any]
    folder: Path

    @property
    def dtype(self) -> torch.dtype:
        """Of the UNet's weights."""
        return self.unet.dtype  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        return self.unet.device  # type: ignore[no-any-return]

    def widen_vae(self) -> None:
        """Bring an autoencoder whose activations overflow half precision (Stable Diffusion XL's) to single.

        Stable Diffusion 1 and 2 stay: their configs do not mention ``force_upcast``, which diffusers takes for True.
        """
        upcast = self.architecture == "sdxl" and getattr(self.vae.config, "force_upcast", False)
        if self.vae.dtype == torch.float16 and upcast:
            self.vae = self.vae.float()

    def scaled(self, latents: Tensor) -> Tensor:
        """The autoencoder's latents (B, C, h, w) as the UNet is shown them."""
        mean, deviation = self._statistics(latents)
        return (latents - mean) * self.vae.config.scaling_factor / deviation  # type: ignore[no-any-return]

    def unscaled(self, latents: Tensor) -> Tensor:
        """The other way round."""
        mean, deviation = self._statistics(latents)
        return latents * deviation / self.vae.config.scaling_factor + mean  # type: ignore[no-any-return]

    def _statistics(self, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Mean and deviation of the latents of each channel, where the autoencoder's description names them."""
        config = self.vae.config
        mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if mean is None or deviation is None:
            return 0.0, 1.0
        both = sent(torch.tensor([mean, deviation], dtype=like.dtype), like.device)
        return both[0].view(1, -1, 1, 1), both[1].view(1, -1, 1, 1)

    @property
    def factor(self) -> int:
        """Pixels of one latent, each way."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)  # type: ignore[no-any-return]

    @property
    def multiple(self) -> int:
        """Sides of images must be multiples of it, for the UNet to halve and double them without a rest."""
        return self.factor * 2 ** (len(self.unet.config.block_out_channels) - 1)  # type: ignore[no-any-return]


def base_folder(base: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The local folder of a base model.

    Args:
        base: A folder in diffusers' layout, ``"embedded:NAME"``, or a hub id, ``"organisation/name"``.
        revision: Commit of a hub id.

    Raises:
        DataError: No such folder, a kind of file that is not read, or the hub cannot be reached.
    """
    name = os.fspath(base)
    if name.startswith(EMBEDDED):
        folder = Path(str(resources.files("sgdmix_albu.refine"))) / "embedded" / name.removeprefix(EMBEDDED)
        if not re.fullmatch(r"[\w-]+", folder.name) or name != EMBEDDED + folder.name or not folder.is_dir():
            raise DataError(f"there is no embedded base {name!r}; there is 'embedded:aviary'")
        return folder
    path = Path(name).expanduser()
    if path.suffix in PICKLES or path.suffix == ".safetensors":
        reason = "" if path.suffix == ".safetensors" else " and may be a pickle, which can run any code when it is read"
        raise DataError(
            f"expected a folder in diffusers' layout, {path} is a single file{reason}. "
            "If you trust it, convert it once: "
            'python -c "from diffusers import StableDiffusionPipeline as P; '
            f"P.from_single_file('{path}').save_pretrained('{path.with_suffix('')}')\""
        )
    command = download_command(path.name or "sd15")
    return folder_of(name, revision, patterns=_WANTED, kind="a folder in diffusers' layout", command=command)


def settled_base(base: str | os.PathLike[str]) -> str:
    """A base's name that means the same from any folder: an absolute path where it is a folder, else as it is."""
    return settled(base) if Path(base).expanduser().is_dir() else os.fspath(base)


def base_fingerprint(folder: Path) -> str:
    """SHA-256 over the files of a base that decide what it makes: networks, tokenizers and scheduler.

    Raises:
        DataError: A file cannot be read.
    """
    return fingerprint_of(*(part for part in folder.iterdir() if part.is_dir() and part.name.startswith(_DECIDING)))


def fingerprint_of(*parts: Path) -> str:
    """SHA-256 over the names and the content of all files in some of a base's folders, in any order.

    Raises:
        DataError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for part in sorted(parts):
        for path in sorted(path for path in part.rglob("*") if path.is_file()):
            digest.update(f"{path.relative_to(part.parent).as_posix()} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def load_base(
    base: str | os.PathLike[str],
    *,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Components:
    """Load a base model, from safetensors only and without any code of the repository's own.

    Args:
        base: As in :func:`base_folder`. A local folder never touches the network.
        revision: Commit of a hub id.
        dtype: Of the weights.
        device: Where they go.

    Raises:
        DataError: Not a Stable Diffusion folder, a part missing or damaged, or weights that would be unpickled.

    Example:
        >>> load_base("embedded:aviary").architecture
        'sd'
    """
    folder = base_folder(base, revision)
    index, architecture = read_index(folder)
    diffusers = import_optional("diffusers", extra="diffusion")
    transformers = import_optional("transformers", extra="diffusion")
    names = ["text_encoder", "text_encoder_2"] if architecture == "sdxl" else ["text_encoder"]
    kinds = {"unet": diffusers.UNet2DConditionModel, "vae": diffusers.AutoencoderKL}
    configs = {part: check_model(folder / part, kind) for part, kind in kinds.items()}
    _check_channels(folder, configs["unet"].get("in_channels", 4), configs["vae"].get("latent_channels", 4))
    unet, vae = (load_model(kind, folder / part, configs[part], dtype).to(device) for part, kind in kinds.items())

    def encoder(kind: Any, part: str) -> Encoder:
        config = check_encoder(folder / part)
        tokenizer = load_tokenizer(folder / part.replace("text_encoder", "tokenizer"), config)
        # Older files say 2, by which transformers means "the largest number": a prompt would end at a token of ours.
        model = load_model(kind, folder / part, {**config, "eos_token_id": tokenizer.eos_token_id}, dtype)
        return Encoder(part, tokenizer, model.to(device))

    encoders = (transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection)
    return Components(
        unet=unet.to(memory_format=torch.channels_last),
        vae=vae,
        scheduler=_scheduler(diffusers, index, folder),
        encoders=[encoder(kind, name) for name, kind in zip(names, encoders, strict=False)],
        architecture=architecture,
        settings={key: value for key, value in index.items() if isinstance(value, bool)},
        folder=folder,
    )


def _scheduler(diffusers: Any, index: dict[str, Any], folder: Path) -> Any:
    name = index["scheduler"][1]
    if name not in SCHEDULERS:
        raise DataError(
            f"{folder} names the scheduler {name!r}, which cannot take an image to an image here; "
            f"expected one of {', '.join(SCHEDULERS)}"
        )
    check_scheduler(folder / "scheduler")
    return loaded(getattr(diffusers, name), folder / "scheduler")


def read_index(folder: Path) -> tuple[dict[str, Any], str]:
    """What a base says of itself in ``model_index.json``, and its architecture, "sd" or "sdxl".

    Raises:
        DataError: Not a Stable Diffusion folder, or a part is not there.
    """
    path = folder / "model_index.json"
    if not path.exists():
        raise DataError(f"expected a model folder in diffusers' layout with model_index.json, found none in {folder}")
    pair = items(optional(text(300)), least=2, most=2)
    parts = ("unet", "vae", "scheduler", "text_encoder", "tokenizer")
    named = dict.fromkeys((*parts, "text_encoder_2", "tokenizer_2"), pair)
    index: dict[str, Any] = read_json(path, record({}, may=named, others=True))
    missing = [part for part in parts if part not in index]
    if missing or index["unet"][1] != "UNet2DConditionModel" or index["vae"][1] != "AutoencoderKL":
        raise DataError(
            f"expected Stable Diffusion 1, 2, Turbo or XL, {folder} holds "
            f"{str(index.get('_class_name') or 'something else')[:80]}"
            + (f" without {', '.join(missing)}" if missing else "")
        )
    two = bool(index.get("text_encoder_2", [None])[0])
    # Said here, because the libraries take the path of a folder that is not there for the name of a hub's.
    whole = (*parts, "text_encoder_2", "tokenizer_2") if two else parts
    absent = [part for part in whole if not (folder / part).is_dir()]
    if absent:
        raise DataError(f"{folder} is incomplete: its model_index.json names {absent[0]}, but there is no such folder")
    return index, "sdxl" if two else "sd"


def _check_channels(folder: Path, taken: int, made: int) -> None:
    """Refuse models that are shown more than noisy latents: they would need a mask or a picture beside them."""
    if taken != made:
        kind = {9: " (an inpainting model has 9)", 8: " (InstructPix2Pix has 8)"}.get(taken, "")
        raise DataError(
            f"the UNet of {folder} takes {taken} channels{kind}, its autoencoder makes {made}: expected a base for "
            "text-to-image or image-to-image, with a UNet that takes only latents"
        )
