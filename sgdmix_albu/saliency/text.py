"""Saliency by a prompt: what it names, not what stands out."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from sgdmix_albu.arguments import check_text
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.io.files import sha256_of
from sgdmix_albu.pretrained.segmenter import Segmenter, segmenter_files, segmenter_folder
from sgdmix_albu.saliency.base import SaliencyBackend


class Text(SaliencyBackend):
    """Segmentation of what a prompt names, by CLIPSeg (Lüddecke and Ecker, CVPR 2022) or SAM 3 (Carion et al., 2025).

    If a photograph shows a hand and a bird, saliency finds both; this finds the bird. The map is the
    network's probability of each pixel, at its own resolution, stretched like every map: an image without the object
    still gets a map, of whatever is most like it.

    The network is loaded from safetensors with the first image and runs in single precision on the images' device.
    A pickle holds the settings only.

    Args:
        prompt: What to look for, in the singular: "bird".
        model: A folder as transformers saves one (``hf download ID --revision COMMIT --local-dir FOLDER``), or a hub
            id. Nothing in it is run.
        revision: Commit of a hub id, 40 hexadecimal digits: a branch may mean other weights tomorrow.
        microbatch: The most images in the network at once, to limit memory; None for all.

    Raises:
        InvalidInputError: A prompt that is not text or too long, or a hub id without a commit.
        DataError: No such folder, or another kind of network in it.
        MissingExtraError: The packages of ``sgdmix-albu[text]`` are not installed.

    Example:
        >>> Text(prompt="bird", model="CIDAS/clipseg-rd64-refined")
        Traceback (most recent call last):
        ...
        sgdmix_albu.errors.InvalidInputError: there is no folder 'CIDAS/clipseg-rd64-refined'; if it is a hub id, it \
needs revision=, the commit's 40 hexadecimal digits
    """

    uses_labels = False

    def __init__(
        self, *, prompt: str, model: str | os.PathLike[str], revision: str | None = None, microbatch: int | None = None
    ) -> None:
        super().__init__(microbatch=microbatch)
        check_text(prompt=prompt)
        if not isinstance(model, os.PathLike):
            check_text(model=model)
        self.prompt, self.model, self.revision = prompt, os.fspath(model), revision
        self._folder = segmenter_folder(model, revision)
        if not (self._folder / "config.json").is_file():
            raise InvalidInputError(f"expected model to be a folder with config.json and weights, got {self.model!r}")
        self._segmenter: Segmenter | None = None

    def settings(self) -> dict[str, Any]:
        """The prompt and what the network's files are, wherever they lie."""
        digest = hashlib.sha256()
        for path in segmenter_files(self._folder):
            digest.update(f"{path.name} {sha256_of(path)}\n".encode())
        return {"prompt": self.prompt, "sha256": digest.hexdigest()}

    def noted(self) -> dict[str, Any]:
        """Without the folder that the network's own lies in."""
        local = Path(self.model).expanduser().is_dir()
        return {**self.settings(), "model": self._folder.resolve().name if local else self.model}

    def _raw(self, images: Tensor, labels: Tensor | None) -> Tensor:
        if self._segmenter is None:
            self._segmenter = Segmenter(self._folder, self.prompt)
        return self._segmenter(images)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_segmenter": None}

    def __repr__(self) -> str:
        return f"Text({self.prompt!r}, {self.model!r})"
