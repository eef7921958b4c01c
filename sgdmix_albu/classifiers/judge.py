"""A classifier, and everything needed to use it on the images of a data set."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgdmix_albu.classifiers.loading import open_classifier
from sgdmix_albu.classifiers.untouched import untouched
from sgdmix_albu.devices import exact_device, working_device
from sgdmix_albu.errors import DataError, InvalidInputError, SGDMixError
from sgdmix_albu.mixing.colour import IMAGENET, Normalization, to_float
from sgdmix_albu.tensors import check_images, sent
from sgdmix_albu.types import Normalize

_SHOWN = 64  # images at once


@dataclass(frozen=True)
class Judge:
    """A classifier for the images of a data set.

    Using it leaves no trace on the model: it runs in evaluation mode, without gradients, and each submodule's mode and
    every buffer are restored. Images go to its device, a few at a time; results come back to theirs.

    Attributes:
        model: (B, 3, H, W) to logits (B, N).
        outputs: The model's output for each class of the data; None if unknown, or if they are the
            model's own in order.
        normalize: How to normalise pixels in [0, 1]: "imagenet" or "none"; or a mean
            and a deviation, one number per channel each.
        name: What errors call it.
        sha256: Of its weights file, or None.
        side: Images are brought to side x side for it; None where it takes any size.
        device: Where the model is brought before it is first asked; None to leave it where it is.

    Example:
        >>> judge = Judge(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), (2, 0), "none")
        >>> red = torch.tensor([255, 0, 0], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 4, 4)
        >>> judge(red), judge.logits(red)
        (tensor([[0., 1.]]), tensor([[1., 0., 0.]]))
    """

    model: nn.Module
    outputs: tuple[int, ...] | None
    normalize: Normalize | Normalization
    name: str = "the classifier"
    sha256: str | None = None
    side: int | None = None
    device: torch.device | None = None

    def pixels(self, images: Tensor) -> Tensor:
        """What the model is shown: float32, normalised, at its size, where it works; it is brought there.

        Args:
            images: (B, 3, H, W), uint8, or float in [0, 1]; the dtype decides, nothing is guessed from the values.

        Raises:
            InvalidInputError: Another shape or dtype, or floats outside [0, 1].
        """
        check_images(images, f"for {self.name}")
        return self._brought(images)

    def _brought(self, images: Tensor) -> Tensor:
        if self.device is not None:
            try:
                self.model.to(self.device)
            except Exception as error:  # there is no driver, or no room; torch has many kinds
                raise SGDMixError(f"{self.name} cannot be moved to {self.device}: {_told(error)}") from error
        parameter = self._parameter()
        home = None if parameter is None else parameter.device
        unit = to_float(images if home is None else sent(images, exact_device(home)))
        if self.normalize != "none":
            statistics = IMAGENET if self.normalize == "imagenet" else self.normalize
            mean, std = sent(torch.tensor(statistics, dtype=unit.dtype), unit.device)[..., None, None]
            unit = (unit - mean) / std
        if self.side is not None and unit.shape[-2:] != (self.side, self.side):
            unit = F.interpolate(unit, size=(self.side, self.side), mode="bilinear", antialias=True)
        return unit if home is None else unit.to(home)

    def _parameter(self) -> Tensor | None:
        return next((one for one in self.model.parameters() if one.is_floating_point()), None)

    def logits(self, images: Tensor) -> Tensor:
        """All of the model's outputs, (B, N), on the images' device.

        Args:
            images: As in :meth:`pixels`.

        Raises:
            InvalidInputError: What it gave are no logits.
            SGDMixError: The model does not take such images.
        """
        check_images(images, f"for {self.name}")
        waiting, answers = deque(torch.split(images, _SHOWN)), list[Tensor]()
        while waiting:
            part = waiting.popleft()
            answer = self._shown(part)
            if answer is None:
                waiting.extendleft(reversed(part.chunk(2)))
            else:
                answers.append(answer)
        return torch.cat(answers).to(images.device)

    def _shown(self, images: Tensor) -> Tensor | None:
        """What the model gives; None where memory ran out and fewer images may do: others may share the GPU."""
        try:
            pixels = self._brought(images)
            parameter = self._parameter()
            with untouched(self.model), torch.no_grad():
                said = self.model(pixels if parameter is None else pixels.to(parameter.dtype))
        except SGDMixError:
            raise
        # The model's own complaint, of any kind: a transformer that takes one size only, memory that runs out.
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError) and len(images) > 1:
                return None
            raise SGDMixError(f"{self.name} failed on images of {tuple(images.shape)}: {_told(error)}") from error
        logits = getattr(said, "logits", said)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
            came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InvalidInputError(f"{self.name} must return logits ({len(images)}, K), got {came}")
        return logits

    def __call__(self, images: Tensor) -> Tensor:
        """Logits of the data's classes, (B, K), on the images' device; errors as of :meth:`logits`."""
        logits = self.logits(images)
        return logits if self.outputs is None else logits[:, list(self.outputs)]

    def outputs_of(self, labels: Tensor) -> Tensor | None:
        """The output that stands for each label, (B,) int64, on the labels' device; None where they are not known."""
        return None if self.outputs is None else torch.tensor(self.outputs, device=labels.device)[labels]

    def names(self, images: Tensor, labels: Tensor) -> Tensor:
        """(N,) bool: whether each image is given its label, among all of the model's outputs.

        Args:
            images: (N, 3, H, W), as in :meth:`pixels`.
            labels: (N,) int64.
        """
        found = self.logits(images).argmax(1)
        labels = labels.to(found.device)
        wanted = self.outputs_of(labels)
        return found == (labels if wanted is None else wanted)


