"""Image files that nobody should have to trust: other formats, no files at all, and more pixels than they look."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageOps, features

from sgdmix_albu.errors import DataError
from sgdmix_albu.io import images
from sgdmix_albu.io.images import IMAGE_SUFFIXES, decode_image, files_below, list_images, read_image

OURS = {"BMP", "DIB", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP"}
Image.init()
OTHERS = sorted(name for name in Image.SAVE if name in Image.OPEN and name not in OURS)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is started as a process, which then is not."""
    commands: list[Any] = []

    def start(*arguments: Any, **_: Any) -> None:
        commands.append(arguments)
        raise OSError("not started")

    monkeypatch.setattr(subprocess.Popen, "__init__", lambda self, *arguments, **_: start(*arguments))
    monkeypatch.setattr(os, "posix_spawn", start)
    monkeypatch.setattr(os, "system", start)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    return commands


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the Popen that was kept from its work
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_postscript_is_refused_and_nothing_is_started(tmp_path: Path, started: list[Any]) -> None:
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "EPS")
    with pytest.raises(OSError, match="not started"):
        Image.open(content).load()
    assert started  # Pillow alone would start Ghostscript
    started.clear()
    for suffix in sorted(IMAGE_SUFFIXES):
        path = tmp_path / f"1{suffix}"
        path.write_bytes(content.getvalue())
        with pytest.raises(DataError, match=f"^cannot read .*1{suffix}: not an image, or its header is damaged$"):
            read_image(path)
        with pytest.raises(DataError, match=f"^cannot read 1{suffix}: not an image"):
            decode_image(content.getvalue(), f"1{suffix}")
    assert started == []


@pytest.mark.filterwarnings("ignore:.* image format is deprecated:DeprecationWarning")
@pytest.mark.parametrize("format_", OTHERS)
def test_formats_that_no_suffix_of_ours_stands_for_are_refused(tmp_path: Path, format_: str) -> None:
    image = Image.new("RGB", (32, 32), "red")
    content = io.BytesIO()
    for mode in ("RGB", "L", "1", "RGBA"):
        try:
            content = io.BytesIO()
            image.convert(mode).save(content, format_)
            break
        except (OSError, ValueError):
            continue
    else:
        pytest.skip(f"Pillow does not write {format_} here")
    path = tmp_path / "1.png"
    path.write_bytes(content.getvalue())
    with pytest.raises(DataError, match="not an image, or its header is damaged"):
        read_image(path)


FITS = "".join(f"{card:80}" for card in ["SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 1", "NAXIS1  = 4", "END"])
NOT_WRITTEN = {
    "PSD": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 2, 2, 8, 3) + bytes(14) + bytes(12),
    "FITS": f"{FITS:2880}".encode() + bytes(2880),
}


@pytest.mark.parametrize(("format_", "content"), NOT_WRITTEN.items())
def test_formats_that_pillow_does_not_write_are_refused(format_: str, content: bytes) -> None:
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == format_
    with pytest.raises(DataError, match="not an image, or its header is damaged"):
        decode_image(content, "1.png")


def test_a_phones_jpeg_with_several_pictures(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (8, 8), "blue")
    path = tmp_path / "1.jpg"
    first.save(path, "MPO", save_all=True, append_images=[second], quality=95)
    with Image.open(path) as image:
        assert image.format == "MPO"
    found = read_image(path)
    assert found.size == (16, 16)
    assert np.abs(np.asarray(found).astype(int) - [254, 0, 0]).max() <= 2


def pipe(path: Path) -> None:
    os.mkfifo(path)


def server(path: Path) -> None:
    # A socket's name may have 107 characters, and the path here is longer.
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


NO_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (pipe, "it is a named pipe, not a file"),
    "socket": (server, "it is a socket, not a file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a file"),
    "link to a pipe": (lambda path: (pipe(path.with_name("p")), path.symlink_to("p"))[0], "it is a named pipe"),
    "link to nothing": (lambda path: path.symlink_to("nothing"), "No such file or directory"),
    "link to itself": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    "link through a file": (lambda path: path.symlink_to("a.png/b"), "Not a directory"),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
