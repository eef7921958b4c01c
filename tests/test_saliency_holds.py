"""Networks that a function or object looks through are found, wherever it keeps them."""

from __future__ import annotations

import functools
from typing import Any

import captum.attr
import pytest
import torch
from torch import Tensor, nn

from sgdmix_albu.saliency import get_backend, list_backends
from sgdmix_albu.saliency.holds import modules_in

NET = nn.Conv2d(3, 1, 1)


def through_a_global(images: Tensor) -> Tensor:
    return NET(images)


def through_another_function(images: Tensor) -> Tensor:
    return through_a_global(images)


def of_pixels(images: Tensor, *, floor: float = 0.0) -> Tensor:
    return images.mean(1).clamp_min(floor)


def with_a_default(images: Tensor, *, net: nn.Module = NET) -> Tensor:
    return net(images)


class Holder:
    def __init__(self) -> None:
        self.parts = {"nets": [NET]}

    def __call__(self, images: Tensor) -> Tensor:
        return self.parts["nets"][0](images)


class Naming:
    def __call__(self, images: Tensor) -> Tensor:
        return (lambda given: NET(given))(images)


@pytest.mark.parametrize(
    "thing",
    [
        NET,
        through_a_global,
        through_another_function,
        with_a_default,
        lambda images, net=NET: net(images),
        Holder(),
        Holder().__call__,
        Naming(),
        functools.partial(lambda net, images: net(images), NET),
        functools.partial(of_pixels, net=NET),
        get_backend(through_a_global),
        captum.attr.Saliency(NET),
        [None, {"a": (NET,)}],
    ],
)
def test_networks_are_found(thing: Any) -> None:
    assert modules_in(thing) == [NET]


@pytest.mark.parametrize(
    "thing", [None, "gradcam", of_pixels, torch.mean, len, functools.partial(of_pixels, floor=0.1), object(), nn.Module]
)
def test_what_holds_no_network(thing: Any) -> None:
    assert modules_in(thing) == []


@pytest.mark.parametrize("name", ["manifold_ranking", "spectral_residual"])
def test_training_free_backends_hold_none(name: str) -> None:
    assert name in list_backends()
    assert modules_in(get_backend(name)) == []


def test_circles_end() -> None:
    circle: list[Any] = [NET]
    circle.append(circle)
    assert modules_in(circle) == [NET]
