"""Fixtures of the tests; see also conftest.py in the folder above."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from expand_helpers import bright, brightness, write_tree

from sgdmix_albu.expand import Settings
from sgdmix_albu.masks import register_mask
from sgdmix_albu.saliency import register_backend


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this checkout."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_data(repository: Path) -> Path:
    """Photographs (``birds/``, ``objects/``) that lie beside the checkout; the test is skipped without them."""
    folder = Path(os.environ.get("SGDMIX_SHARED_DATA", repository.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set SGDMIX_SHARED_DATA to run this test")
    return folder


# The offline stage


@pytest.fixture
def by_hand() -> None:
    """A backend and a preset whose result can be checked by hand, under names for one test."""
    register_backend("brightness", brightness)
    register_mask("bright", bright)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An expansion of several chunks."""
    monkeypatch.setattr(Settings, "chunk", property(lambda self: 4))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bank of several parts; other processes do not see it."""
    monkeypatch.setattr("sgdmix_albu.bank.parts.PART", 5)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of four; read only."""
    return write_tree(tmp_path_factory.mktemp("photographs"), classes=3, images=4)


# Fine-tuning


@pytest.fixture
def stopped_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """``with stopped_at(step):`` a fine-tuning within is interrupted before that step."""

    @contextmanager
    def stopped(step: int) -> Iterator[None]:
        from sgdmix_albu.refine.finetuning import trainer as module

        real = module.Trainer._step

        def stops(self: module.Trainer, number: int) -> float:
            if number == step:
                raise KeyboardInterrupt
            return real(self, number)

        with monkeypatch.context() as patch:
            patch.setattr(module.Trainer, "_step", stops)
            with pytest.raises(KeyboardInterrupt):
                yield

    return stopped
