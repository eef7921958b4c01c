"""Names to objects: laziness, precedence, entry points, and what the errors say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sgdmix_albu.errors import InvalidInputError, MissingExtraError, SGDMixError, UnknownNameError
from sgdmix_albu.registry import Registry, nearest_names


@pytest.fixture
def registry() -> Registry:
    return Registry("codec", group="sgdmix_albu.tests_codecs")


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution that adds the rows "shout" and "json" by entry point."""
    metadata = tmp_path / "other-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[sgdmix_albu.tests_codecs]\nshout = other_codecs:shout\njson = other_codecs:shout\n"
    )
    (tmp_path / "other_codecs.py").write_text("def shout(text):\n    return text.upper()\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_string_row_is_imported_when_it_is_loaded(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lazy_codec.py").write_text("answer = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.register("lazy", "lazy_codec:answer")
    assert registry.names() == ["lazy"]
    assert "lazy_codec" not in sys.modules
    assert registry.load("lazy") == 42


def test_an_object_row_comes_back_as_it_is(registry: Registry) -> None:
    row = object()
    registry.register("object", row)
    assert registry.load("object") is row


def test_names_are_sorted(registry: Registry) -> None:
    for name in ("c", "a", "b"):
        registry.register(name, object())
    assert registry.names() == ["a", "b", "c"]


def test_a_name_is_taken_once(registry: Registry) -> None:
    registry.register("json", "json:loads")
    with pytest.raises(InvalidInputError, match="a codec named 'json' is registered already"):
        registry.register("json", "json:dumps")
    assert registry.load("json")("1") == 1


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_name_is_a_non_empty_string(registry: Registry, name: object) -> None:
    with pytest.raises(InvalidInputError, match="needs a name"):
        registry.register(name, object())  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["json", ":loads", "json:", ""])
def test_a_string_target_has_a_module_and_an_object(registry: Registry, target: str) -> None:
    with pytest.raises(InvalidInputError, match="expected 'module:Object'"):
        registry.register("json", target)


def test_an_unknown_name_suggests_the_nearest_and_lists_all(registry: Registry) -> None:
    registry.register("gradcam", object())
    registry.register("occlusion", object())
    with pytest.raises(UnknownNameError) as caught:
        registry.load("gradcan")
    assert str(caught.value) == "unknown codec 'gradcan'; did you mean 'gradcam'? Known: gradcam, occlusion"
    with pytest.raises(UnknownNameError) as caught:
        registry.load("zzz")
    assert str(caught.value) == "unknown codec 'zzz'. Known: gradcam, occlusion"
    assert isinstance(caught.value, SGDMixError)
    assert isinstance(caught.value, LookupError)


def test_a_row_whose_package_is_missing_names_the_extra(registry: Registry) -> None:
    registry.register("far", "no_such_package_anywhere.codecs:far", extra="diffusion")
    assert "far" in registry.names()
    with pytest.raises(MissingExtraError, match=r"pip install 'sgdmix-albu\[diffusion\]'"):
        registry.load("far")


@pytest.mark.usefixtures("other_package")
def test_other_packages_add_rows_by_entry_point(registry: Registry) -> None:
    assert registry.load("shout")("hey") == "HEY"
    assert registry.names() == ["json", "shout"]


@pytest.mark.usefixtures("other_package")
def test_a_registered_row_wins_over_an_entry_point(registry: Registry) -> None:
    registry.register("json", "json:loads")
    assert registry.names() == ["json", "shout"]
    assert registry.load("json")("[1]") == [1]


def test_entry_points_are_not_read_for_a_registered_name(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scanning every installed package costs tens of milliseconds; the built-in names do not pay it."""
    registry.register("json", "json:loads")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: pytest.fail("entry points were read"))
    registry.load("json")


def test_a_registry_without_a_group_reads_no_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: pytest.fail("entry points were read"))
    assert Registry("codec").names() == []


def test_nearest_names() -> None:
    assert nearest_names("otsu", ["zebra"]) == ""
    assert nearest_names("resnet19", ["resnet50", "resnet18", "resnet18", "vgg19"]) == ("; did you mean 'resnet18'?")
    assert nearest_names("nope", ["pets"]) == ""
    assert nearest_names("--cand", ["--address", "--candidates", "--shards"]) == "; did you mean '--candidates'?"
    assert nearest_names("residual", ["residue", "spectral_residual"]) == (
        "; did you mean 'spectral_residual' or 'residue'?"
    )
