"""A part of the bank from its stretches: what is known when not all of them went well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from expand_helpers import brightness, expand, write_tree

from sgdmix_albu.bank.builder import Finding, Gathering
from sgdmix_albu.bank.parts import Part
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.expand import Settings
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.saliency import register_backend

BY_HAND = Settings(saliency="watched", mask="bright", multiplier=1)


@pytest.fixture
def tree(tmp_path: Path, by_hand: None) -> Path:
    """Eighty photographs: three stretches."""
    return write_tree(tmp_path / "data", classes=4, images=20)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("broken", [1, 8, 40])
def test_a_fault_of_the_settings_is_told_beside_images_that_cannot_be_read(
    tree: Path, tmp_path: Path, broken: int, workers: int
) -> None:
    """And nothing is kept: the same command, when the fault is mended, begins with all images."""
    for path in sorted(tree.rglob("*.png"))[:broken]:
        path.write_bytes(b"x")
    asked, mended = list[int](), list[str]()

    def refuse(images: Any, labels: Any = None) -> Any:
        if mended:
            return brightness(images)
        asked.append(len(images))
        raise InvalidInputError("no such layer")

    register_backend("watched", refuse)
    for _ in range(2):
        asked.clear()
        with pytest.raises(InvalidInputError, match="no such layer"):
            expand(tree, tmp_path / "out", BY_HAND, workers=workers)
        assert sum(asked) >= 32
    mended.append("yes")
    assert expand(tree, tmp_path / "out", BY_HAND, workers=workers).described == 80


def test_refusals_say_nothing_before_the_stretches_ahead_of_them_are_known(tmp_path: Path) -> None:
    images = tuple((f"{place}.png", "a", 0, None) for place in range(96))
    gathering = Gathering(Storage(tmp_path), [Part(0, images)])
    first, second, third = gathering.stretches()
    gathering.add(Finding(third, [], [], 1.0, 32, InvalidInputError("third")))
    gathering.add(Finding(first, [], [], 1.0, 15, InvalidInputError("first")))
    with pytest.raises(InvalidInputError, match="first"):
        gathering.add(Finding(second, [], [], 1.0, 17, InvalidInputError("second")))
