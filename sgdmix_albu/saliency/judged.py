"""Saliency through a classifier that comes with its own pixels and classes, as commands open one from a file."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sgdmix_albu.classifiers import Judge
from sgdmix_albu.errors import SGDMixError
from sgdmix_albu.saliency.base import SaliencyBackend
from sgdmix_albu.saliency.modelled import ModelBackend
from sgdmix_albu.saliency.options import maker_of, takes
from sgdmix_albu.saliency.resolve import get_backend, makes_backends


class JudgedBackend(SaliencyBackend):
    """A backend by name that is shown images and classes as its classifier knows them.

    What it explains is the label's class where the classifier knows the data's classes, else the class it predicts.

    Args:
        spec: The backend's name.
        judge: The classifier.
        **options: The backend's others.

    Raises:
        InvalidInputError: The backend looks through no classifier, or has no such option.
    """

    wants_rgb = False
    follows_autocast = True

    def __init__(self, spec: str, judge: Judge, **options: Any) -> None:
        super().__init__()
        self.explained = "predicted" if judge.outputs is None else "label"
        self.judge = judge
        self.backend = get_backend(spec, model=judge.model, **{"target": self.explained, **options})

    @property
    def uses_labels(self) -> bool:
        """As the backend's."""
        return self.backend.uses_labels

    def settings(self) -> dict[str, Any]:
        """The backend's, and how the classifier is asked."""
        asked = {"outputs": self.judge.outputs, "normalize": self.judge.normalize}
        return {"backend": type(self.backend), **self.backend.settings(), **asked}

    def _raw(self, images: Tensor, labels: Tensor | None) -> Tensor:
        wanted = None if labels is None else self.judge.outputs_of(labels)
        try:
            return self.backend.coarse(self.judge.pixels(images), wanted)
        except SGDMixError:
            raise
        # The model's own complaint, of any kind: a transformer that takes one size only, memory that runs out.
        except Exception as error:
            height, width = images.shape[-2:]
            said = str(error) or type(error).__name__
            raise SGDMixError(
                f"{self.judge.name} failed on {len(images)} images of {height} x {width}: {said}; "
                "--size brings all images to the size that a model needs"
            ) from error

    def __repr__(self) -> str:
        return f"JudgedBackend({self.backend!r})"


def looks_through_a_model(name: str) -> bool:
    """Whether a backend's ``model=`` is a classifier. False of an unknown name, of which get_backend complains."""
    maker = maker_of(name)
    return issubclass(maker, ModelBackend) if makes_backends(maker) else takes(name, "model")
