"""The saliency bank's files, damaged or made by somebody else: right maps, or one error; never anything large."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from sgdmix_albu.bank.maps import header_sum
from sgdmix_albu.bank.parts import ROW, _sum
from sgdmix_albu.errors import DataError
from sgdmix_albu.io.lock import locked
from sgdmix_albu.saliency import SaliencyBank, build_bank

HEADER, INDEX = "bank.json", "index.jsonl"
ABOUT, ROWS, MAPS = "part-000000.json", "part-000000.rows", "part-000000.maps"
FILES = (HEADER, INDEX, ABOUT, ROWS, MAPS)
NAMES = ["owl/1.png", "owl/2.png", "tit/1.png", "tit/2.png"]


def brightness(images: Tensor) -> Tensor:
    """4 x 4, a different map for each image."""
    return torch.nn.functional.adaptive_avg_pool2d(images.mean(1), 4)


def build(folder: Path) -> SaliencyBank:
    return build_bank(folder / "data", folder / "bank", brightness, size=16, progress=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in ``data`` and their bank in ``bank``; read only."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    for name in NAMES:
        path = folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    build(folder)
    return folder


@pytest.fixture(scope="module")
def maps(made: Path) -> dict[str, Tensor]:
    bank = SaliencyBank(made / "bank")
    return {key: bank[key] for key in NAMES}


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "copy")


def rewritten(folder: Path, *, line: Callable[[dict[str, Any]], Any] | None = None, **fields: Any) -> None:
    """As somebody would change a bank who knows its checksums; a field that is None goes."""
    bank = folder / "bank"
    header = {**json.loads((bank / HEADER).read_text()), **fields}
    if line is not None:
        first, *others = (bank / INDEX).read_text().splitlines(keepends=True)
        changed = line(json.loads(first))
        first = changed if isinstance(changed, str) else json.dumps(changed) + "\n"
        (bank / INDEX).write_text(first + "".join(others))
        header["index_sha256"] = hashlib.sha256((bank / INDEX).read_bytes()).hexdigest()
    header = {name: value for name, value in header.items() if value is not None}
    (bank / HEADER).write_text(json.dumps({**header, "sha256": header_sum(header)}))


def changed_part(folder: Path, *, more: int = 0, about: Any = (), **fields: Any) -> None:
    """As somebody would change a part of it; ``more`` rows that repeat the first."""
    bank = folder / "bank"
    rows = np.fromfile(bank / ROWS, ROW)
    rows = np.concatenate([rows, np.repeat(rows[:1], more)])
    rows["place"] = range(len(rows))
    for name, values in fields.items():
        rows[name] = values
    rows.tofile(bank / ROWS)
    known = {**json.loads((bank / ABOUT).read_bytes()), **dict(about)}
    (bank / ABOUT).write_text(json.dumps({**known, "crc32": _sum(known["shape"], rows.tobytes())}))


def error_of(call: Callable[[], Any]) -> str:
    """The message of the one error; nothing large is made on the way to it."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            call()
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert "\n" not in message
    return message


HEADERS: list[dict[str, Any]] = [
    {"format": "1"},
    {"format": True},
    {"format": -1},
    {"settings": "resnet"},
    {"settings": {"backend": 3}},
    {"shape": [10**9, 10**9]},
    {"shape": [-4, 4]},
    {"shape": [0, 4]},
    {"shape": [4.0, 4]},
    {"shape": [4, 4, 1]},
    {"shape": [float("nan"), 4]},
    {"shape": "44"},
    {"shape": None},
    {"complete": 1},
    {"complete": "yes"},
    {"skipped": ["owl/1.png"]},
    {"skipped": {"owl/1.png": 3}},
    {"skipped": None},
    {"index_sha256": 7},
    {"index_sha256": None},
    {"parts": None},
    {"parts": []},
    {"parts": 1},
    {"parts": [-1]},
    {"parts": ["../bank"]},
    {"made_by": ["brightness"]},
    {"surprise": 1},
]


@pytest.mark.parametrize("fields", HEADERS, ids=repr)
def test_headers_of_another_kind(folder: Path, fields: dict[str, Any]) -> None:
    rewritten(folder, **fields)
    message = error_of(lambda: SaliencyBank(folder / "bank"))
    assert str(folder / "bank") in message
    assert HEADER in message
    assert message.endswith("remove the folder and run build_bank again")


@pytest.mark.parametrize("fields", [{"shape": [2, 8]}, {"skipped": {"owl/3.png": "it is empty"}}], ids=repr)
def test_headers_that_are_sound_and_not_what_was_written(folder: Path, fields: dict[str, Any]) -> None:
    path = folder / "bank" / HEADER
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    for call in (lambda: SaliencyBank(folder / "bank"), lambda: build(folder)):
        assert f"damaged: {HEADER} cannot be read: its checksum does not match; remove" in error_of(call)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format": ' + b"9" * 5000 + b"}", b"\0" * 99]
)
def test_headers_that_are_none(folder: Path, content: bytes) -> None:
    (folder / "bank" / HEADER).write_bytes(content)
    for call in (lambda: SaliencyBank(folder / "bank"), lambda: build(folder)):
        assert f"damaged: {HEADER} cannot be read: " in error_of(call)


