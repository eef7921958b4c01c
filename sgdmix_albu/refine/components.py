"""The parts of a base model: UNet, autoencoder, scheduler, text encoders; Stable Diffusion 1, 2, Turbo or XL."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgdmix_albu.errors import DataError
from sgdmix_albu.files import sha256_of
from sgdmix_albu.optional import import_optional
from sgdmix_albu.places import settled
from sgdmix_albu.refine.hub import fetch
from sgdmix_albu.refine.schedulers import SCHEDULERS

__all__ = [
    "Components",
    "Encoder",
    "base_fingerprint",
    "base_folder",
    "fingerprint_of",
    "load_base",
    "settled_base",
]

_PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_DECIDING = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
_EMBEDDED = "embedded:"
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
        return like.new_tensor(mean).view(1, -1, 1, 1), like.new_tensor(deviation).view(1, -1, 1, 1)

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
    if name.startswith(_EMBEDDED):
        folder = Path(str(resources.files("sgdmix_albu.refine"))) / "embedded" / name.removeprefix(_EMBEDDED)
        if not folder.is_dir():
            raise DataError(f"there is no embedded base {name!r}; there is 'embedded:aviary'")
        return folder
    path = Path(name).expanduser()
    if path.suffix in _PICKLES or path.suffix == ".safetensors":
        raise DataError(_single_file(path))
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1 or path.exists():
        raise DataError(f"expected a folder in diffusers' layout or a hub id (organisation/name), {name!r} is neither")
    return fetch(name, revision, patterns=_WANTED)


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
    index = _read_index(folder)
    diffusers = import_optional("diffusers", extra="diffusion")
    transformers = import_optional("transformers", extra="diffusion")
    architecture = "sdxl" if index.get("text_encoder_2", [None])[0] else "sd"
    names = ["text_encoder", "text_encoder_2"] if architecture == "sdxl" else ["text_encoder"]
    _check_folders(folder, names)
    variants = {part: _variant(folder / part) for part in ("unet", "vae", *names)}
    _check_channels(folder)

    def load(kind: Any, part: str, **config: Any) -> Any:
        options = {"torch_dtype": dtype, "use_safetensors": True, "output_loading_info": True, **config}
        if variants[part]:
            options["variant"] = variants[part]
        model, told = _loaded(kind, folder / part, **options)
        _check_filled(folder / part, told["missing_keys"])
        return model.to(device).eval().requires_grad_(False)

    def encoder(kind: Any, part: str) -> Encoder:
        tokenizer = _loaded(transformers.CLIPTokenizer, folder / part.replace("text_encoder", "tokenizer"))
        # Older files say 2, by which transformers means "the largest number": a prompt would end at a token of ours.
        return Encoder(part, tokenizer, load(kind, part, eos_token_id=tokenizer.eos_token_id))

    kinds = [transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection]
    return Components(
        unet=load(diffusers.UNet2DConditionModel, "unet").to(memory_format=torch.channels_last),
        vae=load(diffusers.AutoencoderKL, "vae"),
        scheduler=_scheduler(diffusers, index, folder),
        encoders=[encoder(kind, name) for name, kind in zip(names, kinds, strict=False)],
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
    return _loaded(getattr(diffusers, name), folder / "scheduler")


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / "model_index.json"
    try:
        index = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"expected a model folder in diffusers' layout with model_index.json, found none in {folder}"
        ) from error
    except ValueError as error:
        raise DataError(f"cannot read {path}: {error}") from error
    parts: Sequence[str] = ("unet", "vae", "scheduler", "text_encoder", "tokenizer")
    missing = [
        part
        for part in parts
        if not (isinstance(index, dict) and isinstance(index.get(part), list) and len(index[part]) == 2)
    ]
    if missing or index["unet"][1] != "UNet2DConditionModel" or index["vae"][1] != "AutoencoderKL":
        found = index.get("_class_name") if isinstance(index, dict) else None
        raise DataError(
            f"expected Stable Diffusion 1, 2, Turbo or XL, {folder} holds {found or 'something else'}"
            + (f" without {', '.join(missing)}" if missing else "")
        )
    return index  # type: ignore[no-any-return]


def _check_folders(folder: Path, encoders: Sequence[str]) -> None:
    """Said here, because the libraries take the path of a folder that is not there for the name of a hub's."""
    tokenizers = [name.replace("text_encoder", "tokenizer") for name in encoders]
    missing = [part for part in ("unet", "vae", "scheduler", *encoders, *tokenizers) if not (folder / part).is_dir()]
    if missing:
        raise DataError(f"{folder} is not whole: its model_index.json names {missing[0]}, and there is no such folder")


def _check_channels(folder: Path) -> None:
    """Refuse models that are shown more than noisy latents: they would need a mask or a picture beside them."""
    found = []
    for part, name, default in (("unet", "in_channels", 4), ("vae", "latent_channels", 4)):
        try:
            found.append(json.loads((folder / part / "config.json").read_bytes()).get(name, default))
        except (OSError, ValueError, AttributeError) as error:
            raise DataError(f"cannot read {folder / part / 'config.json'}: {error}") from error
    taken, made = found
    if taken != made:
        kind = {9: " (an inpainting model has 9)", 8: " (InstructPix2Pix has 8)"}.get(taken, "")
        raise DataError(
            f"the UNet of {folder} takes {taken} channels{kind}, its autoencoder makes {made}: expected a base for "
            "text-to-image or image-to-image, whose UNet takes the latents alone"
        )


def _variant(folder: Path) -> str | None:
    """Which weights to load: the plain ones (None), or "fp16" where there are no others.

    Raises:
        DataError: No safetensors.
    """
    names = [path.name for path in folder.glob("*.safetensors")]
    if names:
        return "fp16" if all(".fp16" in name for name in names) else None
    pickles = [path.name for path in folder.glob("*") if path.suffix in _PICKLES]
    if not pickles:
        raise DataError(f"expected safetensors in {folder}, found none")
    whole = folder.parent
    raise DataError(
        f"{folder / pickles[0]} is a pickle, which can run any code when it is read, and is not read here. "
        'If you trust it, convert it once: python -c "from diffusers import DiffusionPipeline as P; '
        f"P.from_pretrained('{whole}').save_pretrained('{whole}-safe', safe_serialization=True)\""
    )


def _check_filled(folder: Path, missing: Collection[str]) -> None:
    """A weight that the file lacks would be random, and the libraries only warn."""
    if missing:
        raise DataError(
            f"the weights in {folder} do not fit their config.json: {len(missing)} are missing, "
            f"such as {min(missing)!r}"
        )


def _single_file(path: Path) -> str:
    reason = "may be a pickle, which can run any code when it is read" if path.suffix != ".safetensors" else ""
    return (
        f"expected a folder in diffusers' layout, {path} is a single file{' and ' + reason if reason else ''}. "
        "If you trust it, convert it once: "
        'python -c "from diffusers import StableDiffusionPipeline as P; '
        f"P.from_single_file('{path}').save_pretrained('{path.with_suffix('')}')\""
    )


def _loaded(kind: Any, folder: Path, **options: Any) -> Any:
    try:
        with _no_bars():
            return kind.from_pretrained(folder, local_files_only=True, **options)
    # diffusers, transformers and safetensors each have errors of their own for files that are damaged.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"cannot load {folder}: {reason}") from error


@contextmanager
def _no_bars() -> Iterator[None]:
    """Loading takes a moment; a bar for each of five parts is noise."""
    logging = import_optional("transformers.utils.logging", extra="diffusion")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
