"""``SyntheticMix`` and its kin: the right image, the right label, the right share, the same draws again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from expand_helpers import pixels, write_tree
from hypothesis import given, settings
from hypothesis import strategies as st
from official import WRITERS
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import FGVCAircraft, ImageFolder
from torchvision.transforms import v2

from sgdmix_albu import SyntheticMix
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.expand import Settings, generate
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.synthetic import SyntheticPool, synthetic_batches, synthetic_samples


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Photographs, their expansion as files, and as shards."""
    root = tmp_path_factory.mktemp("sets")
    data = write_tree(root / "data", classes=3, images=4)
    for name, shards in (("files", False), ("shards", True)):
        settings = Settings(saliency="spectral_residual", mask="otsu", multiplier=2, shards=shards)
        generate(data, root / name, settings=settings, progress=Progress(quiet=True))
    return data, root / "files", root / "shards"


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]


def known(out: Path, folder: Path) -> dict[bytes, dict[str, Any]]:
    """Row of each synthetic image, by its pixels."""
    return {pixels(folder / row["file_name"]).tobytes(): row for row in rows_of(out)}


def part_of(out: Path, folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Some images of an expansion, as an expansion."""
    folder.mkdir()
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in rows:
        file = folder / row["file_name"]
        file.parent.mkdir(exist_ok=True)
        if not file.exists():
            shutil.copy(out / row["file_name"], file)
    return folder


def test_a_transform_that_is_set_is_that_of_real_and_synthetic_images(sets: tuple[Path, Path, Path]) -> None:
    data, files, _ = sets
    real = ImageFolder(data)
    for part in (real, Subset(real, [3, 5])):
        mixed = SyntheticMix(part, files, p=0.5, transform=lambda image: "before")
        mixed.transform = lambda image: "after"
        assert {mixed[0][0] for _ in range(20)} == {"after"}
        mixed.transform = None
        assert mixed[0][0].mode == "RGB"
    bare = type("Bare", (), {"classes": real.classes, "__len__": lambda s: 12, "__getitem__": lambda s, i: real[i]})()
    mixed = SyntheticMix(bare, files, transform=None, source_keys=["x/y"] * 12, mode="class")
    with pytest.raises(InvalidInputError, match="Bare has no attribute 'transform'"):
        mixed.transform = str


@pytest.mark.parametrize("kind", ["files", "shards"])
@pytest.mark.parametrize("mode", ["source", "class", "pool", "balanced"])
def test_where_images_and_labels_come_from(sets: tuple[Path, Path, Path], mode: Any, kind: str) -> None:
    data, files, shards = sets
    real = ImageFolder(data)
    mixed = SyntheticMix(real, files if kind == "files" else shards, p=1.0, mode=mode, seed=3)
    rows, others = known(files, files), 0
    for epoch in range(4):
        mixed.set_epoch(epoch)
        for index, (path, label) in enumerate(real.samples):
            image, given_label = mixed[index]
            row = rows[np.asarray(image).tobytes()]
            key = Path(path).relative_to(data).as_posix()
            assert type(given_label) is type(label)
            assert real.classes[given_label] == row["label"]
            if mode == "source":
                assert row["source"] == key
            if mode in ("source", "class"):
                assert given_label == label
            others += row["source"] != key
    assert (others == 0) == (mode == "source")


@pytest.mark.parametrize("seed", [None, 5])
def test_the_share(sets: tuple[Path, Path, Path], seed: int | None) -> None:
    data, files, _ = sets
    mixed = SyntheticMix(ImageFolder(data), files, p=0.3, seed=seed, transform=None)
    rows, hits, epochs = known(files, files), 0, 60
    for epoch in range(epochs):
        mixed.set_epoch(epoch)
        hits += sum(np.asarray(mixed[index][0]).tobytes() in rows for index in range(len(mixed)))
    draws = epochs * len(mixed)
    assert abs(hits - 0.3 * draws) < 4 * (draws * 0.3 * 0.7) ** 0.5  # binomial, four deviations
    for p, share in ((0.0, 0), (1.0, 12)):
        sure = SyntheticMix(ImageFolder(data), files, p=p)
        assert sum(np.asarray(sure[index][0]).tobytes() in rows for index in range(12)) == share


@pytest.mark.parametrize("emptied", [None, 2])
def test_balanced_draws(sets: tuple[Path, Path, Path], tmp_path: Path, emptied: int | None) -> None:
    """Diff-Mix: a class weighs 1 / (n + 1) with n its real images, and its synthetic images are alike."""
    data, files, _ = sets
    real = Subset(ImageFolder(data), [0, 1, 2, 3, 4, 5, 8])  # 4, 2 and 1 of the three classes
    made = {0: 8, 1: 3, 2: 5}
    rows = [row for row in rows_of(files) if row["file_name"] in _first(files, made) and row["label_index"] != emptied]
    out = part_of(files, tmp_path / "part", rows)
    mixed, draws = SyntheticMix(real, out, p=1.0, mode="balanced", seed=2), 2100
    places = {pixels(out / row["file_name"]).tobytes(): place for place, row in enumerate(rows)}
    seen: Counter[int] = Counter()
    for epoch in range(draws // len(mixed)):
        mixed.set_epoch(epoch)
        for image, label in mixed:
            place = places[np.asarray(image).tobytes()]
            assert label == rows[place]["label_index"]
            seen[place] += 1
    weights = {0: 1 / 5, 1: 1 / 3, 2: 1 / 2}
    weights.pop(emptied or -1, None)
    expected = [draws * weights[row["label_index"]] / sum(weights.values()) / made[row["label_index"]] for row in rows]
    distance = sum((seen[place] - mean) ** 2 / mean for place, mean in enumerate(expected))
    freedom = len(rows) - 1
    assert distance < freedom + 3.1 * (2 * freedom) ** 0.5  # chi-squared: one seed in a hundred would not


def _first(out: Path, counts: dict[int, int]) -> set[str]:
    """The first images of each class."""
    kept: list[str] = []
    for label, count in counts.items():
        kept += [row["file_name"] for row in rows_of(out) if row["label_index"] == label][:count]
    return set(kept)


def test_the_real_transform_is_applied_once_to_both(sets: tuple[Path, Path, Path]) -> None:
    data, files, _ = sets
    seen: Counter[str] = Counter()

    def count(image: Any) -> Any:
        seen[type(image).__name__] += 1
        return v2.functional.pil_to_tensor(image)

    mixed = SyntheticMix(ImageFolder(data, transform=count), files, p=0.5, seed=1)
    assert all(isinstance(mixed[index][0], torch.Tensor) for index in range(12))
    assert seen == {"Image": 12}
    own = SyntheticMix(ImageFolder(data, transform=count), files, p=1.0, transform=lambda image: "own")
    assert own[0][0] == "own"
    twice = ImageFolder(data, target_transform=lambda label: label + 100)
    assert SyntheticMix(twice, files, p=1.0)[11][1] == twice[11][1] == 102


def load(mixed: Any, workers: int, **options: Any) -> list[list[int]]:
    """The sums of all images, in order, of three epochs."""
    loader = DataLoader(mixed, batch_size=None, num_workers=workers, **options)
    epochs = []
    for epoch in range(3):
        mixed.set_epoch(epoch)
        epochs.append([int(np.asarray(image).sum()) for image, _ in loader])
    return epochs


def test_seeded_draws_do_not_depend_on_workers(sets: tuple[Path, Path, Path]) -> None:
    data, files, shards = sets
    mixed = SyntheticMix(ImageFolder(data), files, seed=7)
    alone = load(mixed, 0)
    assert len({tuple(epoch) for epoch in alone}) == 3
    assert load(mixed, 2, persistent_workers=True) == alone
    assert load(pickle.loads(pickle.dumps(SyntheticMix(ImageFolder(data), shards, seed=7))), 0) == alone
    assert load(SyntheticMix(ImageFolder(data), files, seed=8), 0) != alone


def test_unseeded_draws_follow_torch(sets: tuple[Path, Path, Path]) -> None:
    mixed = SyntheticMix(ImageFolder(sets[0]), sets[1])
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(load(mixed, 2, persistent_workers=True))
    assert runs[0] == runs[1] != runs[2]
    assert len({tuple(epoch) for epoch in runs[0]}) == 3  # other draws in each epoch, workers that persist or not


def test_an_image_of_which_nothing_was_made(sets: tuple[Path, Path, Path], tmp_path: Path) -> None:
    data, files, _ = sets
    real = ImageFolder(data)
    mixed = SyntheticMix(real, part_of(files, tmp_path / "part", rows_of(files)[:2]), p=1.0)
    assert np.asarray(mixed[0][0]).tobytes() != np.asarray(real[0][0]).tobytes()
    assert np.asarray(mixed[5][0]).tobytes() == np.asarray(real[5][0]).tobytes()


def test_what_does_not_fit_is_told(sets: tuple[Path, Path, Path], tmp_path: Path) -> None:
    data, files, _ = sets
    real = ImageFolder(data)
    for options, message in [
        ({"p": 1.5}, "p must be a probability"),
        ({"mode": "all"}, "mode must be one of source, class, pool, balanced, got 'all'"),
        ({"source_keys": ["a"]}, "expected 12 source_keys, one for each image, got 1"),
        ({"seed": -1}, r"seed must be a number from 0 to 2\*\*63 - 1, got -1"),
        ({"seed": 2**63}, "seed must be a number from 0"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            SyntheticMix(real, files, **options)  # type: ignore[arg-type]
    for place in ("s3://bucket/expanded", "memory://expanded"):
        with pytest.raises(InvalidInputError, match=f"expected a folder on this machine, got the URL {place}"):
            SyntheticMix(real, place)
    assert len(SyntheticPool(f"file://{files}")) == len(SyntheticPool(files))
    with pytest.raises(InvalidInputError, match="list has no attribute 'transform'"):
        SyntheticMix([], files)
    with pytest.raises(InvalidInputError, match="Named does not say which file each image is"):
        SyntheticMix(Named([("image", 0)]), files, transform=None)
    with pytest.raises(DataError, match=r"expected a folder that sgdmix generate or mix has finished"):
        SyntheticMix(real, tmp_path)
    with pytest.raises(DataError, match="made from other images: 'class 0/000.png' there, 'x' here"):
        SyntheticMix(real, files, source_keys=["x"] * 12)
    with pytest.raises(DataError, match="made from other images: 'class 0/000.png' there, 'none' here"):
        SyntheticMix(Subset(real, []), files)
    (tmp_path / "metadata.jsonl").write_bytes((files / "metadata.jsonl").read_bytes())
    with pytest.raises(DataError, match="24 files that .* lists are missing, such as class 0/000-00.png"):
        SyntheticMix(real, tmp_path)
    other = ImageFolder(write_tree(tmp_path / "other", classes=1, images=1))
    with pytest.raises(DataError, match="has the class 'class 1', the real data set has"):
        SyntheticMix(other, files)


class Named(list):  # type: ignore[type-arg]
    classes = ("class 0", "class 1", "class 2")


@pytest.mark.parametrize("seed", [None, 4])
def test_indices_are_a_lists(sets: tuple[Path, Path, Path], seed: int | None) -> None:
    mixed = SyntheticMix(ImageFolder(sets[0]), sets[1], seed=seed, p=0.5)
    for index in range(-12, 0):
        torch.manual_seed(9)
        last = np.asarray(mixed[index][0])
        torch.manual_seed(9)
        assert np.array_equal(last, mixed[index + 12][0])
    for index in (12, -13):
        with pytest.raises(IndexError, match=f"image {index} of a data set of 12"):
            mixed[index]
    assert len(list(mixed)) == 12


@pytest.mark.parametrize("mode", ["source", "class", "pool", "balanced"])
@pytest.mark.parametrize("nested", [False, True])
def test_subsets(sets: tuple[Path, Path, Path], mode: Any, nested: bool) -> None:
    """As the whole, whose images they name."""
    data, files, _ = sets
    seen: list[str] = []
    whole = ImageFolder(data, transform=lambda image: seen.append("image") or image, target_transform=lambda n: n + 50)
    part = Subset(Subset(whole, np.array([11, 7, 3, 5, 0])), [4, 1, 2]) if nested else Subset(whole, [0, 7, 3])
    mixed = SyntheticMix(part, files, p=1.0, mode=mode, seed=3)
    assert mixed.classes == whole.classes
    assert mixed.source_keys == ["class 0/000.png", "class 1/003.png", "class 0/003.png"]
    rows = known(files, files)
    for index, label in enumerate([0, 1, 0]):
        image, given_label = mixed[index]
        row = rows[np.asarray(image).tobytes()]
        assert given_label == row["label_index"] + 50
        assert mode in ("pool", "balanced") or row["label_index"] == label
        assert mode != "source" or row["source"] == mixed.source_keys[index]
    assert seen == ["image"] * 3  # its transform, once
    real = SyntheticMix(part, files, p=0.0)
    assert [label for _, label in real] == [50, 51, 50]


class Untold(torch.utils.data.Dataset[Any]):
    """Labels come with the images only, as those of torchvision's Aircraft, Flowers and Pets."""

    transform = None

    def __init__(self, folder: ImageFolder) -> None:
        self.folder, self.classes, self.read = folder, folder.classes, 0

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, index: int) -> Any:
        self.read += 1
        return self.folder[index]


