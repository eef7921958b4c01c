"""From what a user passes as ``saliency=`` to a backend."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

from sgdmix_albu.arguments import said
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.registry import import_optional, nearest_names
from sgdmix_albu.saliency.base import FunctionBackend, Saliency, SaliencyBackend
from sgdmix_albu.saliency.catalogue import BACKENDS, GIVEN, list_backends
from sgdmix_albu.saliency.layers import check_layer
from sgdmix_albu.saliency.options import check_options, maker_of
from sgdmix_albu.types import DISTILLED, SERVED


def get_backend(spec: Saliency, **options: Any) -> SaliencyBackend:
    """The saliency backend that ``spec`` means.

    Args:
        spec: A name from :func:`list_backends`; the path of a ``.safetensors`` file that ``sgdmix distil`` wrote; a
            :class:`SaliencyBackend` (returned as it is) or a subclass of it; a function or object
            (B, C, H, W) -> (B, h, w); or a ready ``captum.attr`` attribution object.
        **options: Passed to the backend: ``model=``, ``layer=``, ``microbatch=`` and so on.

    Raises:
        UnknownNameError: No backend has this name; the nearest ones are suggested.
        InvalidInputError: An option is missing or is not one of this backend's, or ``spec`` is none of the above.
        MissingExtraError: The package that the backend lives in is not installed.

    Example:
        >>> get_backend("spectral_residual", microbatch=16)
        SpectralResidual()
        >>> get_backend("spectral_residual", steps=3)
        Traceback (most recent call last):
        ...
        sgdmix_albu.errors.InvalidInputError: 'spectral_residual' has no option 'steps'. Its options: microbatch
    """
    if isinstance(spec, os.PathLike) or (isinstance(spec, str) and spec.endswith(DISTILLED)):
        learned = import_optional("sgdmix_albu.saliency.salient_object").SalientObject
        return _make(f"the network {os.fspath(spec)}", functools.partial(learned, spec), options)
    if isinstance(spec, str):
        if spec == GIVEN:
            raise InvalidInputError(
                f"{GIVEN!r} is not a backend: it means maps that come with the samples, for SGDMix(saliency='given')"
            )
        if spec.startswith(SERVED):
            raise InvalidInputError(
                f"{spec!r} works in commands, which read files; in a training pipeline use WithMaps, or pass maps as "
                "SaliencyMap, with saliency='given'"
            )
        return _make(repr(spec), BACKENDS.load(spec), options)
    return _make(_name_of(spec), spec, options)


def backend_unless_given(
    spec: Saliency, *, model: Any, layer: Any, options: Mapping[str, Any], owner: Callable[..., Any]
) -> SaliencyBackend | None:
    """The backend of a transform; None for "given", where maps come with the samples.

    Args:
        spec: As for :func:`get_backend`.
        model: The option of that name, unless it is None.
        layer: Likewise.
        options: The backend's other options.
        owner: The transform, which takes arguments of its own.

    Raises:
        InvalidInputError: An argument that neither takes, options beside "given", and as :func:`get_backend`.
    """
    check_layer(layer)
    named = {name: value for name, value in (("model", model), ("layer", layer)) if value is not None}
    options = {**named, **options}
    if not isinstance(spec, str) or spec != GIVEN:
        try:
            return get_backend(spec, **options)
        except InvalidInputError as error:
            unknown = next((name for name in options if f"has no option {name!r}" in str(error)), None)
            if unknown is None:
                raise
            raise InvalidInputError(_of_transform(unknown, owner, error)) from None
    if options:
        raise InvalidInputError(f"saliency='given' takes no {' and no '.join(options)}")
    return None


def _of_transform(unknown: str, owner: Callable[..., Any], error: InvalidInputError) -> str:
    """What is wrong with an argument that a transform passed on to its backend, in the transform's words."""
    if unknown == "model":
        return f"{error}. To look through a classifier pass saliency='gradcam' with model="
    known = [name for name in inspect.signature(owner).parameters if name != "options"]
    return f"SGDMix has no argument {unknown!r}{nearest_names(unknown, known) or '.'} The saliency backend {error}"


def _make(name: str, target: Any, options: dict[str, Any]) -> SaliencyBackend:
    if isinstance(target, SaliencyBackend):
        return _call(name, lambda: target, options)
    if makes_backends(maker_of(target)):
        return _call(name, target, options)
    if callable(getattr(target, "attribute", None)) and not isinstance(target, type):
        captum = import_optional("sgdmix_albu.saliency.captum")
        return _call(name, functools.partial(captum.AttributionBackend, target), options)
    if callable(target) and not isinstance(target, type):
        return _call(name, functools.partial(FunctionBackend, target), options)
    raise InvalidInputError(
        "expected a saliency backend's name, a SaliencyBackend, a captum attribution or a function "
        f"(B, C, H, W) -> (B, h, w), got {said(target)}. Names: {', '.join(list_backends())}"
    )


def makes_backends(maker: Any) -> bool:
    """Whether calling it makes a backend, rather than a map."""
    return isinstance(maker, type) and issubclass(maker, SaliencyBackend)


def _call(name: str, factory: Callable[..., SaliencyBackend], options: dict[str, Any]) -> SaliencyBackend:
    parameters = inspect.signature(factory).parameters.values()
    named = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    known = [p.name for p in named]
    needed = [p.name for p in named if p.default is p.empty]
    # A factory with **options knows best which of them it takes, and checks them itself.
    passed_on = [] if len(named) == len(parameters) else [option for option in options if option not in known]
    if "model" in needed and "model" not in options and "layer" in known:
        raise InvalidInputError(f"{name} looks through a classifier: give its weights, --model FILE (model= in Python)")
    check_options(name, known, needed, [option for option in options if option not in passed_on])
    return factory(**options)


def _name_of(spec: Any) -> str:
    return spec.__name__ if isinstance(spec, type) else f"a {type(spec).__name__} as saliency"
