"""What users may set has one name, one default and one check, wherever they set it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import torch

import sgdmix_albu
from sgdmix_albu import albumentations
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.expand import Settings
from sgdmix_albu.settings import ClassifierSettings, FileSettings, MixSettings, RefinerSettings, SaliencySettings
from sgdmix_albu.types import BEST_MASK

OPTIONS = (MixSettings, ClassifierSettings, SaliencySettings, RefinerSettings, FileSettings)
DEFAULTS: dict[str, Any] = {
    field.name: field.default for option in OPTIONS for field in fields(option) if field.default is not MISSING
}
DEFAULTS["mask"] = BEST_MASK
NAMES = {"strength": "strengths"}  # a call that takes one or a set of them

# Who takes settings as arguments, and where another default is meant: why.
FACES: dict[str, dict[str, str]] = {
    "sgdmix_albu.torchvision:SGDMix": {
        "strength": "fixed with the public names: a face has no set of the refiner's at hand",
    },
    "sgdmix_albu.albumentations:SGDMix": {"p": "what every transform of Albumentations has"},
    "sgdmix_albu:mix_batch": {},
    "sgdmix_albu.mixing:plan_mix": {},
    "sgdmix_albu.mixing:draw": {},
    "sgdmix_albu.expand:Settings": {},
    "sgdmix_albu.expand:mix_folder": {},
    "sgdmix_albu.saliency:build_bank": {"size": "the maps of a bank have one size"},
    "sgdmix_albu.audit:run_audit": {"size": "the pictures of a sheet have one size"},
    "sgdmix_albu.audit:run_drift": {
        "strengths": "a sweep goes through many",
        "preserve": "a sweep compares all",
    },
}


def settings_of(face: str) -> dict[str, Any]:
    """The arguments of a public name that are settings, and their defaults; one in a tuple of one is that one."""
    module, _, name = face.partition(":")
    target: Callable[..., Any] = getattr(import_module(module), name)
    found = {}
    for one in inspect.signature(target).parameters.values():
        setting = NAMES.get(one.name, one.name)
        if setting in DEFAULTS and one.default is not one.empty:
            alone = isinstance(one.default, tuple) and len(one.default) == 1
            found[one.name] = one.default[0] if alone else one.default
    return found


@pytest.mark.parametrize("face", FACES)
def test_defaults_are_those_of_the_settings(face: str) -> None:
    found = settings_of(face)
    assert found
    differ = {name for name, default in found.items() if default != DEFAULTS[NAMES.get(name, name)]}
    assert differ == set(FACES[face])


BAD = [
    {"p": 2},
    {"p": True},
    {"candidates": 0},
    {"candidates": 2.5},
    {"target_class": "other"},
    {"fill": "paint"},
    {"place": "there"},
    {"max_coverage": 0},
    {"feather": -1},
    {"feather": "wide"},
]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_what_means_nothing_is_refused_in_the_same_words_everywhere(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=f"^{next(iter(bad))} must ") as expected:
        MixSettings(**bad)
    takers: list[Callable[..., Any]] = [
        sgdmix_albu.SGDMix,
        albumentations.SGDMix,
        partial(sgdmix_albu.mix_batch, torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4)),
        Settings,
    ]
    for taker in takers:
        with pytest.raises(InvalidInputError) as found:
            taker(**bad)
        assert str(found.value) == str(expected.value)


def test_a_moved_object_needs_a_painted_background() -> None:
    for taker in (MixSettings, Settings, sgdmix_albu.SGDMix, albumentations.SGDMix):
        with pytest.raises(InvalidInputError, match="place='random' needs a background without an object"):
            taker(fill="source", place="random")


def test_a_face_mixes_by_what_its_attributes_say_now() -> None:
    """Curricula change them between epochs."""
    mix = sgdmix_albu.SGDMix("spectral_residual", p=0)
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mix(images), images)
    mix.p = 1.0
    assert MixSettings.of(mix) == MixSettings()
    assert not torch.equal(mix(images), images)
    mix.fill = "paint"
    with pytest.raises(InvalidInputError, match="fill must be one of"):
        mix(images)
