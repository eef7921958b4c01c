"""How many may look at images at once, and on what: it depends on the backend."""

from __future__ import annotations

from typing import Literal, NamedTuple

from sgdmix_albu.saliency.manifold_ranking import ManifoldRanking
from sgdmix_albu.saliency.modelled import ModelBackend
from sgdmix_albu.saliency.options import maker_of
from sgdmix_albu.saliency.resolve import makes_backends
from sgdmix_albu.saliency.spectral_residual import SpectralResidual
from sgdmix_albu.types import DISTILLED, SERVED


class Way(NamedTuple):
    """How a backend is asked by many.

    Attributes:
        by: "threads", each with a copy of it; "processes", where it sets what a process has only one of, such as the
            state of random numbers; "one" at a time, where it is the user's own, and nobody knows.
        network: Whether it is a network, which a GPU is for. The others compute the same bits on every machine, and
            stay on the CPU.
    """

    by: Literal["threads", "processes", "one"]
    network: bool


def way_of(name: str) -> Way:
    """How the backend of a name is asked.

    Example:
        >>> way_of("manifold_ranking"), way_of("gradcam")
        (Way(by='threads', network=False), Way(by='processes', network=True))
    """
    if name.startswith(SERVED):
        return Way("threads", network=False)
    if name.endswith(DISTILLED):
        return Way("threads", network=True)
    maker = maker_of(name)
    if not makes_backends(maker) or not maker.__module__.startswith("sgdmix_albu."):
        return Way("one", network=False)
    if issubclass(maker, ModelBackend):
        return Way("processes", network=True)
    return Way("threads", network=not issubclass(maker, ManifoldRanking | SpectralResidual))
