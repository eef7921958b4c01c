"""What there is to read, and what is said of the rest."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from expand_helpers import write_tree
from fsspec import filesystem
from PIL import Image
from torchvision.datasets import ImageFolder

from sgdmix_albu.datasets import get_dataset
from sgdmix_albu.datasets.pixels import load_pixels, to_pixels
from sgdmix_albu.datasets.sample import draw_sample
from sgdmix_albu.datasets.source import open_source
from sgdmix_albu.errors import DataError, InvalidInputError, UnknownNameError
from sgdmix_albu.refine.finetuning.data import TrainingImages


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_odd_names_links_and_nested_folders(tmp_path: Path) -> None:
    root = touch(
        tmp_path / "data", "été chaud/a b.jpg", "owl/deep/er/1.PNG", "owl/...x.gif", "o'\"wl\n/1.jpg", "-p/--x.png"
    )
    (root / "owl" / "link.jpg").symlink_to(touch(tmp_path, "elsewhere.jpg") / "elsewhere.jpg")
    (root / "none").mkdir()
    source = open_source(root)
    assert {item.key for item in source.items} == {
        "été chaud/a b.jpg", "owl/deep/er/1.PNG", "o'\"wl\n/1.jpg", "-p/--x.png", "owl/link.jpg"
    }  # fmt: skip
    assert source.class_names == sorted(["été chaud", "owl", "o'\"wl\n", "-p", "none"])
    assert all(source.class_names[item.label] == item.class_name for item in source.items)


def test_linked_folders_are_read_and_their_other_files_counted(tmp_path: Path) -> None:
    root = touch(tmp_path / "data", "owl/1.jpg")
    (root / "owl" / "more").symlink_to(touch(tmp_path / "elsewhere", "2.jpg", "notes.txt"))
    (root / "tit").symlink_to(touch(tmp_path / "tits", "3.jpg", "notes.txt"))
    for source in (open_source(root), open_source(f"file://{root}")):
        assert [item.key for item in source.items] == ["owl/1.jpg", "owl/more/2.jpg", "tit/3.jpg"]
        assert source.class_names == ["owl", "tit"]
        assert source.ignored == {".txt": 2}


def test_an_empty_class_folder_is_a_class_for_everybody(tmp_path: Path) -> None:
    """As torchvision's ImageFolder counts them with allow_empty."""
    root = tmp_path / "data"
    for name in ("owl", "tit"):
        (root / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(root / name / "1.png")
    for name in ("a", "nobody", "zero"):
        (root / name).mkdir()
    theirs = ImageFolder(root, allow_empty=True)
    source, trained = open_source(root), TrainingImages(root, 8)
    audited = draw_sample(source, measured=2, candidates=0, shown_classes=0, size=8, seed=0)
    assert [item.label for item in source.items] == theirs.targets == trained.labels.tolist()
    assert source.class_names == theirs.classes == list(trained.classes)
    assert audited.labels is not None
    named = [source.class_names[label] for label in audited.labels.tolist()]
    assert named == [key.partition("/")[0] for key in audited.keys]


def test_what_has_no_place_is_named(tmp_path: Path) -> None:
    root = touch(tmp_path, "owl/1.jpg", "loose.png", "notes.txt", "owl/1.xml", "owl/raw.heic", ".git/x.png", ".x.png")
    source = open_source(root)
    assert [str(one) for one in source.skipped] == ["loose.png: it is not in a class folder, so it has no label"]
    assert source.ignored == {".txt": 1, ".xml": 1, ".heic": 1, "hidden": 2}


def test_a_url_lists_what_a_path_does(tmp_path: Path) -> None:
    root = touch(
        tmp_path, "owl/1.jpg", "owl/deep/2.PNG", "tit/1.webp", "loose.png", "notes.txt", "owl/1.xml", "owl/.x/1.png",
        ".git/x.png", "tit/none", "owl barn/1.png"
    )  # fmt: skip
    url = f"memory://{tmp_path.name}"
    filesystem("memory").put(str(root), f"/{tmp_path.name}", recursive=True)
    here, there = open_source(root), open_source(url)
    assert [(one.key, one.class_name, one.label) for one in there.items] == [
        (one.key, one.class_name, one.label) for one in here.items
    ]
    assert (there.class_names, there.ignored) == (here.class_names, here.ignored)
    assert [str(one) for one in there.skipped] == [str(one) for one in here.skipped] != []


def test_samples_and_training_images_come_from_a_url_too(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", classes=2, images=3)
    filesystem("memory").put(str(root), f"/{tmp_path.name}-read", recursive=True)
    url = f"memory://{tmp_path.name}-read"
    here, there = (
        draw_sample(open_source(data), measured=4, candidates=2, shown_classes=0, size=16, seed=1)
        for data in (root, url)
    )
    assert here.keys == there.keys
    assert torch.equal(here.images, there.images)
    assert here.files == tuple(root / key for key in here.keys)
    assert there.files is None
    assert TrainingImages(url, 16).pixels == TrainingImages(root, 16).pixels


def test_names_that_no_text_can_hold(tmp_path: Path) -> None:
    (tmp_path / "owl").mkdir()
    try:
        Path(os.fsdecode(os.fsencode(tmp_path / "owl") + b"/\xff.png")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    source = open_source(touch(tmp_path, "owl/1.png"))
    assert [item.key for item in source.items] == ["owl/1.png"]
    (skipped,) = source.skipped
    assert str(skipped).isascii()
    assert skipped.reason == "its name is not valid UTF-8"


def test_a_flat_folder_has_no_classes_where_a_caller_allows_it(tmp_path: Path) -> None:
    root = touch(tmp_path, "2.png", "1.JPG", ".x.png", "notes.txt", "owl/notes.txt")
    source = open_source(root, flat=True)
    assert [(item.key, item.class_name) for item in source.items] == [("1.JPG", ""), ("2.png", "")]
    assert (source.class_names, source.ignored) == ([], {".txt": 1, "hidden": 1})
    with pytest.raises(DataError, match="found no image in a class folder of"):
        open_source(root)
    touch(root, "owl/1.png")
    assert [item.key for item in open_source(root, flat=True).items] == ["owl/1.png"]


def test_true_masks_lie_beside_images(tmp_path: Path) -> None:
    """Those of a folder, and those of drawn images, which are the drawings' own."""
    root = touch(tmp_path / "images", "owl/1.jpg", "owl/2.jpg")
    touch(tmp_path / "masks", "owl/2.png")
    Image.new("L", (4, 4), 255).save(tmp_path / "masks" / "owl" / "2.png")
    source = open_source(root, masks=tmp_path / "masks")
    assert [item.key for item in source.items] == ["owl/2.jpg"]
    assert source.truth is not None
    assert source.truth.mask("owl/2.jpg", (8, 8)).size == (4, 4)
    birds, drawn = open_source(None, "aviary", size=32), get_dataset("aviary", size=32)
    assert birds.truth is not None
    for row in (0, 5, 0):
        item = birds.items[row]
        assert torch.equal(load_pixels(item, None).pixels, to_pixels(drawn[row][0]))
        assert np.array_equal(np.asarray(birds.truth.mask(item.key, (32, 32))), drawn.render(row).mask)


def test_limit_is_spread_over_the_classes(tmp_path: Path) -> None:
    source = open_source(write_tree(tmp_path, classes=3, images=4))
    assert [item.label for item in source.thinned(6).items] == [0, 0, 1, 1, 2, 2]
    assert source.thinned(12) is source.thinned(None) is source


def test_embedded(tmp_path: Path) -> None:
    source = open_source(None, "aviary", size=32)
    assert load_pixels(source.items[0], None).pixels.shape == (3, 32, 32)
    assert source.items[1].key == f"{source.class_names[0]}/00001.png"
    assert len({item.key for item in source.items}) == len(source.items)
    with pytest.raises(UnknownNameError, match="did you mean 'aviary'"):
        open_source(None, "avairy")


def test_either_folder_or_embedded(tmp_path: Path) -> None:
    for data, dataset in [(None, None), (tmp_path, "aviary")]:
        with pytest.raises(InvalidInputError, match="either data or dataset"):
            open_source(data, dataset)
