"""A part of the bank from its stretches: what is known when not all of them went well."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from expand_helpers import brightness, contents, expand, write_tree

from sgdmix_albu.bank.builder import Describer, Finding, Gathering
from sgdmix_albu.bank.parts import Part, parts_of
from sgdmix_albu.datasets.source import open_reader, open_source
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.expand import Settings
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.saliency import register_backend
from sgdmix_albu.saliency.manifold_ranking import ManifoldRanking
from sgdmix_albu.saliency.salient_object import SalientObject

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


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("ending", [KeyboardInterrupt, ZeroDivisionError])
def test_what_is_known_of_a_begun_part_is_kept(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, ending: type[BaseException]
) -> None:
    """No image of a finished stretch is looked at again, and the outputs are those of a run that was left alone."""
    (tree / "class 0" / "003.png").write_bytes(b"x")
    monkeypatch.setattr("sgdmix_albu.bank.parts.STRETCH", 10)
    asked: list[int] = []
    settings = Settings(saliency="manifold_ranking", mask="otsu", multiplier=1)
    seen = ManifoldRanking.coarse

    def count(self: ManifoldRanking, images: Any, labels: Any = None) -> Any:
        asked.append(len(images))
        return seen(self, images, labels)

    class Ends(Progress):
        def over(self, items: Any, *_: Any, **__: Any) -> Iterator[Any]:
            for number, item in enumerate(items):
                if number == 5:
                    raise ending
                yield item

    monkeypatch.setattr(ManifoldRanking, "coarse", count)
    with pytest.raises(ending):
        expand(tree, tmp_path / "out", settings, workers=workers, progress=Ends())
    asked.clear()
    assert expand(tree, tmp_path / "out", settings, workers=workers).described == 30
    assert sum(asked) == 30
    asked.clear()
    expand(tree, tmp_path / "whole", settings, workers=workers)
    assert sum(asked) == 79
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_kept_stretch_that_is_damaged_is_described_again(tmp_path: Path) -> None:
    part = parts_of(open_source(write_tree(tmp_path / "data", classes=2, images=20)).items)[0]
    storage, settings = Storage(tmp_path / "bank"), Settings(saliency="manifold_ranking", mask="otsu")
    describer = Describer(open_reader(tmp_path / "data"), ["class 0", "class 1"], settings)
    gathering = Gathering(storage, [part])
    first, second = gathering.stretches()
    gathering.add(describer(first))
    gathering.keep()
    assert Gathering(storage, [part]).stretches() == [second]
    for name in ("masks", "maps", "rows"):
        content = storage.read(f"begun/part-000000.{name}")
        storage.write(f"begun/part-000000.{name}", content[:90] + bytes([content[90] ^ 1]) + content[91:])
        assert Gathering(storage, [part]).stretches() == [first, second]
        storage.write(f"begun/part-000000.{name}", content)
    again = Gathering(storage, [part])
    again.stretches()
    again.add(describer(second))
    assert not [name for name in storage.sizes() if "begun" in name]


def test_networks_that_have_looked_leave_a_gpus_memory_to_others(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks, there = [], []
    begin = SalientObject.__init__

    @functools.wraps(begin)
    def note(self: SalientObject, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        networks.append(weakref.ref(self))

    monkeypatch.setattr(SalientObject, "__init__", note)
    monkeypatch.setattr(
        "sgdmix_albu.expand.pipeline.release_memory", lambda _: there.append([ref() for ref in networks])
    )
    expand(photographs, tmp_path / "out", Settings(multiplier=1), workers=2)
    assert there == [[None] * len(networks)]
    assert networks


@pytest.mark.usefixtures("by_hand")
def test_who_describes_is_told(photographs: Path, tmp_path: Path) -> None:
    """A backend of the user's own is asked by one, however many mix."""
    assert expand(photographs, tmp_path / "one", workers=2).describers == 1
    assert expand(photographs, tmp_path / "two", Settings(multiplier=1), workers=2).describers == 2
