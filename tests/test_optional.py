"""Optional packages: imported when present; when absent, the error is the install command."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgdmix_albu.errors import MissingExtraError, SGDMixError
from sgdmix_albu.registry import import_optional


def test_a_module_that_is_there_is_returned() -> None:
    import xml.dom

    assert import_optional("xml.dom") is xml.dom


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(MissingExtraError) as caught:
        import_optional("no_such_package_anywhere.part", extra="ray")
    assert str(caught.value) == (
        "no_such_package_anywhere.part is needed and is not installed; run: "
        "pip install 'sgdmix-albu[ray]' (from a checkout: pip install '.[ray]')"
    )
    assert isinstance(caught.value, SGDMixError)
    assert isinstance(caught.value, ImportError)


def test_without_an_extra_the_package_itself_is_to_be_installed() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install no_such_package_anywhere$"):
        import_optional("no_such_package_anywhere.part")


def test_a_package_that_lacks_a_package_of_its_own_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_installed.py").write_text("import no_such_package_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package_anywhere") as caught:
        import_optional("half_installed", extra="ray")
    assert not isinstance(caught.value, SGDMixError)


def test_an_import_error_inside_a_package_passes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("from json import no_such_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="no_such_name") as caught:
        import_optional("broken_package", extra="ray")
    assert not isinstance(caught.value, SGDMixError)
