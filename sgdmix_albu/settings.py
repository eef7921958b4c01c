"""Every setting, defined once: name, default, help and check.

The transforms, :mod:`sgdmix_albu.expand`, the audit and the command line read them here; a test compares them.
The command's help is the text under "Attributes".
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from numbers import Integral, Real
from typing import Any, get_args

from sgdmix_albu.arguments import (
    check_choice,
    check_count,
    check_counts,
    check_number,
    check_plain,
    check_seed,
    check_sequence,
    check_side,
    check_switch,
    check_text,
)
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.types import (
    BEST_FILL,
    BEST_MASK,
    BEST_SALIENCY,
    DISTILLED,
    SERVED,
    Fill,
    ImageFormat,
    Normalize,
    Place,
    Preserve,
    TargetClass,
)

_CHUNK, _SHARD = 32, 512  # rows that are processed together: of files, and of a tar shard
_SEGMENTERS = ("rembg", "text")


@dataclass(frozen=True, kw_only=True)
class MixSettings:
    """How images are mixed: stages 2 to 4, without the saliency.

    Attributes:
        p: Probability that an image is mixed.
        candidates: Candidates drawn for each image (the paper: 30 to 50).
        target_class: "any", or only targets of the "same" or a "different" class.
        fill: What replaces the target's object. "inpaint" paints it over, then pastes the source by its own mask.
            "source" keeps the source's pixels there: the paper's union mask.
        place: Where the source's object goes: "source", where it was; "random", scaled and moved at random on the
            painted background (with fill "inpaint" only).
        max_coverage: The largest share of an image that the union mask may cover. With "inpaint", it limits the
            source's mask and the painted hole, each.
        feather: Width in pixels of the fade outside the mask; 0 is the paper's hard edge. By default 0 with
            "source", and a soft border of one pixel with "inpaint".

    Raises:
        InvalidInputError: An invalid value.

    Example:
        >>> MixSettings(p=2)
        Traceback (most recent call last):
        ...
        sgdmix_albu.errors.InvalidInputError: p must be a probability in [0, 1], got 2
    """

    p: float = 1.0
    candidates: int = 50
    target_class: TargetClass = "any"
    fill: Fill = BEST_FILL
    place: Place = "source"
    max_coverage: float = 0.95
    feather: float | None = None

    @classmethod
    def of(cls, owner: Any) -> MixSettings:
        """The settings in an object's attributes of the same names: a transform, whose attributes users may change."""
        return cls(**{setting.name: getattr(owner, setting.name) for setting in fields(cls)})

    def __post_init__(self) -> None:
        check_number("p", self.p, "must be a probability in [0, 1]", low=0, high=1)
        check_count("candidates", self.candidates, "must be a positive integer")
        check_number("max_coverage", self.max_coverage, "must lie in (0, 1]", low=0, high=1, open_low=True)
        check_choice("target_class", self.target_class, get_args(TargetClass))
        if self.feather is not None:
            check_number("feather", self.feather, "must be a width in pixels, 0 or more, or None", low=0, high=math.inf)
        check_choice("fill", self.fill, get_args(Fill))
        check_choice("place", self.place, get_args(Place))
        if self.place == "random" and self.fill != "inpaint":
            raise InvalidInputError(
                f"place='random' needs a background without an object: fill='inpaint', got fill={self.fill!r}"
            )


@dataclass(frozen=True)
class ClassifierSettings:
    """A classifier in a file.

    Attributes:
        model: Its weights: safetensors, or ``torch.save(model.state_dict())``.
        arch: Its architecture in torchvision or timm; needed if the weights file does not name it.
        class_names: Text file with the names of its outputs, one per line; needed if the weights file does not name
            them and they are not the sorted class folders.
        normalize: How to normalise pixels in [0, 1] for it: "imagenet" (ImageNet's mean and deviation, unless the file
            names others) or "none".
    """

    model: str | os.PathLike[str] | None = None
    arch: str | None = None
    class_names: str | os.PathLike[str] | None = None
    normalize: Normalize = "imagenet"

    def __post_init__(self) -> None:
        check_choice("normalize", self.normalize, get_args(Normalize))
        check_classifier(self.model, arch=self.arch, class_names=self.class_names, normalize=self.normalize)


