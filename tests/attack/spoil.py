"""Ways to spoil a file."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

__all__ = ["WAYS", "spoil"]

_HUGE = 2**36  # bytes, none of them on disk
_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 10**400, 0.5, float("nan"), float("inf")),
    *("", "x", "../../x", "/etc/passwd", "\x1b[2J\n", "a" * 100_000, "\udcff", ".", "metadata.jsonl"),
    *([], [[]], {}, [1] * 1000, {"": None}),
)


def _flipped(path: Path, chance: Random) -> None:
    content = bytearray(path.read_bytes() or b"\0")
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def _cut(path: Path, chance: Random) -> None:
    os.truncate(path, chance.randrange(max(path.stat().st_size, 1)))


def _emptied(path: Path, chance: Random) -> None:
    path.write_bytes(b"")


def _longer(path: Path, chance: Random) -> None:
    with path.open("ab") as file:
        file.write(chance.randbytes(chance.randint(1, 5000)))


def _huge(path: Path, chance: Random) -> None:
    os.truncate(path, _HUGE)


def _huge_line(path: Path, chance: Random) -> None:
    path.write_bytes(b'{"a": "' + b"a" * 2**26)


def _pipe(path: Path, chance: Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _device(path: Path, chance: Random) -> None:
    path.unlink()
    path.symlink_to(chance.choice(["/dev/zero", "/dev/full", "/dev/stdin", "/proc/self/mem"]))


def _loop(path: Path, chance: Random) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _folder(path: Path, chance: Random) -> None:
    path.unlink()
    path.mkdir()
    if chance.random() < 0.5:
        (path / "file").write_bytes(b"x")


def _gone(path: Path, chance: Random) -> None:
    path.unlink()


def _deep(path: Path, chance: Random) -> None:
    path.write_bytes(chance.choice([b"[", b'{"a":']) * 100_000)


def _other(path: Path, chance: Random) -> None:
    """Another file of the same folder or its neighbours, in this one's place."""
    others = [other for other in path.parent.iterdir() if other.is_file() and other != path]
    if others:
        shutil.copyfile(chance.choice(sorted(others)), path)


def _json(path: Path, chance: Random) -> None:
    """One value in a JSON file, or in one of its lines, is another; any other file is cut."""
    lines = path.read_bytes().splitlines(keepends=True)
    whole = path.suffix == ".json"
    place = 0 if whole or not lines else chance.randrange(len(lines))
    try:
        value = json.loads(b"".join(lines) if whole else lines[place])
    except (ValueError, IndexError, RecursionError):  # spoilt already, it may be anything
        return _cut(path, chance)
    changed = json.dumps(_changed(value, chance)).encode() + b"\n"
    path.write_bytes(changed if whole else b"".join([*lines[:place], changed, *lines[place + 1 :]]))
    return None


def _changed(value: Any, chance: Random) -> Any:
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        if chance.random() < 0.15:
            return {name: part for name, part in value.items() if name != key}
        return {**value, key: _changed(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        place = chance.randrange(len(value))
        return [*value[:place], _changed(value[place], chance), *value[place + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and chance.random() < 0.5:
        return value + chance.choice([-1, 1])
    return chance.choice(_VALUES)


WAYS = {
    "a bit": _flipped,
    "cut": _cut,
    "emptied": _emptied,
    "longer": _longer,
    "huge": _huge,
    "a huge line": _huge_line,
    "a pipe": _pipe,
    "a device": _device,
    "a link to itself": _loop,
    "a folder": _folder,
    "gone": _gone,
    "deep JSON": _deep,
    "another file": _other,
    "another value": _json,
}


def spoil(path: Path, way: str, chance: Random) -> None:
    """Spoil a file in one of :data:`WAYS`."""
    WAYS[way](path, chance)
