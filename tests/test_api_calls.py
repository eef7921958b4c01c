"""Random calls of the public API end in a result or in one clear error; :mod:`attack.calls` can make many more."""

from __future__ import annotations

import importlib
import re
import warnings
from pathlib import Path

import pytest
import torch
from attack.calls import CALLS, Endings, again, run

from sgdmix_albu.masks import otsu

# Read folders, train, need weights or a refiner: they are attacked as commands, by the other campaigns.
ELSEWHERE = {
    "sgdmix_albu.saliency.SaliencyBank",
    *("sgdmix_albu.saliency.WithMaps", "sgdmix_albu.saliency.build_bank"),
    *("sgdmix_albu.saliency.rembg.Rembg", "sgdmix_albu.saliency.text.Text", "sgdmix_albu.expand.make_bank"),
    *("sgdmix_albu.audit", "sgdmix_albu.datasets", "sgdmix_albu.io.images", "sgdmix_albu.classifiers"),
    *("sgdmix_albu.distillation", "sgdmix_albu.explore"),
    *("sgdmix_albu.refine", "sgdmix_albu.expand.pipeline", "sgdmix_albu.expand.mix", "sgdmix_albu.expand.store.verify"),
    *("sgdmix_albu.expand.generate", "sgdmix_albu.expand.mix_folder", "sgdmix_albu.expand.verify"),
    *("sgdmix_albu.recipes.checks", "sgdmix_albu.recipes.parts", "sgdmix_albu.recipes.training"),
}
# Made by the package, handed over by it, and never called by a user: results, errors, types, and the measures of a run.
HANDED_OVER = {
    "sgdmix_albu.types",
    "sgdmix_albu.masks.MaskPreset",
    "sgdmix_albu.synthetic.Mode",
    "sgdmix_albu.errors",
    "sgdmix_albu.saliency.SaliencyBackend",
    *(f"sgdmix_albu.expand.{name}" for name in ("Expansion", "Forecast", "Verified")),
    "sgdmix_albu.recipes.measures",
}


def documented(pages: Path) -> set[str]:
    """Every callable that the reference shows, by its full name."""
    found = set()
    for page in pages.glob("*.md"):
        for where, options in re.findall(r"^::: (\S+)\n(?:    options: (.*)\n)?", page.read_text(), re.MULTILINE):
            holder, name = _resolved(where)
            if name:
                found.add(where)
                continue
            members = re.search(r"members: \[(.*?)\]", options)
            names = members[1].split(", ") if members and members[1] else getattr(holder, "__all__", [])
            found |= {f"{where}.{name}" for name in names if callable(getattr(holder, name))}
    return found


def _resolved(where: str) -> tuple[object, str]:
    """A module, or a module and the name of a thing in it."""
    try:
        return importlib.import_module(where), ""
    except ModuleNotFoundError:
        module, _, name = where.rpartition(".")
        return importlib.import_module(module), name


def _under(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def test_every_public_name_is_called(repository: Path) -> None:
    called = {call.name for call in CALLS}
    settings = ("ClassifierSettings", "RefinerSettings", "SaliencySettings", "Settings")
    parts = {"sgdmix_albu.settings.MixSettings", "sgdmix_albu.settings.FileSettings"}  # called as a part of Settings
    alias = {f"sgdmix_albu.settings.{name}": f"sgdmix_albu.expand.{name}" for name in settings}
    names = {alias.get(name, name) for name in documented(repository / "docs" / "reference")}
    assert len(names) > 100
    known = ELSEWHERE | HANDED_OVER | parts | {"sgdmix_albu.expand.summary"}
    missing = sorted(name for name in names if name not in called and not _under(name, known))
    assert not missing


@pytest.fixture(scope="module")
def endings() -> Endings:
    """Some hundreds of calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of making strange tensors; the calls themselves must be silent
        return run(1, 14 * len(CALLS))


def test_random_calls(endings: Endings) -> None:
    assert not endings.faults, str(endings)
    assert endings.outcomes["result"] > 4 * len(CALLS)
    assert endings.outcomes["our error"] > 4 * len(CALLS)


def test_every_call_can_give_a_result(endings: Endings) -> None:
    """Else its arguments are never sane, and it tests nothing."""
    unanswered = {call.name for call in CALLS} - set(endings.answered)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Some are sane one time in ten, and a few had no luck.
        assert sorted(name for name in unanswered if name not in run(1, 100, only=name).answered) == []


@pytest.mark.parametrize(
    ("broken", "came"),
    [
        (lambda maps, images: 1 / 0, "ZeroDivisionError"),
        (lambda maps, images: otsu(maps.clone().fill_(0.5), images[..., :1]), "AssertionError"),
        (lambda maps, images: otsu(maps.fill_(0.5), images), "an argument was changed"),
        (
            lambda maps, images: warnings.warn("so", stylistic, stacklevel=1) if (stylistic := UserWarning) else None,
            "UserWarning",
        ),
    ],
)
def test_faults_are_found(broken, came, monkeypatch: pytest.MonkeyPatch) -> None:
    """An oracle that sees nothing would always be content."""
    monkeypatch.setattr("attack.calls.masks.otsu", broken)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        endings = run(0, 20, only="masks.otsu")
    assert any(came in fault.came for fault in endings.faults), str(endings)


def test_a_call_can_be_repeated() -> None:
    assert torch.equal(
        again("masks.otsu_threshold(torch.rand(2, 4, 4))"), again("masks.otsu_threshold(torch.rand(2, 4, 4))")
    )