LINES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a label below -1": lambda line: line | {"label": -2},
    "a label beyond any class": lambda line: line | {"label": 10**30},
    "a label that is true": lambda line: line | {"label": True},
    "a label that is a float": lambda line: line | {"label": 0.0},
    "a label that is a name": lambda line: line | {"label": "owl"},
    "a field more": lambda line: line | {"weight": 1},
    "a field less": lambda line: {name: value for name, value in line.items() if name != "label"},
    "a key outside": lambda line: line | {"key": "../../passwords"},
    "a key that is a list": lambda line: line | {"key": ["owl"]},
    "a sum that is none": lambda line: line | {"sha256": "abc"},
    "no object": lambda line: [1, 2],
    "not JSON": lambda line: "{\n",
    "NaN": lambda line: '{"row": NaN}\n',
    "no number of digits": lambda line: '{"row": ' + "9" * 5000 + "}\n",
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES.keys())
def test_lines_of_another_kind(folder: Path, maps: dict[str, Tensor], line: Callable[[dict[str, Any]], Any]) -> None:
    rewritten(folder, line=line)
    message = error_of(lambda: SaliencyBank(folder / "bank"))
    assert f"the saliency bank in {folder / 'bank'} is damaged: line 1 of {INDEX}: " in message
    assert message.endswith("; run build_bank again")
    assert_built_again(folder, maps)


def assert_built_again(folder: Path, maps: dict[str, Tensor]) -> None:
    bank = build(folder)
    assert {key: bank[key].tolist() for key in bank.keys} == {key: found.tolist() for key, found in maps.items()}
    assert sum(path.stat().st_size for path in (folder / "bank").glob("*.maps")) == 4 * 16


PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "maps of another shape": (ROWS, {"about": {"shape": [2, 8]}}),
    "maps of 10**12 bytes": (ABOUT, {"about": {"shape": [10**6, 10**6]}}),
    "a shape that is none": (ABOUT, {"about": {"shape": [4]}}),
    "a field more": (ABOUT, {"about": {"surprise": 1}}),
    "no reasons": (ABOUT, {"about": {"skipped": None}}),
    "600 rows": (ROWS, {"more": 596}),
    "a place twice": (ROWS, {"place": [0, 1, 1, 2]}),
    "sizes of 10**9": (ROWS, {"size": 10**9}),
    "ends below 0": (ROWS, {"mask_end": -(2**40)}),
    "other sums": (MAPS, {"crc32": 7}),
    "rows beyond the file, under the sum of no bytes at all": (MAPS, {"more": 100, "crc32": 0}),
    "labels": (INDEX, {"label": 3}),
    "other contents": (INDEX, {"sha256": 0}),
}


@pytest.mark.parametrize(("name", "harm"), PARTS.values(), ids=PARTS.keys())
def test_parts_of_another_kind(folder: Path, maps: dict[str, Tensor], name: str, harm: dict[str, Any]) -> None:
    changed_part(folder, **harm)
    message = error_of(lambda: SaliencyBank(folder / "bank")[NAMES[0]])
    assert str(folder / "bank") in message
    assert name in message
    assert message.endswith("; run build_bank again")
    bank = build(folder)
    assert {key: bank[key].tolist() for key in bank.keys} == {key: found.tolist() for key, found in maps.items()}


def test_an_index_with_an_image_twice_or_none(folder: Path) -> None:
    rewritten(folder, line=lambda line: json.dumps(line) + "\n" + json.dumps(line) + "\n")
    assert f"{INDEX} names an image twice; run build_bank again" in error_of(lambda: SaliencyBank(folder / "bank"))
    (folder / "bank" / INDEX).write_bytes(b"")
    rewritten(folder, index_sha256=hashlib.sha256(b"").hexdigest())
    assert f"{INDEX} names no image; run build_bank again" in error_of(lambda: SaliencyBank(folder / "bank"))


@pytest.mark.parametrize("name", [HEADER, INDEX, ABOUT, ROWS])
def test_files_of_a_terabyte(folder: Path, maps: dict[str, Tensor], name: str) -> None:
    """With holes: they take no space on disk."""
    os.truncate(folder / "bank" / name, 2**40)
    with pytest.raises(DataError, match=rf"{name}.*: it has .*bytes.*; .*run build_bank again"):
        SaliencyBank(folder / "bank")
    if name == HEADER:
        with pytest.raises(DataError, match=rf"{name}: it has \d+ bytes, .*; remove the folder and run"):
            build(folder)
    else:
        assert_built_again(folder, maps)


