"""The contract that every saliency backend keeps, enforced in one place."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, ClassVar, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgdmix_albu.arguments import check_count, said
from sgdmix_albu.classifiers.untouched import untouched
from sgdmix_albu.devices import exact
from sgdmix_albu.errors import InvalidInputError, SGDMixError
from sgdmix_albu.mixing.colour import Reading, check_colours, check_finite, extremes, reading_of, to_float
from sgdmix_albu.mixing.masks import rounded
from sgdmix_albu.refusals import read_together, refuse_if
from sgdmix_albu.tensors import FLOATS, PIXELS, check_tensor


class SaliencyBackend(ABC):
    """Images in, saliency maps out.

    ``backend(images, labels)`` takes (B, C, H, W) images and optional (B,) integer labels. A backend that reads
    colours (``wants_rgb``) takes grey or RGB images, uint8, uint16 or float, see
    :func:`sgdmix_albu.mixing.colour.to_rgb`. A function or a model takes the channels that it can read, and gets
    integers divided by their dtype's maximum. It returns (B, H, W) float32 maps in [0, 1] on the
    images' device: finite, each stretched to a minimum of 0 and a maximum of 1, all zeros if the
    raw map is constant, and rounded to 65535 steps, so that the last bits of a processor's arithmetic do not
    matter. No graph is kept, the images are not changed, B may be 0, and the map of an image
    does not depend on the other images of the batch.

    A subclass only writes :meth:`_raw`.

    Args:
        microbatch: The most images per call of :meth:`_raw`, to limit memory; None for a default of the device.
    """

    # True: _raw receives RGB in [0, 1]. False: it receives what the user passed (as float32), which is what
    # a model that was trained on standardised images needs.
    wants_rgb: ClassVar[bool] = True
    # What suits a CPU, whose caches are small, and a GPU; None for all.
    at_once: ClassVar[tuple[int | None, int | None]] = (None, None)
    # False: computed in float32 also under autocast. True: a model or function that autocast may speed up.
    follows_autocast: ClassVar[bool] = False

    @property
    def uses_labels(self) -> bool:
        """Whether an image's map may depend on its label."""
        return True

    def __init__(self, *, microbatch: int | None = None) -> None:
        if microbatch is not None:
            check_count("microbatch", microbatch, "must be a positive integer or None")
        self.microbatch = microbatch

    def settings(self) -> dict[str, Any]:
        """What its maps depend on, apart from the images: a saliency bank is recomputed when this changes."""
        return {name: value for name, value in vars(self).items() if name != "microbatch"}

    def noted(self) -> dict[str, Any]:
        """What a run's manifest says about it, besides its name and options: plain values, no paths of this machine.

        A value under an option's name replaces that option. A resumed run compares it.
        """
        return {}

    @abstractmethod
    def _raw(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Raw saliency of (b, C, H, W) float32 images: (b, h, w), any range, at the method's own resolution."""

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Saliency maps at the images' resolution, (B, H, W)."""
        return resize_maps(self.coarse(images, labels), images.shape[-2:])

    def coarse(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Saliency maps at the method's own resolution, (B, h, w): what mixing uses, because it is cheaper.

        Raises:
            InvalidInputError: Images or labels do not fit the contract.
            SGDMixError: The backend returned something that is not a finite (b, h, w) map.
        """
        _check(images, labels)
        if exact(images) is not images:  # the model that it looks through stays where it is
            return self.coarse(exact(images), exact(labels)).to(images.device)
        if self.wants_rgb:
            check_colours(images)
        if images.shape[0] == 0:
            return images.new_zeros(images.shape[:1] + images.shape[2:], dtype=torch.float32)
        count = len(images)
        suits = self.at_once[0] if images.device.type == "cpu" else self.at_once[1]
        passes = math.ceil(count / (self.microbatch or suits or count))
        step = math.ceil(count / passes)  # passes of one size: a small one at the end would cost as much as a large one
        chunks = []
        with read_together():
            # Asked of the whole batch, so that the size of a microbatch changes nothing.
            reading = reading_of(images) if self.wants_rgb else None
            for start in range(0, count, step):
                part = self._prepare(images[start : start + step].detach(), reading)
                with nullcontext() if self.follows_autocast else torch.autocast(part.device.type, enabled=False):
                    raw = self._raw(part, None if labels is None else labels[start : start + step])
                chunks.append(self._finished(raw, images, start, len(part)))
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks)

    def _prepare(self, images: Tensor, reading: Reading | None) -> Tensor:
        """What :meth:`_raw` receives."""
        if reading is None:
            floats = to_float(images)
            return floats.clone() if floats is images else floats  # a function may write into what it is given
        return reading.rgb(images)

    def _finished(self, raw: Tensor, images: Tensor, start: int, count: int) -> Tensor:
        """The raw maps of ``count`` images from ``start`` on, checked and stretched."""
        name = type(self).__name__
        if not isinstance(raw, Tensor) or raw.ndim != 3 or raw.shape[0] != count or 0 in raw.shape:
            came = f"shape {tuple(raw.shape)}" if isinstance(raw, Tensor) else type(raw).__name__
            raise SGDMixError(f"{name} must return a ({count}, h, w) tensor of maps, got {came}")
        if raw.dtype not in PIXELS or raw.layout != torch.strided or raw.device.type == "meta":
            raise SGDMixError(
                f"{name} must return dense maps of real numbers, got {raw.dtype}, {raw.layout}, {raw.device}"
            )
        raw = raw.detach().to(images.device)
        raw = raw if raw.dtype == torch.float64 else raw.float()
        # Extremes carry every NaN and infinity, and are fewer to look through than the maps.
        low, high = extremes(raw.flatten(1))
        broken = ~(low.isfinite() & high.isfinite())

        def error() -> SGDMixError:
            check_finite(images)  # whose fault it is
            bad = [i for i, is_bad in enumerate(broken.tolist(), start) if is_bad]
            return SGDMixError(f"{name} gave NaN or infinite saliency for image(s) {bad} of the batch")

        refuse_if(broken, error)
        return rounded(_stretched(raw, low, high).double())

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Attribution(Protocol):
    """A ready attribution object, as those of ``captum.attr`` are."""

    @property
    def attribute(self) -> Callable[..., Any]:
        """Images and what to explain in, attributions out."""
        ...


Saliency: TypeAlias = (
    str | os.PathLike[str] | SaliencyBackend | Callable[..., SaliencyBackend] | Callable[[Tensor], Tensor] | Attribution
)
"""What ``saliency=`` takes: a backend's name, the path of a distilled network, a backend or its class, a function
(B, C, H, W) -> (B, h, w), or a ``captum.attr`` attribution."""


class FunctionBackend(SaliencyBackend):
    """A function or object ``(B, C, H, W) -> (B, h, w)`` as a backend; ``(B, 1, h, w)`` works too.

    The function gets a float32 copy of the images (integers divided by their dtype's maximum)
    and returns a tensor of finite maps of any range and resolution. It gets no labels. A
    module runs in evaluation mode and is left unchanged.

    Example:
        >>> import torch
        >>> backend = FunctionBackend(lambda images: images.mean(1))
        >>> backend(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 8, 8])
    """

    wants_rgb = False
    follows_autocast = True
    uses_labels = False

    def __init__(self, function: Callable[[Tensor], Tensor], *, microbatch: int | None = None) -> None:
        super().__init__(microbatch=microbatch)
        if not callable(function):
            raise InvalidInputError(f"expected a function (B, C, H, W) -> (B, h, w), got {said(function)}")
        self.function = function

    def _raw(self, images: Tensor, labels: Tensor | None) -> Tensor:
        used = untouched(self.function) if isinstance(self.function, nn.Module) else nullcontext()
        with used:
            maps = self.function(images)
        single = isinstance(maps, Tensor) and maps.ndim == 4 and maps.shape[1] == 1
        return maps[:, 0] if single else maps

    def __repr__(self) -> str:
        return f"FunctionBackend({self.function!r})"


def normalize_maps(maps: Tensor) -> Tensor:
    """Stretch each (h, w) map of a (B, h, w) batch to [0, 1]; a constant map becomes zeros.

    Example:
        >>> import torch
        >>> normalize_maps(torch.tensor([[[1.0, 3.0]], [[2.0, 2.0]]]))
        tensor([[[0., 1.]],
        <BLANKLINE>
                [[0., 0.]]])
    """
    check_tensor(maps, "(B, h, w) floating-point maps", (-1, -1, -1), FLOATS)
    if maps.numel() == 0:
        return maps
    low, high = extremes(maps.flatten(1))
    refuse_if(
        ~(low.isfinite() & high.isfinite()),
        lambda: InvalidInputError(
            f"expected maps of finite numbers, got values from {float(low.min()):g} to {float(high.max()):g}"
        ),
    )
    return _stretched(maps, low, high)


def resize_maps(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Bring (B, h, w) maps to ``size`` = (H, W) by bilinear interpolation; unchanged if they fit already."""
    height, width = size
    if maps.shape[-2:] == (height, width):
        return maps
    if maps.shape[0] == 0:
        return maps.new_zeros(0, height, width)
    return F.interpolate(maps[:, None], size=(height, width), mode="bilinear", align_corners=False)[:, 0]


def _stretched(maps: Tensor, low: Tensor, high: Tensor) -> Tensor:
    span = high - low
    # A span below float32's own rounding of the values is noise, not contrast.
    flat = span <= torch.finfo(torch.float32).eps * torch.maximum(low.abs(), high.abs())
    scale = torch.where(flat, torch.zeros_like(span), 1 / span.clamp_min(torch.finfo(maps.dtype).tiny))
    return ((maps - low[:, None, None]) * scale[:, None, None]).clamp_(0, 1)


def _check(images: Tensor, labels: Tensor | None) -> None:
    check_tensor(images, "a (B, C, H, W) image tensor of integers or floats", (-1, None, None, None), PIXELS)
    if labels is not None:
        expected = f"one label for each of {len(images)} images as a (B,) integer tensor"
        check_tensor(labels, expected, (len(images),), PIXELS, more=True)
