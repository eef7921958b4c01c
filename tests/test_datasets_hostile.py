"""Data sets whose folders somebody else has made: pipes and devices among the files, tables that point elsewhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from official import WRITERS
from PIL import Image
from scipy.io import savemat

from sgdmix_albu.datasets import get_dataset
from sgdmix_albu.datasets.photographs import columns, matlab
from sgdmix_albu.datasets.sample import draw_sample
from sgdmix_albu.datasets.source import open_source
from sgdmix_albu.datasets.tree import write_tree
from sgdmix_albu.errors import DataError

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    return WRITERS["cub"](tmp_path / "cub")


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def nothing(path: Path) -> None:
    path.symlink_to("nothing")


def itself(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [os.mkfifo, device, nothing, itself])
def test_tables_that_are_no_files(cub: Path, make: Callable[[Path], None]) -> None:
    (cub / "classes.txt").unlink()
    make(cub / "classes.txt")
    with pytest.raises(DataError, match=r"missing: classes\.txt$"):
        get_dataset("cub", root=cub)


def test_readers_of_tables(tmp_path: Path) -> None:
    """A file may be exchanged after it was seen to be one."""
    for read in (lambda path: list(columns(path, 2)), matlab):
        with pytest.raises(DataError, match="^cannot read /dev/zero: it is a device, not a file$"):
            read(Path("/dev/zero"))
    savemat(tmp_path / "1.mat", {"labels": [1, 2]})
    assert matlab(tmp_path / "1.mat", "labels")["labels"].tolist() == [1, 2]
    for name in ("1.mat", "classes.txt"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 2**40)
    for read, name in ((lambda path: list(columns(path, 2)), "classes.txt"), (matlab, "1.mat")):
        with pytest.raises(DataError, match=rf"^cannot read {tmp_path / name}: it has 1099511627776 bytes"):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/../../b.jpg", "owl\0.jpg"])
def test_a_table_that_leads_out_of_its_folder(cub: Path, name: str) -> None:
    table = cub / "images.txt"
    (first, _), *others = columns(table, 2)
    table.write_text("\n".join(" ".join(row) for row in [[first, name], *others]))
    with pytest.raises(DataError, match="lists an image outside of its folder: 'images/"):
        get_dataset("cub", root=cub)


@pytest.mark.parametrize("make", [os.mkfifo, device, nothing, itself])
def test_images_that_are_no_files(cub: Path, tmp_path: Path, make: Callable[[Path], None]) -> None:
    data = get_dataset("cub", root=cub)
    first = data.paths[0]
    first.unlink()
    make(first)
    with pytest.raises(DataError, match=f"1 of the {len(data)} images .* are missing, such as {first}$"):
        get_dataset("cub", root=cub)
    with pytest.raises(DataError, match=f"^cannot read {first}: "):
        data[0]
    with pytest.raises(DataError, match=f"^cannot read {first}: "):
        write_tree(data, tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_a_name_that_no_file_can_have(cub: Path) -> None:
    table = cub / "images.txt"
    rows = [[number, "a" * 5000 + ".jpg"] for number, _ in columns(table, 2)]
    table.write_text("\n".join(" ".join(row) for row in rows))
    with pytest.raises(DataError, match="are missing, such as"):
        get_dataset("cub", root=cub)


# ---- the audit's


def pictures(folder: Path, count: int = 4) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number}.png")


@pytest.mark.parametrize("make", [os.mkfifo, device, nothing, itself])
@pytest.mark.parametrize("flat", [True, False])
def test_an_audit_names_what_is_no_image_and_goes_on(tmp_path: Path, make: Callable[[Path], None], flat: bool) -> None:
    folder = tmp_path / "images" if flat else tmp_path / "images/owl"
    pictures(folder)
    make(folder / "x.png")
    source = open_source(tmp_path / "images", flat=True)
    found = draw_sample(source, measured=9, candidates=0, shown_classes=0, size=8, seed=0)
    assert len(found.keys) == 4
    ((key, reason),) = found.skipped
    assert key.endswith("x.png")
    assert reason.startswith(f"cannot read {folder / 'x.png'}: ")


@pytest.mark.parametrize("make", [os.mkfifo, device, nothing, itself])
def test_an_audit_names_what_is_no_mask_and_goes_on(tmp_path: Path, make: Callable[[Path], None]) -> None:
    pictures(tmp_path / "images/owl")
    shutil.copytree(tmp_path / "images", tmp_path / "masks")
    mask = tmp_path / "masks/owl/2.png"
    mask.unlink()
    make(mask)
    source = open_source(tmp_path / "images", masks=tmp_path / "masks")
    found = draw_sample(source, measured=9, candidates=0, shown_classes=0, size=8, seed=0)
    assert sorted(found.keys) == ["owl/0.png", "owl/1.png", "owl/3.png"]
    ((key, reason),) = found.skipped
    assert key == "owl/2.png"
    assert reason.startswith(f"cannot read {mask}: ")
