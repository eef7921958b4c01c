"""Witnesses, where no true masks are: a reference (a better backend), and a classifier's evidence (Grad-CAM)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sgdmix_albu.bank.map_source import MapSource, open_map_source
from sgdmix_albu.classifiers import Judge
from sgdmix_albu.datasets.sample import Sample
from sgdmix_albu.errors import InvalidInputError, SGDMixError
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.mixing.described import describe
from sgdmix_albu.mixing.masks import get_mask
from sgdmix_albu.mixing.stretching import upsampled
from sgdmix_albu.saliency import SaliencyBackend
from sgdmix_albu.saliency.judged import JudgedBackend
from sgdmix_albu.saliency.modelled import ModelBackend
from sgdmix_albu.types import BEST_MASK, BEST_SALIENCY

NONE = "none"
_EVIDENCE = "gradcam"
_STRONG = 0.5  # of a map's greatest value; below, Grad-CAM's wide slopes tell of its resolution, not of the object
_TRAINING_FREE = ("manifold_ranking", "spectral_residual")


@dataclass(frozen=True)
class Reference:
    """The better backend that others are compared with.

    Attributes:
        spec: Its name, or itself.
        name: What it is called.
        judged: Names of the backends that are compared with it.
    """

    spec: str | SaliencyBackend
    name: str
    judged: frozenset[str]

    @classmethod
    def chosen(
        cls, spec: str | SaliencyBackend | None, name: str, audited: Mapping[str, MapSource]
    ) -> Reference | None:
        """The one that was asked for, for all others; the default one, for those that measure worse than it.

        What another backend finds of a better one's masks says nothing, so nobody is compared with the default who
        may be better: segmenters, and objects.
        """
        if spec == NONE:
            return None
        if spec is not None:
            judged = frozenset(audited) - {name}
            if not judged:
                raise InvalidInputError(f"agreement_with must be another backend than the one audited, got {name!r}")
            return cls(spec, name, judged)
        worse = {
            key
            for key, one in audited.items()
            if isinstance(one.backend, ModelBackend | JudgedBackend) or key in _TRAINING_FREE
        }
        judged = frozenset(worse - {BEST_SALIENCY})
        return cls(BEST_SALIENCY, BEST_SALIENCY, judged) if judged else None


@dataclass(frozen=True)
class Witnesses:
    """What else is known of N images; None where nobody was asked.

    Attributes:
        name: The reference's name.
        masks: (N, H, W) bool, its masks.
        evidence: (N, H, W) float32, Grad-CAM of the audit's classifier where it is strong, 0 elsewhere.
        judged: The backends that the reference can say something of.
    """

    name: str | None = None
    masks: Tensor | None = None
    evidence: Tensor | None = None
    judged: frozenset[str] = frozenset()

    def about(self, saliency: str) -> Witnesses:
        """Those who can say something of a backend."""
        evidence = None if saliency == _EVIDENCE else self.evidence
        return replace(self, evidence=evidence) if saliency in self.judged else Witnesses(evidence=evidence)


NOBODY = Witnesses()


def hear(sample: Sample, reference: Reference | None, judge: Judge | None, known: Mapping[str, Tensor]) -> Witnesses:
    """Ask them.

    Args:
        sample: The images.
        reference: The backend that others are compared with, or None.
        judge: The classifier whose evidence is looked at, or None.
        known: Maps (N, h, w) by backend, where they have been made already.
    """
    evidence = None if judge is None else _evidence(sample, judge, known)
    if reference is None:
        return Witnesses(evidence=evidence)
    maps = known.get(reference.name)
    if maps is None:
        maps, _ = open_map_source(reference.spec, judge).timed(sample.images, sample.labels, sample.files, Progress())
    masks = describe(maps, sample.images, get_mask(BEST_MASK)).masks
    return Witnesses(reference.name, masks, evidence, reference.judged)


def _evidence(sample: Sample, judge: Judge, known: Mapping[str, Tensor]) -> Tensor | None:
    """None where Grad-CAM cannot look through this classifier, or Captum is not there: the audit goes on without."""
    maps = known.get(_EVIDENCE)
    if maps is None:
        try:
            maps, _ = open_map_source(_EVIDENCE, judge).timed(sample.images, sample.labels, sample.files, Progress())
        except SGDMixError as error:
            warnings.warn(f"masks are not compared with where the classifier looks: {error}", stacklevel=2)
            return None
    whole = upsampled(maps, sample.images)
    return torch.where(whole > _STRONG, whole, 0)
