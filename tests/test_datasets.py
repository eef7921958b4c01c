"""Data sets in their official layouts: the labels that torchvision reads, and one error that names what is missing."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from official import TEST, TRAIN, WRITERS, cub, waterbirds
from PIL import Image
from torch.utils.data import ConcatDataset
from torchvision import datasets as theirs
from torchvision.datasets import ImageFolder

from sgdmix_albu.datasets import EMBEDDED, get_dataset, list_datasets
from sgdmix_albu.datasets.source import open_source
from sgdmix_albu.datasets.tree import write_tree
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.io.files import stays_below

NAMES = sorted(WRITERS)
SPLITS = {name: get_dataset.__globals__["_DATASETS"].load(name).splits for name in NAMES}
EVERY = [(name, split) for name in NAMES for split in SPLITS[name]]
JOINED = {"trainval": ("train", "val"), "all": ("train", "val", "test")}  # splits of several others


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each data set's folder, in a folder of its own."""
    return {name: write(tmp_path_factory.mktemp(name)) for name, write in WRITERS.items()}


def test_every_registered_data_set_is_tested_here() -> None:
    assert [*NAMES, *EMBEDDED] == [name for name in list_datasets() if name not in EMBEDDED] + list(EMBEDDED)


@pytest.mark.parametrize(("name", "split"), EVERY)
def test_the_contract(roots: dict[str, Path], name: str, split: str) -> None:
    data = get_dataset(name, root=roots[name], split=split)
    assert len(data) == len(data.targets) == len(data.paths) == len(data.source_keys) > 0
    assert sorted(data.classes) == data.classes
    assert len(data.names) == len(data.classes) == len(set(data.classes))
    assert data.class_to_idx == dict(zip(data.classes, range(len(data.classes)), strict=True))
    assert len(set(data.source_keys)) == len(data)
    assert data.groups is None or len(data.groups) == len(data)
    for index, (key, target) in enumerate(zip(data.source_keys, data.targets, strict=True)):
        image, label = data[index]
        assert isinstance(image, Image.Image)
        assert image.mode == "RGB"
        assert type(label) is int
        assert label == target
        assert stays_below(key)
        assert key.partition("/")[0] == data.classes[label]
        assert data.paths[index].as_posix().endswith(key.partition("/")[2])
    assert repr(data) == f"{type(data).__name__}({split!r}, classes={len(data.classes)}, images={len(data)})"


@pytest.mark.parametrize("name", NAMES)
def test_options(roots: dict[str, Path], name: str) -> None:
    around = roots[name] if name == "folders" else roots[name].parent  # the folder around it will do
    plain = get_dataset(name, root=around)
    changed = get_dataset(name, root=str(roots[name]), transform=np.asarray, target_transform=lambda label: label + 50)
    assert plain.source_keys == changed.source_keys
    assert np.array_equal(np.asarray(plain[1][0]), changed[1][0])
    assert changed[1][1] == plain[1][1] + 50
    again = pickle.loads(pickle.dumps(plain))
    assert (again.targets, again.paths) == (plain.targets, plain.paths)


@pytest.mark.parametrize("name", NAMES)
def test_splits_share_no_image(roots: dict[str, Path], name: str) -> None:
    paths = [path for split in SPLITS[name] if split not in JOINED for path in _paths(roots[name], name, split)]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize(("name", "split"), [(name, split) for name, split in EVERY if split in JOINED])
def test_joined_splits(roots: dict[str, Path], name: str, split: str) -> None:
    parts = [path for part in JOINED[split] for path in _paths(roots[name], name, part)]
    assert sorted(_paths(roots[name], name, split)) == sorted(parts)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("cars", "flowers", "folders")])
def test_tables_that_an_editor_has_saved(roots: dict[str, Path], tmp_path: Path, name: str) -> None:
    """Windows' byte order mark and line ends, and blank lines, say nothing."""
    root = Path(shutil.copytree(roots[name], tmp_path / roots[name].name))
    for table in [path for path in root.rglob("*") if path.suffix in (".txt", ".csv")]:
        lines = table.read_text().splitlines()
        table.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines[:2], "", *lines[2:], "  ", "", ""]).encode())
    for split in SPLITS[name]:
        saved, official = (get_dataset(name, root=place, split=split) for place in (root, roots[name]))
        assert saved.source_keys == official.source_keys
        assert (saved.names, saved.targets, saved.groups) == (official.names, official.targets, official.groups)


@pytest.mark.parametrize("split", ["train", "test"])
def test_cars_as_kaggle_has_them(roots: dict[str, Path], tmp_path: Path, split: str) -> None:
    root = Path(shutil.copytree(roots["cars"], tmp_path / "stanford_cars"))
    (root / f"cars_{split}").rename(root / "there")
    (root / f"cars_{split}").mkdir()
    (root / "there").rename(root / f"cars_{split}" / f"cars_{split}")
    saved, official = (get_dataset("cars", root=place, split=split) for place in (root, roots["cars"]))
    assert saved.source_keys == official.source_keys
    assert np.array_equal(saved[0][0], official[0][0])


