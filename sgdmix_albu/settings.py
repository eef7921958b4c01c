"""What users may set, each thing once: its name, its default, its help, and what is refused.

The faces, :mod:`sgdmix_albu.expand`, the audit and the command line take them from here; a test compares what they say.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args

from sgdmix_albu.arguments import (
    check_choice,
    check_count,
    check_counts,
    check_number,
    check_plain,
    check_sequence,
    check_switch,
    check_text,
)
from sgdmix_albu.types import (
    BEST_FILL,
    BEST_SALIENCY,
    Fill,
    ImageFormat,
    Normalize,
    Preserve,
    TargetClass,
)

__all__ = [
    "ClassifierSettings",
    "FileSettings",
    "MixSettings",
    "RefinerSettings",
    "SaliencySettings",
    "option",
]


def option(default: Any, text: str, metavar: str | None = None, **more: Any) -> Any:
    """A field that a command offers too: its default, its help, and what stands for its value there.

    Args:
        default: What holds where nothing is said; a class or function that makes it where it may be changed.
        text: The help of the command, without the default.
        metavar: What stands for the value in the help.
        **more: ``flag``, where the command calls it otherwise.
    """
    made = {"default_factory": default} if callable(default) else {"default": default}
    return field(**made, metadata={"help": text, "metavar": metavar, **more})


@dataclass(frozen=True, kw_only=True)
class MixSettings:
    """How images are mixed: stages 2 to 4, without what finds the objects.

    Attributes:
        p: Probability that an image is mixed.
        candidates: N, candidates drawn for each image (the paper: 30 to 50).
        target_class: "any", or only targets of the "same" or a "different" class.
        fill: What stands where the target's own object was. "source": the source's pixels, by the paper's union mask.
            "inpaint": the object is painted over, and the source is pasted by its own mask.
        max_coverage: The largest share of an image that a union mask may cover; with "inpaint", that the source's
            mask may, and the hole that is painted.
        feather: Width in pixels of the fade outside the mask; 0 is the paper's hard edge. None: 0 with "source", a
            soft border of one pixel with "inpaint".

    Raises:
        InvalidInputError: A value that means nothing.

    Example:
        >>> MixSettings(p=2)
        Traceback (most recent call last):
        ...
        sgdmix_albu.errors.InvalidInputError: p must be a probability in [0, 1], got 2
    """

    p: float = option(1.0, "probability that an image is mixed", "P")
    candidates: int = option(50, "candidates drawn for each image", "N")
    target_class: TargetClass = option("any", "which targets may be chosen")
    fill: Fill = option(BEST_FILL, "what stands where the target's object was: the source's pixels, or paint")
    max_coverage: float = option(0.95, "largest share that may be kept, or painted over", "F")
    feather: float | None = option(
        None, "fade outside the mask (default: 0 with --fill source, a soft border with inpaint)", "PX"
    )

    @classmethod
    def of(cls, owner: Any) -> MixSettings:
        """What an object holds as attributes of the same names: a face, where users may change them."""
        return cls(**{setting.name: getattr(owner, setting.name) for setting in fields(cls)})

    def __post_init__(self) -> None:
        check_number("p", self.p, "must be a probability in [0, 1]", low=0, high=1)
        check_count("candidates", self.candidates, "must be a positive integer")
        check_number("max_coverage", self.max_coverage, "must lie in (0, 1]", low=0, high=1, open_low=True)
        check_choice("target_class", self.target_class, get_args(TargetClass))
        if self.feather is not None:
            check_number("feather", self.feather, "must be a width in pixels, 0 or more, or None", low=0, high=math.inf)
        check_choice("fill", self.fill, get_args(Fill))


@dataclass(frozen=True)
class ClassifierSettings:
    """A classifier in a file.

    Attributes:
        model: Its weights: safetensors, or ``torch.save(model.state_dict())``.
        arch: Its name in torchvision or timm, unless the file says it.
        class_names: Text file with the names of its outputs, one a line; None as the file says, or the class folders.
        normalize: What it expects of pixels in [0, 1]: "imagenet", its mean and deviation, or "none".
    """

    model: str | os.PathLike[str] | None = option(
        None, "its weights: safetensors, or torch.save(model.state_dict())", "FILE"
    )
    arch: str | None = option(None, "its name in torchvision or timm, unless the file says it", "NAME")
    class_names: str | os.PathLike[str] | None = option(
        None, "names of its outputs, one a line (default: the sorted class folders)", "FILE"
    )
    normalize: Normalize = option("imagenet", "what it expects of pixels in [0, 1]")

    def __post_init__(self) -> None:
        check_choice("normalize", self.normalize, get_args(Normalize))


@dataclass(frozen=True)
class SaliencySettings:
    """Which saliency backend, and the classifier that it looks through where it needs one.

    Attributes:
        saliency: The backend's name; the path of a distilled network; or ``"bank:FOLDER"``.
        model: As in :class:`ClassifierSettings`, and the next three.
        arch: The architecture of the weights.
        class_names: Names of the outputs.
        normalize: What the classifier expects of pixels.
        options: The backend's own: text, numbers, True or False.

    Raises:
        InvalidInputError: Other options.
    """

    saliency: str = option(BEST_SALIENCY, "saliency backend", "NAME")
    model: str | os.PathLike[str] | None = None
    arch: str | None = None
    class_names: str | os.PathLike[str] | None = None
    normalize: Normalize = "imagenet"
    options: Mapping[str, Any] = field(
        default_factory=dict,
        hash=False,
        metadata={
            "help": "an option of the saliency backend, such as session=u2net; may be given again",
            "metavar": "NAME=VALUE",
            "flag": "--saliency-option",
        },
    )

    def __post_init__(self) -> None:
        check_text(saliency=self.saliency)
        check_choice("normalize", self.normalize, get_args(Normalize))
        object.__setattr__(self, "options", check_plain(self.options))  # a copy: nobody changes it meanwhile

    @property
    def classifier(self) -> ClassifierSettings | None:
        """What the backend looks through."""
        if self.model is None:
            return None
        return ClassifierSettings(self.model, self.arch, self.class_names, self.normalize)


@dataclass(frozen=True)
class RefinerSettings:
    """Which refiner, and how it works (stage 5).

    Attributes:
        name: Its key, or its folder.
        base: Another base model than the refiner names: a folder in diffusers' layout or a hub id.
        strengths: To draw each image's translation strength from; "adaptive" for the largest at which a teacher still
            sees the source's class; None for the refiner's own.
        preserve: How the object is protected: "none" is the paper's, "soft", "strict".
        hole_strength: Of the paint that ``fill="inpaint"`` left; None for the image's own.
        steps: Denoising steps at strength 1; None for the refiner's own.
        guidance: Classifier-free guidance scale; None for the refiner's own.
        scheduler: Name of one of diffusers' schedulers; None for the base's.
        dtype: Of the weights, "float32", "float16" or "bfloat16"; None for half precision on a GPU, single elsewhere.
        loras: Further LoRA files, for all images.
        device: "cpu", "cuda", ...; None for a GPU if there is one.
        compile: Compile the network, which pays for long runs.
    """

    name: str = option("none", "see: sgdmix refiners; or none", "KEY_OR_DIR")
    base: str | None = option(None, "another base model than the refiner names", "PATH_OR_ID")
    strengths: tuple[float, ...] | str | None = option(
        None, "to draw from, or: adaptive (default: the refiner's own)", "S"
    )
    preserve: Preserve = option("strict", "how the object is protected")
    hole_strength: float | None = option(None, "with --fill inpaint, of the paint (default: the image's own)", "S")
    steps: int | None = option(None, "denoising steps at strength 1 (default: the refiner's own)", "N")
    guidance: float | None = option(None, "classifier-free guidance scale (default: the refiner's own)", "F")
    scheduler: str | None = option(None, "one of diffusers' schedulers (default: the base's)", "NAME")
    dtype: str | None = option(
        None, "of the weights: float32, float16, bfloat16 (default: half precision on a GPU)", "NAME"
    )
    loras: tuple[str, ...] = option((), "further LoRA files, for all images", "FILE", flag="--lora")
    device: str | None = option(None, "cpu or cuda (default: a GPU if there is one)", "NAME")
    compile: bool = option(False, "compile the network, which pays for long runs")

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
            object.__setattr__(self, "strengths", tuple(self.strengths))  # a copy: nobody changes it meanwhile
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
        size: Bring all images to size x size; None keeps each as it is.
        image_format: "png" or "jpg".
        shards: Write tar shards instead of files.
    """

    size: int | None = option(None, "bring all images to N x N (default: as they are)", "N")
    image_format: ImageFormat = option("png", "format of the images written", flag="--format")
    shards: bool = option(False, "tar shards as WebDataset reads them, not folders")

    def __post_init__(self) -> None:
        check_counts(size=self.size)
        check_choice("image_format", self.image_format, get_args(ImageFormat))
        check_switch(shards=self.shards)
