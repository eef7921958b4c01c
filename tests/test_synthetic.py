"""``SyntheticMix`` and its kin: the right image, the right label, the right share, the same draws again."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from offline_helpers import pixels, write_tree
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from sgdmix_albu import SyntheticMix
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.offline import Settings, generate
from sgdmix_albu.offline.progress import Progress
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


@pytest.mark.parametrize("kind", ["files", "shards"])
@pytest.mark.parametrize("mode", ["source", "class", "pool"])
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
            if mode != "pool":
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
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(files)[:2]))
    for row in rows_of(files)[:2]:
        (tmp_path / row["file_name"]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / row["file_name"]).write_bytes((files / row["file_name"]).read_bytes())
    real = ImageFolder(data)
    mixed = SyntheticMix(real, tmp_path, p=1.0)
    assert np.asarray(mixed[0][0]).tobytes() != np.asarray(real[0][0]).tobytes()
    assert np.asarray(mixed[5][0]).tobytes() == np.asarray(real[5][0]).tobytes()


def test_what_does_not_fit_is_told(sets: tuple[Path, Path, Path], tmp_path: Path) -> None:
    data, files, _ = sets
    real = ImageFolder(data)
    for options, message in [
        ({"p": 1.5}, "p must be a probability"),
        ({"mode": "all"}, "mode must be 'source', 'class' or 'pool', got 'all'"),
        ({"source_keys": ["a"]}, "expected 12 source_keys, one for each image, got 1"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            SyntheticMix(real, files, **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="list has no attribute 'transform'"):
        SyntheticMix([], files)
    with pytest.raises(InvalidInputError, match="Named does not tell its images' keys"):
        SyntheticMix(Named([("image", 0)]), files, transform=None)
    with pytest.raises(DataError, match=r"has no metadata\.jsonl: sgdmix generate has not finished"):
        SyntheticMix(real, tmp_path)
    with pytest.raises(DataError, match="made from other images: 'class 0/000.png' there, 'x' here"):
        SyntheticMix(real, files, source_keys=["x"] * 12)
    (tmp_path / "metadata.jsonl").write_bytes((files / "metadata.jsonl").read_bytes())
    with pytest.raises(DataError, match="24 files that .* names are not there, such as class 0/000-00.png"):
        SyntheticMix(real, tmp_path)
    other = ImageFolder(write_tree(tmp_path / "other", classes=1, images=1))
    with pytest.raises(DataError, match="has the class 'class 1', the real data set has"):
        SyntheticMix(other, files)


class Named(list):  # type: ignore[type-arg]
    classes = ("class 0", "class 1", "class 2")


@given(junk=st.binary(max_size=200) | st.text(max_size=80).map(lambda text: json.dumps({"file_name": text}).encode()))
def test_damaged_metadata(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "metadata.jsonl").write_bytes(junk)
    if junk:
        with pytest.raises(DataError, match="is damaged"):
            SyntheticPool(folder)


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
    with pytest.raises(InvalidInputError, match="needs the column 'source'"):
        synthetic_batches(files, mode="source", class_names=names)({"image": [], "label": []})


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
