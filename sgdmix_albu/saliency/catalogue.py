"""The saliency backends by name. Torch-free: a row is imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.registry import Registry
from sgdmix_albu.saliency.attributions import METHODS

if TYPE_CHECKING:
    from sgdmix_albu.saliency.base import Saliency

GIVEN = "given"  # not a backend: the transforms use the maps that come with the samples

_HOME = "sgdmix_albu.saliency"

BACKENDS = Registry("saliency backend", group="sgdmix_albu.saliency")
BACKENDS.register("salient_object", f"{_HOME}.salient_object:SalientObject")
BACKENDS.register("spectral_residual", f"{_HOME}.spectral_residual:SpectralResidual")
BACKENDS.register("manifold_ranking", f"{_HOME}.manifold_ranking:ManifoldRanking")
BACKENDS.register("rembg", f"{_HOME}.rembg:Rembg", extra="rembg")
BACKENDS.register("text", f"{_HOME}.text:Text", extra="text")
BACKENDS.register("gradcam", f"{_HOME}.captum:GradCam")
for _name in METHODS:
    BACKENDS.register(_name, f"{_HOME}.captum:{_name}")


def list_backends() -> list[str]:
    """Names that :func:`get_backend` knows, sorted; nothing is imported.

    Example:
        >>> "spectral_residual" in list_backends()
        True
    """
    return BACKENDS.names()


def register_backend(name: str, target: Saliency, *, extra: str | None = None) -> None:
    """Give a backend a name.

    A package can do the same without being imported, through the entry-point group ``sgdmix_albu.saliency``.

    Args:
        name: The name that users type.
        target: A :class:`SaliencyBackend` subclass, created with the user's options each time; or a ready
            backend; or a function (B, C, H, W) -> (B, h, w). Or ``"module:Object"``, which leads to one of
            these and is imported on first use.
        extra: The pip extra of this package that ``module`` needs, if any; its name goes into the error.

    Raises:
        InvalidInputError: The name is taken, reserved or empty, or a string target is not ``"module:Object"``.

    Example:
        >>> register_backend("brightness", lambda images: images.mean(1))
        >>> from sgdmix_albu.saliency import get_backend
        >>> import torch
        >>> get_backend("brightness")(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 8, 8])
    """
    if isinstance(name, str) and name == GIVEN:
        raise InvalidInputError(f"the name {GIVEN!r} means maps that come with the samples; choose another")
    BACKENDS.register(name, target, extra=extra)
