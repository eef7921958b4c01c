"""Names of files and classes are shown, and never obeyed: by a terminal, by a browser, by a reader of lines."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from expand_helpers import photograph, write_tree
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sgdmix_albu import errors
from sgdmix_albu.cli import main
from sgdmix_albu.printable import printable

CLEAR, TITLE, BELL, TURN, LINE = "\x1b[2J", "\x1b]0;owned\x07", "\a", "\u202egnp.exe", "\nverified 9 of 9 images"
HOSTILE = CLEAR + TITLE + BELL + TURN + LINE + "\x9b31m\u2028\u200b\r"


def tame(text: str) -> bool:
    """Only what a terminal shows, and the ends of lines."""
    return text.replace("\n", "").isprintable()


@given(st.text(st.characters()))
def test_everything_is_shown_on_one_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text
    if "\\" not in text and text.isascii():
        assert shown.encode().decode("unicode_escape") == text  # nothing is lost


def test_what_is_not_utf8_is_shown_too() -> None:
    assert printable(b"owl\xff.png".decode("utf-8", "surrogateescape")) == "owl\\udcff.png"


@pytest.mark.parametrize("kind", [getattr(errors, name) for name in errors.__all__])
def test_every_error_of_ours_is_one_line(kind: type[Exception]) -> None:
    error = kind(f"cannot read {HOSTILE}")
    assert str(error).isprintable()
    assert "cannot read \\x1b[2J" in str(error)
    assert str(kind("two\nlines")) == "two lines"


@pytest.fixture
def hostile_tree(tmp_path: Path) -> Path:
    data = write_tree(tmp_path / "data", classes=2, images=3)
    (data / "class 0").rename(data / f"class {HOSTILE}")
    folder = data / f"class {HOSTILE}"
    (folder / f"broken{HOSTILE}.png").write_bytes(b"not an image")
    Image.fromarray(photograph(77)).save(folder / f"good{HOSTILE}.png")
    (folder / f"notes.{CLEAR}").touch()
    (data / f"loose{HOSTILE}.png").touch()
    return data


def run(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    code = main([str(word) for word in words])
    out, err = capfd.readouterr()
    assert tame(out), out
    assert tame(err), err
    assert code in (0, 1, 2)
    return out + err


FAST = ("--saliency", "spectral_residual", "--mask", "otsu")


def test_commands_print_names_and_obey_none(
    hostile_tree: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"out{CLEAR}"
    said = run(capfd, "mix", hostile_tree, out, *FAST)
    assert r"broken\x1b[2J\x1b]0;owned\x07\x07\u202egnp.exe\nverified 9 of 9 images" in said
    assert r"1 .\x1b[2j" in said  # the other file, by its suffix
    assert f"out      {tmp_path}/out\\x1b[2J" in said
    assert "loose\\x1b[2J" in said
    run(capfd, "generate", hostile_tree, tmp_path / "more", "--refiner", "none", "--multiplier", 1, *FAST)
    victim = next(path for path in (tmp_path / "more").rglob("good*.png"))
    shutil.copy(victim, victim.with_name(f"stranger{HOSTILE}.png"))
    victim.write_bytes(b"changed")
    said = run(capfd, "verify", tmp_path / "more")
    assert "stranger\\x1b[2J" in said
    assert sum(line.startswith("verified") for line in said.splitlines()) == 1  # by us, not by a name
    run(capfd, "mix", hostile_tree, out, *FAST)  # which is there
    run(capfd, "mix", f"nowhere{HOSTILE}", tmp_path / "other")
    run(capfd, "generate", hostile_tree, tmp_path / "other", "--refiner", f"no{HOSTILE}")


def test_reports_show_names_and_obey_none(
    hostile_tree: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = "<script>alert(1)<"
    (next(hostile_tree.glob("class *exe*"))).rename(hostile_tree / f"class {HOSTILE}{words}".replace("/", ""))
    said = run(capfd, "audit", hostile_tree, tmp_path / "report", "--pairs", 4, "--samples", 4, *FAST)
    assert "broken\\x1b[2J" in said
    page = (tmp_path / "report" / "report.html").read_text()
    assert tame(page)
    assert words not in page
    assert r"\u202egnp.exe" in page
