"""Reading image files: every kind a folder of photographs may hold, and every way one may be broken."""

from __future__ import annotations

import io
import os
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.io.images import list_images, read_image


@pytest.fixture
def pixels() -> np.ndarray:
    """(6, 8, 3) uint8: no symmetry, so that a turn or a mirror shows."""
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def read(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_rgb_is_exact(tmp_path: Path, pixels: np.ndarray) -> None:
    assert np.array_equal(read(save(Image.fromarray(pixels), tmp_path / "a.png")), pixels)


# What each EXIF orientation asks for (TIFF 6.0, tag 274: where row 0 and column 0 of the stored image lie).
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(tmp_path: Path, pixels: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = save(Image.fromarray(pixels), tmp_path / "a.png", exif=exif)
    assert np.array_equal(read(path), UPRIGHT[orientation](pixels))


def test_grey_and_bilevel(tmp_path: Path, pixels: np.ndarray) -> None:
    grey = pixels[..., 0]
    assert np.array_equal(read(save(Image.fromarray(grey), tmp_path / "g.png")), np.stack([grey] * 3, -1))
    bits = Image.fromarray(grey > 127)
    assert np.array_equal(read(save(bits, tmp_path / "b.png"))[..., 0], np.where(grey > 127, 255, 0))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    path = save(Image.fromarray(values), tmp_path / f"deep.{suffix}")
    assert read(path)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1))
    for x, pixel in enumerate([(10, 20, 30, 255), (10, 20, 30, 0), (0, 0, 0, 51)]):
        image.putpixel((x, 0), pixel)
    assert read(save(image, tmp_path / "a.png")).tolist() == [[[10, 20, 30], [255, 255, 255], [204, 204, 204]]]


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 200, 0])
    image.putdata([0, 1])
    assert read(save(image, tmp_path / "p.png")).tolist() == [[[200, 0, 0], [0, 200, 0]]]
    assert read(save(image, tmp_path / "t.png", transparency=1)).tolist() == [[[200, 0, 0], [255, 255, 255]]]


def test_cmyk_jpeg(tmp_path: Path) -> None:
    path = save(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), tmp_path / "c.jpg", quality=100)
    assert np.abs(read(path).astype(int) - [255, 0, 0]).max() <= 3


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    path = save(first, tmp_path / "a.gif", save_all=True, append_images=[second])
    assert read(path)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_truncated_file_is_refused(tmp_path: Path, format_: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format_)
    path = tmp_path / f"cut.{format_.lower()}"
    path.write_bytes(buffer.getvalue()[: buffer.tell() // 2])
    with pytest.raises(DataError, match=f"cannot read .*{path.name}: .+"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is empty"), (b"<html>not found</html>", "not an image"), (b"\xff\xd8", "not an")],
)
def test_what_is_no_image(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        read_image(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(DataError, match="cannot read"):
        read_image(tmp_path)


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    path = save(Image.fromarray(np.zeros((2, 2), np.float32)), tmp_path / "f.tif")
    with pytest.raises(DataError, match=r"f\.tif: floating-point"):
        read_image(path)


def test_pixel_limit_is_checked_before_decoding(tmp_path: Path) -> None:
    path = save(Image.new("L", (10, 10)), tmp_path / "big.png")
    assert read_image(path, max_pixels=100).size == (10, 10)
    path.write_bytes(path.read_bytes()[:60])  # pixels gone: decoding would complain of truncation
    with pytest.raises(DataError, match="10 x 10 pixels, the limit is 99"):
        read_image(path, max_pixels=99)
    with pytest.raises(InvalidInputError, match="max_pixels"):
        read_image(path, max_pixels=0)


def test_list_images(tmp_path: Path) -> None:
    for name in [
        "b/2.jpg",
        "b/sub/1.PNG",
        "b/.hidden.png",
        "a/.git/x.png",
        "a/notes.txt",
        "c/1.webp",
        "loose.png",
    ]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".cache").mkdir()
    entries = list_images(tmp_path)
    assert [(e.key, e.class_name, e.label) for e in entries] == [
        ("b/2.jpg", "b", 1),
        ("b/sub/1.PNG", "b", 1),
        ("c/1.webp", "c", 2),
    ]
    assert all(e.path == tmp_path / e.key for e in entries)


def test_list_images_labels_match_torchvision(tmp_path: Path) -> None:
    folder = pytest.importorskip("torchvision.datasets").ImageFolder
    for name in ["10/b.jpg", "9/a.jpg", "Z/x/c.jpg", "a/d.jpg"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    samples = folder(tmp_path).samples
    assert [(str(e.path), e.label) for e in list_images(tmp_path)] == samples


def test_linked_folders_are_read_and_a_loop_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    for name in ("elsewhere/2.jpg", "elsewhere/deep/3.png", "data/owl/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "data/owl/more").symlink_to(elsewhere)
    keys = [entry.key for entry in list_images(tmp_path / "data")]
    assert keys == ["owl/1.jpg", "owl/more/2.jpg", "owl/more/deep/3.png"]
    (elsewhere / "back").symlink_to(tmp_path / "data/owl")
    with pytest.raises(DataError, match="more/back is a link to .*owl, which contains it"):
        list_images(tmp_path / "data")


def test_a_home_folder_is_written_as_shells_write_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data/owl").mkdir(parents=True)
    Image.new("RGB", (3, 2)).save(tmp_path / "data/owl/1.png")
    assert [entry.path for entry in list_images("~/data")] == [tmp_path / "data/owl/1.png"]
    assert read_image("~/data/owl/1.png").size == (3, 2)


def test_list_images_refuses(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        list_images(tmp_path / "none")
    (tmp_path / "x.png").touch()
    with pytest.raises(DataError, match="a file"):
        list_images(tmp_path / "x.png")
    with pytest.raises(DataError, match="no folder and 1 image"):
        list_images(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"no image in the 1 class"):
        list_images(tmp_path)


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the operating system's refusal is played."""
    for name in ("owl", "tit"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    scandir, iterdir = os.scandir, Path.iterdir

    def refused(path: Path, real: Any, secret: Path) -> Any:
        if Path(path) == secret:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    for secret in (tmp_path / "tit", tmp_path):
        monkeypatch.setattr(os, "scandir", partial(refused, real=scandir, secret=secret))
        monkeypatch.setattr(Path, "iterdir", partialmethod(refused, real=iterdir, secret=secret))
        with pytest.raises(DataError, match=f"^cannot read {secret}: Permission denied$"):
            list_images(tmp_path)
