"""Image sets that anyone may have put together: what can be used is used, and the rest is named."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

from PIL import Image

from sgdmix_albu.printable import printable

from .bench import Bench
from .command import Command
from .tally import Tally

__all__ = ["attack"]

_LIMIT = 90.0  # seconds
_NAMES = (
    *("\x1b[2J\x1b]0;owned\x07.png", "two\nlines.png", "\u202egnp.exe\u202c.png", "\r\rback.png", "a\tb\x7f.png"),
    *(
        os.fsdecode(b"\xff\xfe.png"),
        "n" * 240 + ".png",
        "%s{0}{x!r}.png",
        "<script>x<b>.png",
    ),
    *("'; touch x; '.png", "\u200b.png", "CON.png", "-rf.png", "a\u2028b.png"),
)


def attack(number: int, chance: Random, bench: Bench, tally: Tally) -> None:
    """A good set with some hostile files in it, given to one command."""
    data, trace = bench.copy(bench.data), bench.root / "trace"
    good = {path.relative_to(data).as_posix() for path in data.rglob("*.png")}
    bad: set[str] = set()
    chosen = chance.sample(list(_FILES), chance.randint(1, 3))
    for kind in chosen:
        tally.count(f"sets: {kind}")
        folder = data / chance.choice(sorted(path.name for path in data.iterdir() if path.is_dir()))
        bad |= {path.relative_to(data).as_posix() for path in _FILES[kind](folder, chance, trace)}
    tally.where += f" ({', '.join(chosen)})"
    out = bench.folder()
    command = chance.choice([_mix, _generate, _audit])(data, out)
    ended = command.run(bench.notes, _LIMIT)
    tally.judge(ended, {0, 1, 2})
    if trace.exists():
        trace.unlink()
        tally.fault("trace", command)
    if ended.code < 2 and command.words[0] != "audit":
        with (out / "metadata.jsonl").open() as lines:
            used = {json.loads(line)["source"] for line in lines}
        for key in sorted(good - used):
            tally.fault("lost", key)
        for key in sorted(bad & used):
            tally.fault("differing", f"{key}: an image was made of it")
        for key in sorted(bad):
            if printable(key) not in ended.out + ended.err:
                tally.fault("silent", f"{key} is not named")
        if ended.code != (1 if bad else ended.code):
            tally.fault("wrong code", f"{command}: {ended.code}, and {sorted(bad)} were left out")
        tally.judge(Command(("verify", str(out))).run(bench.notes, _LIMIT), {0})
    bench.forget(data)
    bench.forget(out)


def _mix(data: Path, out: Path) -> Command:
    return Command(("mix", str(data), str(out), "--saliency", "spectral_residual", "--mask", "otsu"))


def _generate(data: Path, out: Path) -> Command:
    further = ("--multiplier", "2", "--refiner", "none", "--saliency", "spectral_residual", "--mask", "otsu")
    return Command(("generate", str(data), str(out), *further))


def _audit(data: Path, out: Path) -> Command:
    further = ("--samples", "2", "--pairs", "4", "--saliency", "spectral_residual", "--mask", "otsu")
    return Command(("audit", str(data), str(out), *further))


# Each puts something into a class folder, and gives what cannot be an image.


def _postscript(folder: Path, chance: Random, trace: Path) -> list[Path]:
    program = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n({trace}) (w) file closefile\nshowpage\n"
    return [_written(folder / "drawing.png", program.encode())]


def _pipe(folder: Path, chance: Random, trace: Path) -> list[Path]:
    os.mkfifo(folder / "pipe.png")
    return [folder / "pipe.png"]


def _socket(folder: Path, chance: Random, trace: Path) -> list[Path]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket.png"))
    return [folder / "socket.png"]


def _device(folder: Path, chance: Random, trace: Path) -> list[Path]:
    (folder / "device.png").symlink_to(chance.choice(["/dev/zero", "/dev/stdin", "/dev/full", "/proc/kmsg"]))
    return [folder / "device.png"]


def _links(folder: Path, chance: Random, trace: Path) -> list[Path]:
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "nowhere.png").symlink_to("/nowhere/at/all.png")
    return [folder / "loop.png", folder / "nowhere.png"]


def _linked_folders(folder: Path, chance: Random, trace: Path) -> list[Path]:
    (folder / chance.choice(["up", ".up"])).symlink_to(folder.parent)
    return []


def _bomb(folder: Path, chance: Random, trace: Path) -> list[Path]:
    side = chance.choice([20_000, 100_000, 2**31 - 1])
    return [_written(folder / "bomb.png", _png(side, side, b"\0" * 1000))]


def _wide(folder: Path, chance: Random, trace: Path) -> list[Path]:
    width, height = chance.choice([(20_000, 1), (1, 20_000), (20_000, 1000), (1, 1), (2, 3)])
    Image.new("RGB", (width, height), (9, 99, 199)).save(folder / "wide.png")
    return []


def _names(folder: Path, chance: Random, trace: Path) -> list[Path]:
    for name in chance.sample(_NAMES, 3):
        _good_image(folder / name)
    return []


def _class_names(folder: Path, chance: Random, trace: Path) -> list[Path]:
    for name in chance.sample(_NAMES, 2):
        place = folder.with_name(name.removesuffix(".png"))
        place.mkdir()
        _good_image(place / "1.png")
    return []


def _own_names(folder: Path, chance: Random, trace: Path) -> list[Path]:
    place = folder.with_name(chance.choice(["metadata.jsonl", "000000.tar", "shard-000000.tar", "done", "bank"]))
    place.mkdir()
    _good_image(place / "1.png")
    return []


def _damaged(folder: Path, chance: Random, trace: Path) -> list[Path]:
    content = io.BytesIO()
    Image.effect_noise((40, 40), 60).convert("RGB").save(content, chance.choice(["PNG", "JPEG", "BMP", "WEBP"]))
    cut = content.getvalue()[: chance.randint(1, len(content.getvalue()) // 3)]
    return [_written(folder / "cut.png", cut), _written(folder / "empty.jpg", b"")]


def _no_images(folder: Path, chance: Random, trace: Path) -> list[Path]:
    page = _written(folder / "page.jpg", b"<!DOCTYPE html><title>404</title>")
    return [page, _written(folder / "noise.webp", chance.randbytes(3000))]


def _odd_images(folder: Path, chance: Random, trace: Path) -> list[Path]:
    noise = Image.effect_noise((40, 40), 60)
    noise.convert("CMYK").save(folder / "cmyk.jpg")
    noise.convert("I;16").save(folder / "deep.png")
    noise.convert("P").save(folder / "palette.gif", save_all=True, append_images=[noise.convert("P")] * 3)
    return []


def _huge_file(folder: Path, chance: Random, trace: Path) -> list[Path]:
    _written(folder / "huge.png", _png(30, 30, b""))
    os.truncate(folder / "huge.png", 2**36)
    return [folder / "huge.png"]


def _same_stem(folder: Path, chance: Random, trace: Path) -> list[Path]:
    for suffix in ("png", "PNG", "jpg", "bmp"):
        _good_image(folder / f"same.{suffix}")
    return []


_FILES: dict[str, Callable[[Path, Random, Path], list[Path]]] = {
    "PostScript": _postscript,
    "a pipe": _pipe,
    "a socket": _socket,
    "a device": _device,
    "links to nothing": _links,
    "a folder in itself": _linked_folders,
    "a bomb": _bomb,
    "odd sizes": _wide,
    "file names": _names,
    "class names": _class_names,
    "our own names": _own_names,
    "damaged images": _damaged,
    "no images": _no_images,
    "odd images": _odd_images,
    "a huge file": _huge_file,
    "one stem": _same_stem,
}


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _good_image(path: Path) -> None:
    content = io.BytesIO()
    Image.effect_noise((40, 40), 60).convert("RGB").save(content, "PNG")
    path.write_bytes(content.getvalue())


def _png(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG that says what it likes of its size."""

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = part(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + part(b"IDAT", zlib.compress(pixels)) + part(b"IEND", b"")