@pytest.mark.parametrize(("make", "reason"), NO_FILES.values(), ids=NO_FILES.keys())
def test_what_is_no_file_is_listed_and_then_refused(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    (tmp_path / "owl").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "owl/a.png")
    make(tmp_path / "owl/b.png")
    make(tmp_path / "aside")  # not a class
    entries = list_images(tmp_path)
    assert [(entry.key, entry.label) for entry in entries] == [("owl/a.png", 0), ("owl/b.png", 0)]
    with pytest.raises(DataError, match=f"^cannot read {entries[1].path}: .*{reason}"):
        read_image(entries[1].path)


def test_a_hidden_folder_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "owl/.cache/deep").mkdir(parents=True)
    (tmp_path / "owl/1.png").touch()
    (tmp_path / "owl/.cache/deep/2.png").touch()
    (tmp_path / "owl/.cache/deep/loop").symlink_to(tmp_path / "owl")
    (tmp_path / "owl/.self").symlink_to(tmp_path / "owl")
    (tmp_path / "owl/.circle").symlink_to(".circle")
    assert [entry.key for entry in list_images(tmp_path)] == ["owl/1.png"]
    found = sorted(path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path, hidden=True))
    assert found == ["owl/.cache/deep/2.png", "owl/.cache/deep/loop", "owl/.circle", "owl/.self", "owl/1.png"]


def test_a_hidden_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the operating system's refusal is played."""
    (tmp_path / ".cache/secret").mkdir(parents=True)
    scandir = os.scandir

    def refused(path: Path) -> Any:
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert list(files_below(tmp_path, hidden=True)) == [tmp_path / ".cache/secret"]
    (tmp_path / "secret").mkdir()
    with pytest.raises(DataError, match=f"^cannot read {tmp_path / 'secret'}: Permission denied$"):
        list(files_below(tmp_path, hidden=True))


def test_folders_deeper_than_calls_may_be(tmp_path: Path) -> None:
    depth = sys.getrecursionlimit() + 100
    file = tmp_path.joinpath(*"d" * depth, "1.png")
    folders = list(file.parents)[:depth]  # those that pytest's own clearing would not get through
    for folder in reversed(folders):
        folder.mkdir()
    file.touch()
    try:
        assert list(files_below(tmp_path)) == [file]
    finally:
        file.unlink()
        for folder in folders:
            folder.rmdir()


# ---- pixels