def test_a_data_set_without_targets(sets: tuple[Path, Path, Path], tmp_path: Path) -> None:
    data, files, _ = sets
    keys = [f"class {number // 4}/{number % 4:03d}.png" for number in range(12)]
    real, rows = Untold(ImageFolder(data)), known(files, files)
    for mode in ("source", "class", "pool"):
        mixed = SyntheticMix(real, files, p=1.0, mode=mode, source_keys=keys)  # type: ignore[arg-type]
        real.read = 0
        for image, label in mixed:
            assert label == rows[np.asarray(image).tobytes()]["label_index"]
        assert real.read == (0 if mode == "pool" else 12)
    with pytest.raises(InvalidInputError, match="'balanced' counts the labels in `targets`, which Untold has not"):
        SyntheticMix(real, files, mode="balanced", source_keys=keys)
    WRITERS["aircraft"](tmp_path)
    plain, changed = FGVCAircraft(tmp_path, "train"), FGVCAircraft(tmp_path, "train", target_transform=lambda n: n + 50)
    keys = ["class 0/000.png"] * len(plain)
    with pytest.raises(InvalidInputError, match="FGVCAircraft has a target_transform and no `targets`"):
        SyntheticMix(Subset(changed, [1, 2]), files, source_keys=keys[:2])
    with pytest.raises(DataError, match="has the class 'class 0', the real data set has"):
        SyntheticMix(plain, files, source_keys=keys)