def test_a_home_folder(roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(roots["cub"].parent))
    assert get_dataset("cub", root=f"~/{roots['cub'].name}").source_keys


def _paths(root: Path, name: str, split: str) -> list[Path]:
    return list(get_dataset(name, root=root, split=split).paths)


def _torchvision(name: str, folder: Path, split: str) -> Any:
    if name == "aircraft":
        return theirs.FGVCAircraft(folder, split=split)
    if name == "cars":
        return theirs.StanfordCars(folder, split=split)
    if name == "flowers":
        parts = [theirs.Flowers102(folder, split=part) for part in JOINED.get(split, (split,))]
        oracle = ConcatDataset(parts)
        oracle.classes = parts[0].classes
        return oracle
    return theirs.OxfordIIITPet(folder, split="trainval" if split == "train" else split)


@pytest.mark.parametrize(
    ("name", "split"), [(name, split) for name, split in EVERY if name not in ("cub", "folders", "waterbirds")]
)
def test_torchvision_reads_the_same(
    roots: dict[str, Path], name: str, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It knows the published labels by their MD5; these are others.
    monkeypatch.setattr(theirs.flowers102, "check_integrity", lambda *_: True)
    oracle = _torchvision(name, roots[name].parent, split)
    data = get_dataset(name, root=roots[name], split=split)
    assert data.names == list(oracle.classes)
    assert len(data) == len(oracle)
    for (image, label), (their_image, their_label) in zip(data, oracle, strict=True):
        assert label == their_label
        assert np.array_equal(np.asarray(image), np.asarray(their_image))


def test_cub_by_hand(roots: dict[str, Path]) -> None:
    train, test = (get_dataset("cub", root=roots["cub"], split=split) for split in ("train", "test"))
    assert train.names == train.classes == ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
    assert train.targets == [0] * 4 + [1] * 4 + [2] * 4
    assert test.targets == [0] * 2 + [1] * 2 + [2] * 2
    assert test.source_keys[:3] == [
        "001.Black_footed_Albatross/Black_footed_Albatross_0001_7002.jpg",
        "001.Black_footed_Albatross/Black_footed_Albatross_0004_7005.jpg",
        "002.Laysan_Albatross/Laysan_Albatross_0001_7008.jpg",
    ]


def test_waterbirds_by_hand(roots: dict[str, Path]) -> None:
    birds = get_dataset("waterbirds", root=roots["waterbirds"], split="test")
    species = get_dataset("waterbirds", root=roots["waterbirds"], split="test", labels="species")
    assert birds.classes == ["landbird", "waterbird"]
    assert birds.targets == [0, 0, 1, 1, 0, 0]
    assert species.targets == [0, 0, 1, 1, 2, 2]
    # number + class is odd on water; a waterbird's groups are 2 and 3
    assert birds.groups == species.groups == [0, 1, 3, 2, 0, 1]
    assert birds.group_names[birds.groups[3]] == "waterbird on land"
    with pytest.raises(InvalidInputError, match="labels must be 'birds' or 'species', got 'kinds'"):
        get_dataset("waterbirds", root=roots["waterbirds"], labels="kinds")


@pytest.mark.parametrize("split", ["train", "test"])
def test_species_and_birds_of_waterbirds_are_cubs(tmp_path: Path, split: str) -> None:
    shifted = get_dataset("waterbirds", root=waterbirds(tmp_path), split=split, labels="species")
    birds = get_dataset("cub", root=cub(tmp_path), split=split)
    assert shifted.classes == birds.classes
    assert shifted.source_keys == birds.source_keys


@pytest.mark.parametrize(("name", "split"), EVERY)
def test_what_is_missing_is_named(roots: dict[str, Path], tmp_path: Path, name: str, split: str) -> None:
    data = get_dataset(name, root=roots[name], split=split)
    for needed in data.needs():
        copy = tmp_path / needed.replace("/", "_")
        shutil.copytree(roots[name], copy)
        (shutil.rmtree if needed.endswith("/") else Path.unlink)(copy / needed)
        with pytest.raises(DataError, match=f"missing: {needed}$"):
            get_dataset(name, root=copy, split=split)
    copy = tmp_path / "images"
    shutil.copytree(roots[name], copy)
    gone = copy / data.paths[0].relative_to(data.root)
    gone.unlink()
    if name == "folders":
        return  # nothing lists them but the folders themselves
    with pytest.raises(DataError, match=rf"1 of the {len(data)} images .* are missing, such as {gone}"):
        get_dataset(name, root=copy, split=split)


@pytest.mark.parametrize("name", NAMES)
def test_other_errors(roots: dict[str, Path], name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"has the splits train, .*got 'training'"):
        get_dataset(name, root=roots[name], split="training")
    with pytest.raises(DataError, match="does not exist"):
        get_dataset(name, root=roots[name] / "nowhere")
    with pytest.raises(InvalidInputError, match="is not embedded: write its photographs"):
        open_source(None, name)


TABLES = {
    "aircraft": ["data/variants.txt", "data/images_variant_train.txt"],
    "cars": ["devkit/cars_meta.mat", "devkit/cars_train_annos.mat"],
    "cub": ["classes.txt", "images.txt", "image_class_labels.txt", "train_test_split.txt"],
    "flowers": ["imagelabels.mat", "setid.mat"],
    "folders": [],
    "pets": ["annotations/trainval.txt"],
    "waterbirds": ["metadata.csv"],
}


@settings(max_examples=60)
@given(data=st.data())
@pytest.mark.parametrize(("name", "table"), [(name, table) for name in NAMES for table in TABLES[name]])
def test_damaged_tables(roots: dict[str, Path], name: str, table: str, data: st.DataObject) -> None:
    """Any change of a table is either harmless or one clear error."""
    original = (roots[name] / table).read_bytes()
    kind = data.draw(st.sampled_from(["cut", "byte", "text", "twice"]))
    place = data.draw(st.integers(0, len(original) - 1))
    damaged = {
        "cut": original[:place],
        "byte": original[:place] + bytes([original[place] ^ data.draw(st.integers(1, 255))]) + original[place + 1 :],
        "text": data.draw(st.text(max_size=40)).encode("utf-8", "surrogatepass"),
        "twice": original + original,
    }[kind]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        shutil.copytree(roots[name], copy, copy_function=_link)
        (copy / table).unlink()
        (copy / table).write_bytes(damaged)
        try:
            found = get_dataset(name, root=copy)
        except DataError:
            return
        assert all(0 <= label < len(found.classes) for label in found.targets)
        assert all(path.is_file() for path in found.paths)


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


@pytest.mark.parametrize("name", [*NAMES, "aviary"])
def test_as_a_tree(roots: dict[str, Path], tmp_path: Path, name: str) -> None:
    where = {"species": 2, "per_species": 2, "size": 32} if name == "aviary" else {"root": roots[name]}
    data = get_dataset(name, **where)
    write_tree(data, tmp_path / "tree")
    tree = ImageFolder(tmp_path / "tree")
    held = sorted(set(data.targets))
    assert tree.classes == [data.classes[label] for label in held]
    by_key = {key: (np.asarray(image), label) for key, (image, label) in zip(data.source_keys, data, strict=True)}
    assert len(tree) == len(by_key) == len(data)
    for (path, _), (image, label) in zip(tree.samples, tree, strict=True):
        expected, target = by_key[Path(path).relative_to(tree.root).as_posix()]
        assert held[label] == target
        assert np.array_equal(np.asarray(image), expected)
    with pytest.raises(DataError, match="expected an empty folder or a new one"):
        write_tree(data, tmp_path / "tree")


def test_a_tree_is_whole_or_not_there(roots: dict[str, Path], tmp_path: Path) -> None:
    data = get_dataset("cub", root=roots["cub"])
    data.paths[-1] = tmp_path / "gone.jpg"
    with pytest.raises(DataError, match="gone.jpg"):
        write_tree(data, tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_folders_of_your_own(roots: dict[str, Path], tmp_path: Path) -> None:
    oracle = ImageFolder(roots["folders"] / "train")
    data = get_dataset("folders", root=roots["folders"])
    assert data.classes == data.names == oracle.classes
    files = [(str(path), label) for path, label in zip(data.paths, data.targets, strict=True)]
    assert sorted(files) == sorted(oracle.samples)  # its order follows folders, ours the whole path
    generated = open_source(roots["folders"] / "train")
    assert data.source_keys == [item.key for item in generated.items]
    assert {"owl/0/1.jpg", "owl/1/1.jpg"} < set(data.source_keys)
    assert data.has_split("val")
    copy = shutil.copytree(roots["folders"], tmp_path / "photos")
    shutil.rmtree(copy / "val")
    assert not get_dataset("folders", root=copy).has_split("val")
    (copy / "test" / "owl").rename(copy / "test" / "eagle")
    with pytest.raises(DataError, match=r"test has the class 'eagle', .*train has not"):
        get_dataset("folders", root=copy, split="test")


def test_counts_of_the_tiny_sets(roots: dict[str, Path]) -> None:
    """The tests above would pass on sets that lost images alike."""
    for split, count in (("train", TRAIN), ("test", TEST)):
        assert [len(get_dataset(name, root=roots[name], split=split)) for name in NAMES] == [3 * count] * len(NAMES)
