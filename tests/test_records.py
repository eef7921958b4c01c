"""Schemas: what passes is what was asked for; whatever else comes is refused in one short line."""

from __future__ import annotations

import json
import math
import os
import socket
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgdmix_albu.errors import DataError
from sgdmix_albu.io import files, records
from sgdmix_albu.io.records import (
    UnsoundError,
    anything,
    flag,
    items,
    mapping,
    name_below,
    number,
    one_of,
    optional,
    pair,
    parse,
    record,
    sha256,
    text,
    whole,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)
# Each kind, and what the values that it lets pass have in common, said once more in other words.
KINDS: list[tuple[Any, Any]] = [
    (whole(2, 9), lambda value: type(value) is int and value in range(2, 10)),
    (number(0, 1), lambda value: type(value) in (int, float) and math.isfinite(value) and 0 <= value <= 1),
    (number(0, 1, above=True), lambda value: type(value) in (int, float) and math.isfinite(value) and 0 < value <= 1),
    (text(5), lambda value: type(value) is str and len(value) <= 5),
    (flag, lambda value: value is True or value is False),
    (one_of("a", 1, None), lambda value: value in ("a", 1, None) and type(value) in (str, int, type(None))),
    (optional(flag), lambda value: value is None or type(value) is bool),
    (items(whole()), lambda value: type(value) is list and all(type(one) is int and one >= 0 for one in value)),
    (pair(flag, text()), lambda value: len(value) == 2 and type(value[0]) is bool and type(value[1]) is str),
    (mapping(flag), lambda value: type(value) is dict and all(type(one) is bool for one in value.values())),
    (record({"a": flag}, may={"b": text()}), lambda value: {"a"} <= value.keys() <= {"a", "b"}),
    (name_below, lambda value: type(value) is str and value and ".." not in value.split("/") and value[0] != "/"),
    (sha256, lambda value: len(value) == 64 and int(value, 16) >= 0),
    (anything, lambda value: "NaN" not in json.dumps(value) and "Infinity" not in json.dumps(value)),
]
values = (
    json_values
    | st.sampled_from(["a", 1, 1.0, True, None, [True, "x"], {"a": True}, {"a": False, "b": "x"}, "0" * 64, "A" * 64])
    | st.sampled_from(["../x", "/x", "a/../b", "a\0b", "", 10**400, [3, 4], {"x": True}])
)


@pytest.mark.parametrize(("kind", "right"), KINDS)
@given(value=values)
def test_what_passes_is_of_the_kind(kind: Any, right: Any, value: Any) -> None:
    said = ""
    try:
        got = parse(json.dumps(value), kind)
    except UnsoundError as error:
        said = str(error)
    else:
        assert right(got)
        assert list(got) == list(value) if isinstance(value, list) else got == value
    assert len(said) < 300
    assert said.isprintable()


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (whole(0, 5), 6, "expected a whole number from 0 to 5, got 6"),
        (whole(), True, "got True"),
        (whole(), 10**400, "got a number of 333 hexadecimal digits"),
        (number(0, 1), 1e300, "expected a number from 0 to 1, got 1e\\+300"),
        (number(0, 1, above=True), 0, "expected a number above 0 and up to 1, got 0"),
        (one_of("a", 1), True, "expected one of 'a', 1, got True"),
        (text(3), "abcd", "expected at most 3 characters, got 4"),
        (items(flag, least=1), [], "expected at least 1 items, got 0"),
        (items(flag, most=1), [True, True], "expected at most 1 items, got 2"),
        (items(flag), [True, 2], "1: expected true or false, got 2"),
        (mapping(flag, most=1), {"a": True, "b": True}, "expected at most 1 items"),
        (record({"a": flag}), {}, "'a' is missing"),
        (record({"a": flag}), {"a": True, "\x1b[2J": 1}, r"'\\x1b\[2J' is no field of it"),
        (record({"a": record({"b": flag})}), {"a": {"b": "x" * 9999}}, "'a': 'b': expected true or false, got 'xxx"),
        (record({}, others=True), {"a": [[[1e999]]]}, "Infinity is no number"),
        (sha256, "x" * 64, "expected a SHA-256"),
        (name_below, "\ud800.png", "expected a name in UTF-8, got '.*ud800.png'"),
        (flag, [1] * 10**6, "got a list of 1000000"),
    ],
)
def test_what_is_refused_is_told(kind: Any, value: Any, message: str) -> None:
    with pytest.raises(UnsoundError, match=message):
        parse(json.dumps(value), kind)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"[" * 10**5, b'{"a":' * 10**5, b"NaN", b"-Infinity", b"1" * 5000, b"\x00"],
)
def test_what_is_not_json(content: bytes) -> None:
    with pytest.raises(UnsoundError, match="not JSON"):
        parse(content, record({}))


def test_other_fields_are_plain() -> None:
    for other in (1e999, {"a": [1, {"b": -1e999}]}):
        with pytest.raises(UnsoundError):
            record({}, others=True)({"a": other})
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    with pytest.raises(UnsoundError, match="nested more than 32 deep"):
        record({}, others=True)({"a": deep})


@pytest.mark.parametrize("content", [b"[" + b"[]," * 5_000_000, b'{"a": ' * 6_000_000, "[0" + ",0" * 5_000_001])
def test_more_values_than_fit_into_memory(content: bytes | str) -> None:
    """Three bytes of a file, sixty in memory: one of a gigabyte would take twenty."""
    tracemalloc.start()
    try:
        with pytest.raises(UnsoundError, match="more than 5000000 values"):
            parse(content, anything)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert parse(f'"{"," * 4_999_999}"', text(10**7))[0] == ","


def test_a_longer_text_than_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_LONGEST", 10)
    assert parse(b'"12345678"', text()) == "12345678"
    with pytest.raises(UnsoundError, match="11 bytes, the limit is 10"):
        parse(b'"123456789"', text())


# Only files are opened


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "nowhere").symlink_to("nothing")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name, reason in [
            ("pipe", "it is a named pipe, not a file"),
            ("link", "it is a device, not a file"),
            ("socket", "it is a socket, not a file"),
            (".", "it is a folder, not a file"),
            ("nowhere", "No such file or directory"),
            ("no\0thing", "embedded null byte"),
        ]:
            for read in (files.open_regular, files.sha256_of, lambda path: files.read_regular(path, 10)):
                with pytest.raises(DataError, match=f"cannot read .*: {reason}"):
                    read(tmp_path / name)


def test_a_pipe_that_takes_a_files_place_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    real = os.open

    def exchanged(path: Any, *arguments: Any, **options: Any) -> int:
        Path(path).unlink()
        os.mkfifo(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", exchanged)
    with pytest.raises(DataError, match="it is a named pipe"):
        files.open_regular(tmp_path / "file")


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert files.read_regular(tmp_path / "file", 5) == b"12345"
    with pytest.raises(DataError, match="it has 5 bytes, the limit is 4"):
        files.read_regular(tmp_path / "file", 4)
    with files.open_regular(tmp_path / "file") as file:
        for start, size, expected in [(0, 2, b"12"), (3, 99, b"45"), (9, 2, b""), (2, 2**62, b"345"), (1, -1, b"")]:
            assert files.read_part(file, start, size) == expected