def _told(error: Exception) -> str:
    """An error of torch in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def open_judge(
    model: str | os.PathLike[str] | nn.Module,
    classes: Sequence[str],
    *,
    arch: str | None = None,
    class_names: str | os.PathLike[str] | None = None,
    normalize: Normalize = "imagenet",
    must_know: bool = False,
    device: torch.device | str | None = None,
) -> Judge:
    """Load a classifier, and find its output for each class of the data.

    Args:
        model: A weights file; see :func:`sgdmix_albu.classifiers.open_classifier`. Or a module, whose outputs are the
            data's classes in their order.
        classes: The data's classes in the order of their labels; empty where it has none.
        arch: Architecture of the weights file, if the file does not name it.
        class_names: File with the names of the outputs, one per line, unless the weights file holds them.
        normalize: "imagenet", unless the weights file says what it expects itself, or "none".
        must_know: Refuse a classifier that does not know the classes.
        device: Where one from a file works: "cpu", "cuda", "mps", ...; None for a GPU if there is one. A module stays
            where it is.

    Raises:
        InvalidInputError: ``normalize`` or ``device`` is unknown, or the weights file does not fit ``class_names``.
        DataError: A file cannot be read, or the classes are not known and must be.
    """
    if normalize not in get_args(Normalize):
        raise InvalidInputError(f"normalize must be 'imagenet' or 'none', got {normalize!r}")
    if isinstance(model, nn.Module):
        return Judge(model, tuple(range(len(classes))) or None, normalize, type(model).__name__)
    found = open_classifier(model, arch, class_names=class_names)
    outputs = found.outputs_for(classes) if classes else None
    if class_names is not None and classes and not {*classes} & {*(found.class_names or classes)}:
        raise InvalidInputError(
            f"no name in {os.fspath(class_names)} ({', '.join((found.class_names or ())[:3])}, ...) is a class of the "
            f"data ({', '.join(classes[:3])}, ...)"
        )
    if outputs is None and must_know:
        raise DataError(
            f"the teacher {os.fspath(model)} has {found.num_classes} outputs and does not know the classes "
            f"{', '.join(classes[:3])}, ...; name its outputs with --class-names"
        )
    own = found.normalization if normalize == "imagenet" else None
    known = None if outputs is None else tuple(outputs)
    place = working_device(device)
    return Judge(found.model, known, own or normalize, found.arch, found.sha256, device=place)