def transparent() -> Iterator[tuple[str, Image.Image, str, dict[str, Any]]]:
    """Every way in which a file may be transparent, or deep: mode, image, format, options."""
    values = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    colours = Image.fromarray(values)
    palette = Image.fromarray(values[..., :3]).quantize(16)
    yield "RGBA", colours, "PNG", {}
    yield "RGBA", colours, "WEBP", {"lossless": True, "exact": True}
    yield "RGBA", colours, "TIFF", {}
    yield "LA", Image.fromarray(values[..., :2], "LA"), "PNG", {}
    yield "P", palette, "PNG", {"transparency": bytes(range(0, 256, 16))}
    yield "P", palette, "PNG", {"transparency": 3}
    yield "P", palette, "GIF", {"transparency": 3}
    yield "RGB", Image.fromarray(values[..., :3]), "PNG", {"transparency": tuple(map(int, values[0, 0, :3]))}
    yield "L", Image.fromarray(values[..., 0]), "PNG", {"transparency": int(values[0, 0, 0])}
    yield "PA", palette.convert("PA"), "TIFF", {}
    for format_ in ("PNG", "TIFF"):
        deep = Image.fromarray(values[..., :2].copy().view(np.uint16)[..., 0])
        yield "I;16", deep, format_, {}
    yield "I", Image.fromarray(values[..., 0].astype(np.int32) * 257), "TIFF", {}


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("image", "format_", "options"), [case[1:] for case in transparent()])
def test_stripes_do_not_show(
    image: Image.Image, format_: str, options: dict[str, Any], orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The expected result is that of Pillow, and for deep pixels of numpy, on the image as a whole."""
    exif = Image.Exif()
    exif[274] = orientation
    content = io.BytesIO()
    image.save(content, format_, **options, **({} if format_ == "GIF" else {"exif": exif}))
    with Image.open(content) as stored:
        whole = ImageOps.exif_transpose(stored)
    if whole.mode.startswith("I"):
        grey = np.round(np.asarray(whole).astype(np.float64) / 257).astype(np.uint8)
        expected = np.stack([grey] * 3, axis=-1)
    else:
        clear = whole.convert("RGBA")
        expected = np.asarray(Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear))[..., :3]
    for pixels in (1, 15, 2**20):  # a row at a time, two rows, all of it
        monkeypatch.setattr(images, "_STRIPE", pixels)
        found = decode_image(content.getvalue(), "1")
        assert found.mode == "RGB"
        assert np.array_equal(np.asarray(found), expected)


PEAK = """
import re, sys
from pathlib import Path
from sgdmix_albu.io.images import read_image

def memory(name):
    return int(re.search(rf"{name}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

before = memory("VmRSS")
width, height = read_image(sys.argv[1]).size
print((memory("VmHWM") - before) * 1024 / (4 * width * height))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the memory's peak is read as Linux gives it")
@pytest.mark.parametrize(("mode", "turned"), [("RGBA", 1), ("RGBA", 6), ("RGB", 6), ("I;16", 1)])
def test_memory_for_no_more_than_two_copies_of_the_image(tmp_path: Path, mode: str, turned: int) -> None:
    """As Pillow keeps them, four bytes a pixel; what a stripe takes is a fifth of this image."""
    exif = Image.Exif()
    exif[274] = turned
    Image.new(mode, (6000, 4000)).save(tmp_path / "1.png", compress_level=1, exif=exif)
    ran = subprocess.run([sys.executable, "-c", PEAK, tmp_path / "1.png"], capture_output=True, text=True, check=True)
    assert float(ran.stdout) < 2.6


# ---- files that are larger than they look


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def tiff(width: int, height: int) -> bytes:
    """Header and tags; the one strip would have 4 GB."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 2**32 - 1}
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + bytes(4)


BOMB = zlib.compress(bytes(2**26))
HUGE: dict[str, bytes] = {
    "png": png(60_000, 60_000),
    "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "ppm": b"P6 60000 60000 255\n" + bytes(100),
    "gif": b"GIF89a"
    + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
    + b","
    + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
    + b"\2",
    "webp": b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x3f\0\xff\x3f\0" + bytes(20),
    "tiff": tiff(60_000, 60_000),
    "strip": tiff(400, 400),
    "itxt": png(4, 4, chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB)),
    "ztxt": png(4, 4, chunk(b"zTXt", b"a\0\0" + BOMB)),
    "iccp": png(4, 4, chunk(b"iCCP", b"a\0\0" + BOMB)),
}


@pytest.mark.parametrize("content", HUGE.values(), ids=HUGE.keys())
def test_headers_that_promise_more_than_there_is(content: bytes) -> None:
    with pytest.raises(DataError, match="^cannot read 1.png: "):
        decode_image(content, "1.png")


def test_a_file_larger_than_any_photograph_is_not_read(tmp_path: Path) -> None:
    """WebP files are read as a whole before anything else; this one is a hole of a terabyte."""
    if not features.check("webp"):
        pytest.skip("Pillow without WebP")
    path = tmp_path / "1.webp"
    Image.new("RGB", (4, 4)).save(path)
    os.truncate(path, 2**40)
    with pytest.raises(DataError, match=r"1\.webp: it is larger than \d+ bytes, the limit"):
        read_image(path)


def test_frames_after_the_first_are_not_decoded() -> None:
    content = io.BytesIO()
    frames = [Image.new("L", (2000, 2000), value % 256) for value in range(8)]
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:])
    cut = content.getvalue()[: content.tell() // 2]  # the first frame is whole, a later one is not
    assert decode_image(cut, "1.gif").getpixel((0, 0)) == (0, 0, 0)
