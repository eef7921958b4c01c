"""Segmenters that are told in words what to look for: CLIPSeg and SAM 3, as transformers runs them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sgdmix_albu.errors import DataError, InvalidInputError, MissingExtraError
from sgdmix_albu.io.records import flag, items, number, one_of, optional, record, whole
from sgdmix_albu.pretrained.configs import check_segmenter, read_json
from sgdmix_albu.pretrained.hub import folder_of
from sgdmix_albu.pretrained.parts import load_model, load_tokenizer
from sgdmix_albu.registry import import_optional, install_command

_KINDS = {"clipseg": "CLIPSegForImageSegmentation", "sam3": "Sam3Model"}
_FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
_SAM3_WORDS = 32  # tokens that a prompt of SAM 3 is padded to
_RESAMPLING = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers

_SIDE = whole(8, 8192)
_SIDES = record({"height": _SIDE, "width": _SIDE})
_PIXELS = record(
    {
        "image_mean": items(number(0, 1), least=3, most=3),
        "image_std": items(number(0, 1, above=True), least=3, most=3),
    },
    may={
        # Files of the first versions have one number; what an image's shape would be kept by is not read here.
        "size": lambda value: _SIDE(value) if isinstance(value, int) else _SIDES(value),
        "resample": optional(one_of(*_RESAMPLING)),
        "do_normalize": optional(one_of(True)),
        "do_rescale": optional(one_of(True)),
        "do_resize": optional(one_of(True)),
        "do_center_crop": optional(one_of(False)),
        "do_pad": optional(flag),
    },
    others=True,
)


def segmenter_folder(model: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The local folder of a segmenter.

    Args:
        model: A folder as transformers saves one, which never touches the network; or a hub id.
        revision: Commit of a hub id, 40 hexadecimal digits.

    Raises:
        InvalidInputError: A hub id without a commit.
        DataError: Neither a folder nor a hub id, or the hub cannot be reached.
    """
    kind = "a folder with a CLIPSeg or SAM 3 model"
    return folder_of(model, revision, patterns=_FILES, kind=kind, local="model=FOLDER")


def segmenter_files(folder: Path) -> list[Path]:
    """The files in a folder that decide what its segmenter answers, sorted."""
    return sorted({path for pattern in _FILES for path in folder.glob(pattern)})


@dataclass(frozen=True)
class _Pixels:
    """How a network wants its images: (H, W), mean and deviation of each colour, and how they are resized."""

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mode: str

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] as the network wants it."""
        resized = F.interpolate(images, self.size, mode=self.mode, antialias=True, align_corners=False).clamp(0, 1)
        mean, std = (resized.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (resized - mean) / std


class Segmenter:
    """A CLIPSeg or SAM 3 network in memory, in evaluation mode, with what it needs of pixels and words.

    Args:
        folder: As :func:`segmenter_folder` finds one. Safetensors and JSON only; nothing in it is run.
        prompt: What to look for.

    Raises:
        DataError: A file is missing, damaged, of another network, or leads to code.
        InvalidInputError: The prompt is too long.
        MissingExtraError: transformers is missing, or too old for SAM 3.
    """

    def __init__(self, folder: Path, prompt: str) -> None:
        config = check_segmenter(folder)
        name = _KINDS[config["model_type"]]
        kind = getattr(import_optional("transformers", extra="text"), name, None)
        if kind is None:
            raise MissingExtraError(f"transformers has no {name}; run: {install_command('text')}")
        self._pixels = _read_pixels(folder)
        self._words = _read_prompt(folder, prompt, config)
        self._model = load_model(kind, folder, config, torch.float32)
        self._of_parts = config["model_type"] == "sam3"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """How much each pixel belongs to what the prompt names, (B, h, w) in [0, 1].

        CLIPSeg's logits, or the semantic output of SAM 3, which stands for all objects of the prompt together, through
        the sigmoid.

        Args:
            images: (B, 3, H, W) float32 RGB in [0, 1]. The network goes where they are.
        """
        model = self._model.to(images.device)
        words = {name: ids.to(images.device).expand(len(images), -1) for name, ids in self._words.items()}
        found = model(pixel_values=self._pixels(images), **words)
        logits: Tensor = found.semantic_seg if self._of_parts else found.logits
        return logits.reshape(len(images), *logits.shape[-2:]).sigmoid()


def _read_pixels(folder: Path) -> _Pixels:
    """What ``preprocessor_config.json`` says, or the images' part of ``processor_config.json``, as it is called now."""
    path = folder / "preprocessor_config.json"
    if path.exists():
        found = read_json(path, _PIXELS)
    elif (folder / "processor_config.json").exists():
        found = read_json(folder / "processor_config.json", record({"image_processor": _PIXELS}, others=True))
        found = found["image_processor"]
    else:
        raise DataError(f"expected {path}, which says how the network wants its images, found none")
    side = found.get("size", {"height": 224, "width": 224})
    size = (side, side) if isinstance(side, int) else (side["height"], side["width"])
    mode = _RESAMPLING[found.get("resample") or 2]
    return _Pixels(size, tuple(found["image_mean"]), tuple(found["image_std"]), mode)


def _read_prompt(folder: Path, prompt: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask`` (1, n) of a prompt."""
    encoder = config.get("text_config") or {}
    tokenizer = load_tokenizer(folder, encoder)
    padding = {"padding": "max_length", "max_length": _SAM3_WORDS} if config["model_type"] == "sam3" else {}
    found = tokenizer(prompt, return_tensors="pt", verbose=False, **padding)
    most = min(_SAM3_WORDS, tokenizer.model_max_length) if padding else tokenizer.model_max_length
    if found.input_ids.shape[1] > most:
        raise InvalidInputError(f"prompt may have {most} tokens, {prompt!r} has {found.input_ids.shape[1]}")
    return {name: found[name] for name in ("input_ids", "attention_mask")}