def check_classifier(model: Any, **about: Any) -> None:
    """Refuse what is said of a classifier that is not there: it would do nothing.

    Args:
        model: The classifier, or None.
        **about: ``arch``, ``class_names`` and ``normalize``.

    Raises:
        InvalidInputError: No classifier, and something is said of it.
    """
    for name, value in about.items():
        if model is None and value not in (None, "imagenet"):
            raise InvalidInputError(
                f"{name}={os.fspath(value)!r} is about a classifier, and none is given: add its weights, --model FILE "
                "(a teacher's: --teacher FILE)"
            )


@dataclass(frozen=True)
class SaliencySettings:
    """Which saliency backend, and the classifier that it looks through, if it needs one.

    Attributes:
        saliency: Saliency backend: a name, the path of a distilled network, or ``bank:FOLDER``.
        model: As in :class:`ClassifierSettings`, and the next three.
        arch: The architecture of the weights.
        class_names: Names of the outputs.
        normalize: How to normalise pixels for the classifier.
        options: An option of the saliency backend, such as ``session=u2net``; may be repeated.

    Raises:
        InvalidInputError: Other options.
    """

    saliency: str = BEST_SALIENCY
    model: str | os.PathLike[str] | None = None
    arch: str | None = None
    class_names: str | os.PathLike[str] | None = None
    normalize: Normalize = "imagenet"
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_text(saliency=self.saliency)
        check_choice("normalize", self.normalize, get_args(Normalize))
        check_classifier(self.model, arch=self.arch, class_names=self.class_names, normalize=self.normalize)
        object.__setattr__(self, "options", check_plain(self.options))  # a copy, so that nobody changes it later

    @property
    def classifier(self) -> ClassifierSettings | None:
        """What the backend looks through."""
        how = (self.model, self.arch, self.class_names, self.normalize)
        return None if self.model is None else ClassifierSettings(*how)


@dataclass(frozen=True)
class RefinerSettings:
    """Which refiner, and how it works (stage 5).

    Attributes:
        name: Its key or its folder; "none" to only mix.
        base: Base model, if not the refiner's: a folder in diffusers' layout or a hub id.
        strengths: Translation strengths to draw from, if not the refiner's. Or "adaptive": for each image the
            largest strength at which a teacher still predicts the source's class.
        preserve: How strongly to protect the object: "none" (the paper), "soft" or "strict".
        hole_strength: Strength in the holes that "inpaint" painted, if not the image's.
        steps: Denoising steps at strength 1, if not the refiner's.
        guidance: Classifier-free guidance scale, if not the refiner's.
        scheduler: One of diffusers' schedulers, if not the base's.
        dtype: Dtype of the weights: float32, float16 or bfloat16. By default float16 on CUDA and XPU, else float32.
        loras: More LoRA files, for all images.
        device: Device: "cpu", "cuda", "mps", ... By default a GPU if there is one.
        compile: Compile the network; saves time in long runs.
    """

    name: str = "none"
    base: str | None = None
    strengths: tuple[float, ...] | str | None = None
    preserve: Preserve = "strict"
    hole_strength: float | None = None
    steps: int | None = None
    guidance: float | None = None
    scheduler: str | None = None
    dtype: str | None = None
    loras: tuple[str, ...] = ()
    device: str | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        check_text(refiner=self.name)
        check_choice("preserve", self.preserve, get_args(Preserve))
        check_switch(compile=self.compile)
        if isinstance(self.strengths, str):
            check_choice("strengths", self.strengths, ("adaptive",))
        elif self.strengths is not None:
            check_sequence(self.strengths, "strengths")
            for strength in self.strengths:
                check_number("strengths", strength, "must lie in (0, 1]", low=0, high=1, open_low=True)
            object.__setattr__(self, "strengths", tuple(self.strengths))  # a copy, so that nobody changes it later
        check_sequence(self.loras, "loras")
        object.__setattr__(self, "loras", tuple(self.loras))
        check_counts(steps=self.steps)
        if self.guidance is not None:
            check_number("guidance", self.guidance, "must be 0 or more", low=0, high=math.inf)
        if self.dtype is not None:
            check_choice("dtype", self.dtype, ("float32", "float16", "bfloat16"))

    @property
    def adaptive(self) -> bool:
        """Whether a teacher decides the strengths."""
        return self.strengths == "adaptive"