@given(junk=st.binary(max_size=200) | st.text(max_size=80).map(lambda text: json.dumps({"file_name": text}).encode()))
def test_damaged_metadata(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "metadata.jsonl").write_bytes(junk)
    with pytest.raises(DataError, match="is damaged" if junk else "lists no image"):
        SyntheticPool(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.update(source_sha256=7), "line 2 of .* is damaged: expected an image's row"),
        (lambda row: row.pop("target_sha256"), "line 2 of .* is damaged"),
        (lambda row: row.update(target_sha256=None), "line 2 of .* is damaged"),
        (lambda row: row.update(shard=3, shard_bytes=1), "line 2 of .* is damaged"),
        (lambda row: row.update(shard="../other.tar", shard_bytes=1), "line 2 of .* is damaged"),
        (lambda row: row.update(shard="/other.tar", shard_bytes=1), "line 2 of .* is damaged"),
        (lambda row: row.update(file_name="class 0/000-00.png"), "it names class 0/000-00.png 2 times"),
        (lambda row: row.update(source_sha256="0" * 64), "it lists two different files class 0/000.png"),
    ],
)
def test_a_damaged_row(
    sets: tuple[Path, Path, Path], tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    rows = rows_of(sets[1])[:2]
    assert SyntheticPool(part_of(sets[1], tmp_path / "sound", rows)).names == [row["file_name"] for row in rows]
    change(rows[1])
    (tmp_path / "sound/metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=message):
        SyntheticPool(tmp_path / "sound")


@pytest.mark.parametrize("count", [2, 24])
def test_files_that_took_part(sets: tuple[Path, Path, Path], tmp_path: Path, count: int) -> None:
    """Sources and targets; the first two images are made from one source and two targets."""
    data, files, _ = sets
    rows = rows_of(files)[:count]
    took = {row["source"] for row in rows} | {row["target"] for row in rows}
    assert len(took) == {2: 3, 24: 12}[count]
    pool = SyntheticPool(part_of(files, tmp_path / "part", rows))
    assert pool.sha256 == {key: hashlib.sha256((data / key).read_bytes()).hexdigest() for key in took}


def test_a_pool_is_read_once(sets: tuple[Path, Path, Path], tmp_path: Path) -> None:
    data, files, _ = sets
    out = Path(shutil.copytree(files, tmp_path / "copy"))
    pool = SyntheticPool(out)
    (out / "metadata.jsonl").unlink()
    real = ImageFolder(data)
    assert SyntheticMix(real, pool).pool is pool
    (sample,) = synthetic_samples([{"__key__": "class 0/000", "png": real[0][0], "cls": 0}], pool, p=1.0)
    batch = synthetic_batches(pool, p=1.0, class_names=real.classes)({"image": [real[0][0]], "label": [0]})
    rows = known(files, files)
    assert {rows[np.asarray(image).tobytes()]["label"] for image in (sample["png"], batch["image"][0])} == {"class 0"}


def test_hugging_face(sets: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    data, files, _ = sets
    loaded = datasets.load_dataset("imagefolder", data_dir=str(data), split="train", cache_dir=str(tmp_path))
    names, rows = loaded.features["label"].names, known(files, files)
    keys = [f"class {number // 4}/{number % 4:03d}.png" for number in range(12)]
    loaded = loaded.add_column("source", keys)
    for mode in ("source", "class", "pool"):
        loaded.set_transform(synthetic_batches(files, p=1.0, mode=mode, class_names=names))  # type: ignore[arg-type]
        for item in loaded:
            row = rows[np.asarray(item["image"]).tobytes()]
            assert names[item["label"]] == row["label"]
            assert mode != "source" or row["source"] == item["source"]
    loaded.set_transform(synthetic_batches(files, p=0.0, class_names=names, transform=np.asarray))
    assert all(item["image"].tobytes() not in rows for item in loaded)
    for batch in (None, {"image": [None]}, {"image": [None], "label": []}, {"image": 3, "label": [0]}):
        with pytest.raises(InvalidInputError, match="expected "):
            synthetic_batches(files, class_names=names)(batch)  # type: ignore[arg-type]
    for sample in (None, {}, {"__key__": "a", "png": None}, {"png": None, "cls": 0}):
        with pytest.raises(InvalidInputError, match="expected samples with the keys '__key__', 'png', 'cls', got "):
            list(synthetic_samples([sample], files, mode="class"))  # type: ignore[list-item]
    with pytest.raises(
        InvalidInputError, match="with the columns 'image', 'label', 'source', got one with 'image', 'label'"
    ):
        synthetic_batches(files, mode="source", class_names=names)({"image": [], "label": []})
    again = pickle.loads(pickle.dumps(synthetic_batches(files, p=1.0, class_names=names)))
    assert rows[np.asarray(again({"image": [None], "label": [2]})["image"][0]).tobytes()]["label"] == names[2]


def test_webdataset_pipelines(sets: tuple[Path, Path, Path]) -> None:
    data, files, _ = sets
    real, rows = ImageFolder(data), known(files, files)
    samples = [
        {"__key__": Path(path).relative_to(data).with_suffix("").as_posix(), "png": real[i][0], "cls": label}
        for i, (path, label) in enumerate(real.samples)
    ]
    for mode in ("source", "class", "pool"):
        stage = partial(synthetic_samples, out=files, p=1.0, mode=mode)  # type: ignore[arg-type]
        for before, after in zip(samples, stage(iter(samples)), strict=True):
            row = rows[np.asarray(after["png"]).tobytes()]
            assert after["cls"] == row["label_index"]
            assert mode == "pool" or after["cls"] == before["cls"]
            assert mode != "source" or row["source"] == before["__key__"] + ".png"
    assert list(synthetic_samples(samples, files, p=0.0)) == samples


def test_labels_of_streams_by_name(sets: tuple[Path, Path, Path]) -> None:
    """Another order of the classes than the folder's."""
    _, files, _ = sets
    rows, names = known(files, files), ["extra", "class 2", "class 0", "class 1"]
    for number, mode in [(1, "class"), (2, "class"), (3, "pool"), (np.int64(1), "pool"), (torch.tensor(0), "pool")]:
        (sample,) = synthetic_samples(
            [{"__key__": "any", "png": None, "cls": number}], files, p=1.0, mode=mode, class_names=names
        )
        batch = synthetic_batches(files, p=1.0, mode=mode, class_names=names)({"image": [None], "label": [number]})
        for image, label in ((sample["png"], sample["cls"]), (batch["image"][0], batch["label"][0])):
            assert rows[np.asarray(image).tobytes()]["label"] == names[label]
            assert mode == "pool" or label == number
    nothing = {"__key__": "any", "png": None, "cls": 0}  # nothing was made of that class
    assert list(synthetic_samples([nothing], files, p=1.0, mode="class", class_names=names)) == [nothing]


def test_streams_that_do_not_fit(sets: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, files, _ = sets
    for stage in (partial(synthetic_batches, files), partial(synthetic_samples, [], files)):
        for options, message in [
            ({"class_names": ["class 0"]}, "has the class 'class 1', the real data set has"),
            ({"class_names": Named.classes, "mode": "balanced"}, "'balanced' needs the number of real images of each"),
            ({"class_names": Named.classes, "p": -0.1}, "p must be a probability"),
        ]:
            with pytest.raises((DataError, InvalidInputError), match=message):
                stage(**options)  # type: ignore[operator]
    for label in (-1, 3, "owl", None, 1.0):
        with pytest.raises(InvalidInputError, match=f"expected a class index, 0 to 2, as label; got {label!r}"):
            synthetic_batches(files, p=0.0, class_names=Named.classes)({"image": [None], "label": [label]})
        sample = {"__key__": "class 0/000", "png": None, "cls": label}
        with pytest.raises(InvalidInputError, match=f"expected a class index, 0 to 2, as label; got {label!r}"):
            next(synthetic_samples([sample], files, class_names=Named.classes))
    with pytest.raises(InvalidInputError, match="expected a class index, 0 or more, as label; got -1"):
        next(synthetic_samples([{"__key__": "class 0/000", "png": None, "cls": -1}], files))
    rows = rows_of(files)
    rows[2]["source"] = "class 0/000.bmp"
    shared = part_of(files, tmp_path / "shared", rows)
    message = r"made from class 0/000\.png and class 0/000\.bmp, which share the key 'class 0/000'"
    with pytest.raises(DataError, match=message):
        synthetic_samples([], shared)
    assert list(synthetic_samples([], shared, mode="class")) == []


def test_a_warning_where_no_sample_was_expanded(sets: tuple[Path, Path, Path]) -> None:
    """Once, after a thousand samples or at the end; one that was, and all is well."""
    _, files, _ = sets
    message = "none of {} samples was expanded in .*: 'owl/1' here, 'class 0/000{}' there"
    strangers = [{"__key__": "owl/1", "png": None, "cls": 0}] * 1500
    with pytest.warns(UserWarning, match=message.format(3, "")) as caught:
        assert list(synthetic_samples(strangers[:3], files)) == strangers[:3]
    assert len(caught) == 1
    with pytest.warns(UserWarning, match=message.format(1000, "")) as caught:
        assert list(synthetic_samples(strangers, files)) == strangers
    assert len(caught) == 1
    batches = synthetic_batches(files, mode="source", class_names=Named.classes)
    batch = {"image": [None] * 600, "label": [0] * 600, "source": ["owl/1"] * 600}
    batches(batch)
    with pytest.warns(UserWarning, match=message.format(1000, r"\.png")):
        batches(batch)
    batches(batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        friends = [*strangers[:999], {"__key__": "class 0/000", "png": None, "cls": 0}, *strangers]
        assert len(list(synthetic_samples(friends, files, p=0.0))) == len(friends)
        assert list(synthetic_samples([], files)) == []
        assert list(synthetic_samples(strangers, files, p=0.0, mode="class")) == strangers


@settings(max_examples=150)
@given(st.floats(0, 1), st.integers(1, 255), st.sampled_from(["cut", "change", "zero"]))
def test_a_damaged_shard(sets: tuple[Path, Path, Path], where: float, bits: int, how: str) -> None:
    """An image, or one clear error; nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(sets[2], Path(folder, "copy"))
        (shard,) = copy.glob("*.tar")
        content = shard.read_bytes()
        place = min(int(where * len(content)), len(content) - 1)
        instead = {"cut": b"", "change": bytes([content[place] ^ bits]) + content[place + 1 :], "zero": bytes(512)}[how]
        shard.write_bytes(content[:place] + instead)
        pool = SyntheticPool(copy)
        for row in range(len(pool)):
            with contextlib.suppress(DataError):
                assert pool.image(row).mode == "RGB"


# The package leaves its shards to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_our_shards_and_takes_our_stage(sets: tuple[Path, Path, Path]) -> None:
    _, files, shards = sets
    webdataset = pytest.importorskip("webdataset")
    tars = sorted(str(path) for path in shards.glob("*.tar"))
    plain = list(webdataset.WebDataset(tars, shardshuffle=False).decode("pil"))
    rows = {row["file_name"]: row for row in rows_of(files)}
    assert len(plain) == len(rows)
    for sample in plain:
        row = rows[f"{sample['__key__']}.png"]
        assert sample["cls"] == row["label_index"]
        assert np.array_equal(np.asarray(sample["png"]), pixels(files / row["file_name"]))

    # The same shards stand for a real set: each image has been replaced by another of its class.
    mixed = webdataset.WebDataset(tars, shardshuffle=False).decode("pil")
    mixed = list(mixed.compose(partial(synthetic_samples, out=files, p=1.0, mode="class")))
    by_pixels = known(files, files)
    assert [sample["cls"] for sample in mixed] == [sample["cls"] for sample in plain]
    found = [by_pixels[np.asarray(sample["png"]).tobytes()] for sample in mixed]
    assert [row["label_index"] for row in found] == [sample["cls"] for sample in plain]
    assert [row["file_name"] for row in found] != [f"{sample['__key__']}.png" for sample in plain]
