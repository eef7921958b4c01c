"""What the command was given, what is set on the page, and the settings that follow from both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sgdmix_albu.arguments import check_count, check_number
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.expand.models import open_refiner, wanted_refiner
from sgdmix_albu.refine.catalogue import metaclass_of
from sgdmix_albu.saliency.judged import looks_through_a_model
from sgdmix_albu.saliency.options import prompted, takes
from sgdmix_albu.settings import ClassifierSettings, RefinerSettings, SaliencySettings, Settings
from sgdmix_albu.types import BEST_FILL, BEST_MASK, BEST_SALIENCY, SERVED, Fill, Place, Preserve

# They need no download, no extra and no classifier.
_AT_HAND = (BEST_SALIENCY, "manifold_ranking", "spectral_residual")


@dataclass(frozen=True, kw_only=True)
class Given:
    """What does not change while the page is open.

    Attributes:
        data: A class-per-folder image tree or its URL; None with ``dataset``.
        dataset: Name of an embedded data set instead of ``data``.
        size: Side in pixels that all images are brought to.
        saliency: Further backends to offer.
        options: Options of the saliency backends; each gets those that it has.
        classifier: What backends such as "gradcam" look through; they are offered where it has a ``model``.
        refiner: A refiner for the mixed images; None for none. Its strength and what it protects are set on the page.

    Raises:
        InvalidInputError: An option that no backend offered has; or settings of a refiner, and no refiner.
    """

    data: str | None = None
    dataset: str | None = None
    size: int = 224
    saliency: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)
    refiner: RefinerSettings | None = None

    def __post_init__(self) -> None:
        check_count("size", self.size, "must be a side in pixels, 1 or more")
        object.__setattr__(self, "refiner", wanted_refiner(self.refiner))
        for option in self.options:
            if not any(takes(name, option) for name in self.backends):
                raise InvalidInputError(f"none of {', '.join(self.backends)} has an option {option!r}")

    @cached_property
    def metaclass(self) -> str | None:
        """What all classes are, in a word: as the refiner says, or the embedded data set; None where nobody does."""
        return metaclass_of(self.dataset) if self.refiner is None else open_refiner(self.refiner).spec.metaclass

    @property
    def asked_for(self) -> tuple[str, ...]:
        """Names of the backends that come with what was given."""
        return (*self.saliency, *(("gradcam",) if self.classifier.model is not None else ()))

    @property
    def backends(self) -> tuple[str, ...]:
        """Names of the backends to offer; those that were asked for first."""
        through = self.asked_for[len(self.saliency) :]
        return tuple(dict.fromkeys((*self.saliency, *_AT_HAND, *through)))


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What is set on the page; the defaults are those of the transform and the commands.

    Attributes:
        saliency: A backend's name.
        mask: A mask preset's name.
        fill: What stands where the target's own object was, "source" or "inpaint".
        place: Where the source's object stands, "source" or "random".
        candidates: N, candidates drawn for the image; at most 500 on the page.
        seed: Of the draw.
        strength: Translation strength in (0, 1]; only read where there is a refiner. The default is
            the transform's; ``sgdmix generate`` draws from several.
        preserve: How the refiner protects the object.
    """

    saliency: str = BEST_SALIENCY
    mask: str = BEST_MASK
    fill: Fill = BEST_FILL
    place: Place = "source"
    candidates: int = 50
    seed: int = 0
    strength: float = 0.7
    preserve: Preserve = "strict"

    def __post_init__(self) -> None:
        check_count("candidates", self.candidates, "must be a positive integer", most=500)
        check_number("strength", self.strength, "must lie in (0, 1]", low=0, high=1, open_low=True)


def saliency_settings(given: Given, name: str) -> SaliencySettings:
    """A backend with the options that it has, and the classifier where it looks through one."""
    served = name.startswith(SERVED)
    own = {} if served else {option: value for option, value in given.options.items() if takes(name, option)}
    options = prompted(name, own, given.metaclass if takes(name, "prompt") else None)
    through = not served and given.classifier.model is not None and looks_through_a_model(name)
    classifier = vars(given.classifier) if through else {}
    return SaliencySettings(name, options=options, **classifier)


def run_settings(given: Given, choices: Choices) -> Settings:
    """What ``sgdmix mix``, or ``generate`` with a refiner, would work with.

    Raises:
        InvalidInputError: Choices that do not go together.
    """
    return Settings(
        saliency_settings(given, choices.saliency),
        choices.mask,
        fill=choices.fill,
        place=choices.place,
        candidates=choices.candidates,
        seed=choices.seed,
        size=given.size,
        multiplier=1,
        keep_unmixed=True,
    )