@dataclass(frozen=True, kw_only=True)
class FileSettings:
    """Which images are read, and how they are written.

    Attributes:
        size: Resize all images to size x size. By default each keeps its size.
        image_format: Format of the images written, "png" or "jpg".
        shards: Write tar shards for WebDataset instead of single files.
    """

    size: int | None = None
    image_format: ImageFormat = "png"
    shards: bool = False

    def __post_init__(self) -> None:
        check_side(size=self.size)
        check_choice("image_format", self.image_format, get_args(ImageFormat))
        check_switch(shards=self.shards)


@dataclass(frozen=True)
class Settings(MixSettings, FileSettings):
    """Everything that the outputs depend on, besides the images. Checked on creation.

    It also has the attributes that :class:`MixSettings` and :class:`FileSettings` have: ``p``, ``candidates``,
    ``target_class``, ``fill``, ``place``, ``max_coverage`` and ``feather``; ``size``, ``image_format`` and ``shards``.

    Attributes:
        saliency: Saliency backend: a name, a path or ``bank:FOLDER``; or :class:`SaliencySettings`, if the backend
            has options or looks through a classifier.
        mask: Mask preset, by name.
        multiplier: New images from each image.
        seed: The same seed gives the same outputs.
        keep_unmixed: Copy images that could not be mixed, rather than skip them.
        min_agreement: Use only images with masks that contain at least this share of the object that a better backend
            sees, as sources and as targets. 0 asks no other backend.
        agreement_with: That better backend.

    Raises:
        InvalidInputError: An invalid value.

    Example:
        >>> Settings("manifold_ranking", multiplier=2, fill="source").candidates
        50
    """

    saliency: str | SaliencySettings = BEST_SALIENCY
    mask: str = BEST_MASK
    _: KW_ONLY
    multiplier: int = 5
    seed: int = 0
    keep_unmixed: bool = False
    min_agreement: float = 0
    agreement_with: str = BEST_SALIENCY

    def __post_init__(self) -> None:
        MixSettings.__post_init__(self)
        FileSettings.__post_init__(self)
        check_text(mask=self.mask)
        check_number("min_agreement", self.min_agreement, "must lie in [0, 1]", low=0, high=1)
        check_text(agreement_with=self.agreement_with)
        self._check_judge()
        check_switch(keep_unmixed=self.keep_unmixed)
        check_counts(multiplier=self.multiplier)
        check_seed(self.seed)
        # Written as JSON, which takes Python's own numbers only.
        for one in fields(self):
            value = getattr(self, one.name)
            if not isinstance(value, bool) and isinstance(value, Real):
                object.__setattr__(self, one.name, int(value) if isinstance(value, Integral) else float(value))

    def _check_judge(self) -> None:
        """Refuse a backend that would judge itself, or that may be better than the default judge."""
        judge, saliency = self.reference, self.backend.saliency
        if judge == saliency:
            raise InvalidInputError(
                f"min_agreement compares masks with those of a better backend, got {saliency!r} for both: "
                "set agreement_with (--agreement) to a better one"
            )
        may_be_better = saliency in _SEGMENTERS or saliency.startswith(SERVED) or saliency.endswith(DISTILLED)
        if judge == BEST_SALIENCY and may_be_better:
            raise InvalidInputError(
                f"the default judge {judge!r} may be worse than {saliency!r}: "
                "set agreement_with (--agreement) to a better one"
            )

    @property
    def backend(self) -> SaliencySettings:
        """The saliency backend, and what it looks through."""
        return self.saliency if isinstance(self.saliency, SaliencySettings) else SaliencySettings(self.saliency)

    @property
    def reference(self) -> str | None:
        """The better backend that masks are compared with, if any."""
        return self.agreement_with if self.min_agreement > 0 else None

    @property
    def chunk(self) -> int:
        """Rows that are worked on together."""
        return _SHARD if self.shards else _CHUNK
