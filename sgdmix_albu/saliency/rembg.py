"""The segmenters of the package rembg (U2-Net, BiRefNet, ISNet, ...), run by ONNX Runtime. rembg lives here alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info

from sgdmix_albu.arguments import check_text
from sgdmix_albu.errors import DataError, InvalidInputError, MissingExtraError, SGDMixError, UnknownNameError
from sgdmix_albu.io.files import sha256_of
from sgdmix_albu.registry import import_optional, install_command, nearest_names
from sgdmix_albu.saliency.base import SaliencyBackend


class Rembg(SaliencyBackend):
    """Salient object segmentation by one of rembg's networks: the best masks here by far, and the slowest.

    rembg's session does all the work, including the resizing to the network's input (320 x 320 for U2-Net, 1024 x 1024
    for BiRefNet); its 8-bit mask is the map. If a session returns several masks, as for clothes, the map is their
    union. "sam" segments what is in the middle of the image. One image at a time.

    Nothing is downloaded: the weights must be where rembg keeps them, in ``U2NET_HOME`` if that is set. The backend
    checks for them when it is made, and each process loads them with its first image: on a GPU if
    ``onnxruntime-gpu`` has one, in loader workers on the CPU.

    Each network has its own licence: U2-Net's is Apache 2.0, BRIA's forbids commercial use without a contract.

    Args:
        session: rembg's name of the network: "u2net", "isnet-general-use", "birefnet-general", ...
        model_path: Weights file for sessions with names that end in "_custom"; it must be inside rembg's folder.
        microbatch: As in every backend; but images go through the network one by one.

    Raises:
        UnknownNameError: rembg has no such session.
        InvalidInputError: A session that sends images to a company, or a ``model_path`` that is missing or elsewhere.
        DataError: The weights are missing (the message has the command that fetches them), or unreadable.
        MissingExtraError: The packages of ``sgdmix-albu[rembg]`` are not installed, or too old.

    Example:
        >>> Rembg(session=320)
        Traceback (most recent call last):
        ...
        sgdmix_albu.errors.InvalidInputError: session must be a string that is not empty, got 320
    """

    uses_labels = False

    def __init__(
        self, *, session: str = "u2net", model_path: str | os.PathLike[str] | None = None, microbatch: int | None = None
    ) -> None:
        super().__init__(microbatch=microbatch)
        check_text(session=session)
        if model_path is not None:
            check_text(model_path=os.fspath(model_path) if isinstance(model_path, os.PathLike) else model_path)
        self.session = session
        self.model_path = None if model_path is None else os.fspath(model_path)
        self._opened: tuple[int, Any] | None = None  # the process, and its session
        self._weights()

    def settings(self) -> dict[str, Any]:
        """The session and what its weights are, wherever they lie."""
        return {"session": self.session, "sha256": [sha256_of(path) for path in self._weights()]}

    def noted(self) -> dict[str, Any]:
        """Without the weights' folder."""
        path = {} if self.model_path is None else {"model_path": Path(self.model_path).name}
        return {**self.settings(), **path}

    def _raw(self, images: Tensor, labels: Tensor | None) -> Tensor:
        session = self._running()
        pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        maps = [self._mask(session, Image.fromarray(one)) for one in pixels]
        return torch.from_numpy(np.stack(maps))

    def _mask(self, session: Any, image: Image.Image) -> np.ndarray[Any, Any]:
        """(H, W) uint8 of one image."""
        try:
            # Sessions divide by the range of what the network gave, also where it gave the same everywhere.
            with np.errstate(divide="ignore", invalid="ignore"):
                masks = session.predict(image)
        # Of any kind: ONNX Runtime has errors of its own, for memory that runs out among other things.
        except Exception as error:
            raise SGDMixError(
                f"rembg's session {self.session!r} failed on an image of {image.height} x {image.width}: "
                f"{str(error) or type(error).__name__}"
            ) from error
        union: np.ndarray[Any, Any] = np.stack([np.asarray(mask.convert("L")) for mask in masks]).max(0)
        return union

    def _running(self) -> Any:
        """The session of this process: the threads of one that was opened before a fork are not there any more."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._weights()
            self._opened = (os.getpid(), self._open())
        return self._opened[1]

    def _open(self) -> Any:
        options = import_optional("onnxruntime", extra="rembg").SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()  # one, in a loader's worker
        # A worker may be forked from a process that uses the GPU, and cannot use it then.
        providers = {} if get_worker_info() is None else {"providers": ["CPUExecutionProvider"]}
        try:
            return _offline(self.session)(self.session, options, **self._path(), **providers)
        # ONNX Runtime's errors have no common kind.
        except Exception as error:
            raise DataError(f"cannot load the weights of rembg's session {self.session!r}: {error}") from error

    def _weights(self) -> list[Path]:
        """The session's files.

        Raises:
            DataError: One is not there.
        """
        try:
            found = _offline(self.session).download_models(**self._path())
        except SGDMixError:
            raise
        except ValueError as error:  # what rembg says of ``model_path``
            raise InvalidInputError(f"rembg's session {self.session!r}: {error}") from error
        paths = [Path(path) for path in ([found] if isinstance(found, str | os.PathLike) else found)]
        for path in paths:
            if not path.is_file():
                raise DataError(f"expected the weights of rembg's session {self.session!r} in {path}, found no file")
        return paths

    def _path(self) -> dict[str, str]:
        return {} if self.model_path is None else {"model_path": self.model_path}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": None}

    def __repr__(self) -> str:
        return f"Rembg({self.session!r})"


def _offline(name: str) -> Any:
    """The class of a session, with the one method replaced by which it learns that it must download."""
    import_optional("onnxruntime", extra="rembg")  # rembg ends the process where it is missing
    sessions = import_optional("rembg.sessions", extra="rembg").sessions
    if name not in sessions:
        raise UnknownNameError(
            f"rembg has no session {name!r}{nearest_names(name, sorted(sessions)) or '.'} Known: {', '.join(sessions)}"
        )
    kind = sessions[name]
    if not hasattr(kind, "resolve_existing"):
        raise MissingExtraError(f"rembg 2.0.86 or later is needed; run: {install_command('rembg')}")
    if not kind.is_local():
        raise InvalidInputError(f"rembg's session {name!r} sends every image to a company's computers; choose another")

    def resolve_existing(cls: Any, file: str, *args: Any, **kwargs: Any) -> str:
        found: str | None = kind.resolve_existing(file, *args, **kwargs)
        if found is None:
            raise DataError(
                f"no weights of rembg's session {name!r}: {file} is neither in {kind.model_dir()} nor in "
                f"{kind.legacy_home()} (U2NET_HOME names another folder), and nothing is downloaded here. Where there "
                f"is a network, run: python -c \"import rembg; rembg.new_session('{name}')\""
            )
        return found

    return type(kind.__name__, (kind,), {"resolve_existing": classmethod(resolve_existing)})