def test_maps_of_a_terabyte(folder: Path, maps: dict[str, Tensor]) -> None:
    os.truncate(folder / "bank" / MAPS, 2**40)
    for bank in (SaliencyBank(folder / "bank"), build(folder)):
        assert all(torch.equal(bank[key], maps[key]) for key in NAMES)
    assert (folder / "bank" / MAPS).stat().st_size == 4 * 16


def test_maps_that_end_after_the_bank_was_opened(folder: Path) -> None:
    bank = SaliencyBank(folder / "bank")
    os.truncate(folder / "bank" / MAPS, 17)
    assert "run build_bank again" in error_of(lambda: bank[NAMES[3]])


NO_FILES: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "link to a file": lambda path: path.symlink_to(path.parent.parent / "data/owl/1.png"),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
@pytest.mark.parametrize("name", [*FILES, ".sgdmix-lock"])
@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES.keys())
def test_no_files_in_their_place(folder: Path, name: str, make: Callable[[Path], object]) -> None:
    path = folder / "bank" / name
    path.unlink(missing_ok=True)
    make(path)
    before = (folder / "data/owl/1.png").read_bytes()
    if name != ".sgdmix-lock":
        assert name in error_of(lambda: SaliencyBank(folder / "bank")[NAMES[0]])
    assert name in error_of(lambda: build(folder))
    assert (folder / "data/owl/1.png").read_bytes() == before


def test_one_process_at_a_time(folder: Path) -> None:
    with locked(folder / "bank", "somebody"):
        message = error_of(lambda: build(folder))
    assert f"another sgdmix process is working on {folder / 'bank'} (process {os.getpid()}, somebody, since" in message
    assert len(build(folder)) == 4


def test_what_a_killed_process_has_not_finished_is_no_other_ones_folder(folder: Path) -> None:
    shutil.rmtree(folder / "bank")
    (folder / "bank").mkdir()
    (folder / "bank/.sgdmix-abc.tmp").touch()
    assert len(build(folder)) == 4
    assert not list((folder / "bank").glob("*.tmp"))


def test_a_folder_that_is_a_file(folder: Path) -> None:
    shutil.rmtree(folder / "bank")
    (folder / "bank").write_text("mine")
    assert f"cannot write {folder / 'bank'}" in error_of(lambda: build(folder))
    assert (folder / "bank").read_text() == "mine"


# ---- any change


def any_json() -> st.SearchStrategy[Any]:
    plain = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.sampled_from([2**31, 2**63, 10**30, -1, 0, 1, 16, "../x", "0" * 64])
    )
    return plain | st.lists(plain, max_size=3) | st.dictionaries(st.text(max_size=3), plain, max_size=2)


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the values of a JSON document are."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for name, part in parts for place in places(part, (*here, name)))]


def changed(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    copy = value.copy()
    copy[place[0]] = changed(value[place[0]], place[1:], new)
    return copy


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, Callable[[bytes], bytes]]:
    """A file's name and how it is changed."""
    name = draw(st.sampled_from(FILES))
    kind = draw(
        st.sampled_from(["cut", "byte", "insert", "twice"] + (["value"] * 4 if name not in (ROWS, MAPS) else []))
    )
    share, number = draw(st.floats(0, 1)), draw(st.integers(1, 255))
    more, new = draw(st.binary(min_size=1, max_size=20)), draw(any_json())

    def change(content: bytes) -> bytes:
        at = min(int(share * len(content)), len(content) - 1)
        if kind == "value":
            lines = content.splitlines() if name == INDEX else [content]
            chosen = at % len(lines)
            value = json.loads(lines[chosen])
            spots = places(value)
            lines[chosen] = json.dumps(changed(value, spots[at % len(spots)], new)).encode()
            return b"\n".join(lines) + b"\n"
        return {
            "cut": content[:at],
            "byte": content[:at] + bytes([content[at] ^ number]) + content[at + 1 :],
            "insert": content[:at] + more + content[at:],
            "twice": content + content,
        }[kind]

    return name, change


@settings(max_examples=250, deadline=None)
@given(change=changes(), before=st.booleans())
def test_any_change_of_a_file_is_harmless_or_an_error(
    made: Path, maps: dict[str, Tensor], change: tuple[str, Callable[[bytes], bytes]], before: bool
) -> None:
    """Opened as it is, or built again ``before``; it names each image's own map, or nothing."""
    name, change_ = change
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "data").symlink_to(made / "data")
        shutil.copytree(made / "bank", Path(place) / "bank")
        path = Path(place) / "bank" / name
        path.write_bytes(change_(path.read_bytes()))
        try:
            bank = build(Path(place)) if before else SaliencyBank(Path(place) / "bank")
            found = {key: bank[key].tolist() for key in bank.keys}
        except DataError as error:
            found, message = None, str(error)
        if found is None:
            assert str(Path(place) / "bank") in message
            return
        assert found == {key: value.tolist() for key, value in maps.items()}
        assert (bank.shape, bank.skipped) == ((4, 4), {})
