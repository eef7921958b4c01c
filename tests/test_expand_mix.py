"""``mix_folder`` from end to end: pixels from source and target and nowhere else, nothing lost, readable by others."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from expand_helpers import brightness, photograph, pixels, write_tree
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18

from sgdmix_albu.errors import DataError, InvalidInputError, SGDMixError
from sgdmix_albu.expand import Expansion, Settings, generate, mix_folder, verify
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.saliency import SaliencyBackend, register_backend
from sgdmix_albu.synthetic import SyntheticPool

pytestmark = pytest.mark.usefixtures("by_hand")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("photographs"), classes=3, images=4)


def mix(data: Path | None, out: Path, **settings: Any) -> Any:
    given = {"saliency": "brightness", "mask": "bright", "fill": "source", "workers": 2, **settings}
    return mix_folder(data, out, **given)


def metadata(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]


def asked_in(out: Path) -> dict[str, Any]:
    """The settings of a run, which stand once for all its images."""
    settings: dict[str, Any] = json.loads((out / ".sgdmix-run.json").read_text())["settings"]
    return settings


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the lock and the holder's name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".sgdmix-lock", ".sgdmix-holder")
    }


# What a finished run keeps beside the images.
KEPT = {
    "metadata.jsonl",
    *(f".sgdmix-{name}" for name in ("run.json", "images.jsonl", "plan.jsonl", "quarantine.jsonl")),
}


def foreground(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32).mean(2) / 255 > 0.5


def nearest_pixels(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Each pixel's value is that of the old pixel under its centre, in whole numbers."""
    rows = (2 * np.arange(height) + 1) * mask.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * mask.shape[1] // (2 * width)
    return mask[rows][:, columns]


def test_every_pixel_is_the_sources_or_the_targets(photographs: Path, tmp_path: Path) -> None:
    summary = mix(photographs, tmp_path / "out")
    rows = metadata(tmp_path / "out")
    assert (summary.mixed, summary.written, summary.skipped) == (12, 12, [])
    for row in rows:
        source, target = pixels(photographs / row["source"]), pixels(photographs / row["target"])
        mixed = pixels(tmp_path / "out" / row["file_name"])
        assert row["label"] == Path(row["source"]).parts[0]
        height, width = mixed.shape[:2]
        assert mixed.shape == source.shape
        kept = foreground(source)
        if target.shape == source.shape:
            kept |= foreground(target)
        else:  # another size: the target and its mask follow the source's
            target = np.asarray(Image.fromarray(target).resize((width, height), Image.Resampling.BICUBIC))
            kept |= nearest_pixels(foreground(pixels(photographs / row["target"])), height, width)
        assert np.array_equal(mixed, np.where(kept[..., None], source, target))
        assert row["kept"] == pytest.approx(kept.mean())
        assert row["mixed"] is True
        assert row["unmixed_because"] is None


def check_painted(row: dict[str, Any], data: Path, out: Path) -> None:
    """With a hard edge: the source's pixels under its own mask, and what may stand elsewhere.

    The discs are brighter than 180 and what is around them is darker than 100, so paint is darker than 100.
    """
    source, target = pixels(data / row["source"]), pixels(data / row["target"])
    mixed, own, other = pixels(out / row["file_name"]), foreground(source), foreground(target)
    assert np.array_equal(mixed[own], source[own])
    assert mixed[~own].max() < 110  # enlarged by splines, edges ring
    if target.shape == source.shape:
        rim = np.ones((2 * round(max(own.shape) / 48) + 1,) * 2)
        beside = ~own & ~ndimage.binary_dilation(other, rim)
        assert np.array_equal(mixed[beside], target[beside])
    assert row["kept"] == pytest.approx(own.mean())
    assert row["fill"] == "inpaint"


def test_targets_lose_their_objects_to_paint(photographs: Path, tmp_path: Path) -> None:
    summary = mix(photographs, tmp_path, fill="inpaint", feather=0)
    assert summary.mixed == 12
    for row in metadata(tmp_path):
        check_painted(row, photographs, tmp_path)


def test_painted_backgrounds_meet_the_source_at_a_soft_border(photographs: Path, tmp_path: Path) -> None:
    for name, feather in (("hard", 0), ("soft", None), ("wide", 4)):
        mix(photographs, tmp_path / name, fill="inpaint", feather=feather)
    assert [asked_in(tmp_path / name)["feather"] for name in ("hard", "soft", "wide")] == [0, None, 4]
    for row in metadata(tmp_path / "soft"):
        hard, soft = (pixels(tmp_path / name / row["file_name"]) for name in ("hard", "soft"))
        own = foreground(pixels(photographs / row["source"]))
        square = np.ones((3, 3))
        border = ndimage.binary_dilation(own, square) & ~ndimage.binary_erosion(own, square, border_value=1)
        assert np.array_equal(hard[~border], soft[~border])
        assert (hard[border] != soft[border]).any()


def test_an_object_that_fills_the_image_is_no_background(tmp_path: Path) -> None:
    for name, width in (("full", 40), ("half", 20)):
        picture = np.full((40, 40, 3), 90, np.uint8)
        picture[:, :width] = 200
        (tmp_path / "data" / name).mkdir(parents=True)
        picture[0, 0] = 100  # with a flat map it would not be a candidate
        Image.fromarray(picture).save(tmp_path / "data" / name / "1.png")
    summary = mix(tmp_path / "data", tmp_path / "out", fill="inpaint", max_coverage=1.0)
    assert (summary.mixed, summary.unmixed) == (1, Counter(over_coverage=1))
    assert "every candidate would exceed --max-coverage; written as they are" in str(summary)
    assert [row["target"] for row in metadata(tmp_path / "out")] == ["half/1.png", None]


def test_a_hole_that_leaves_nothing_at_the_sources_size_costs_its_own_image(tmp_path: Path) -> None:
    """A column of 64 is seen on the grid, and the rim of the hole of 4 pixels takes it where the source is small."""
    picture = np.full((4, 4, 3), 90, np.uint8)
    picture[1:3, 1:3] = 200
    wide = np.full((64, 64, 3), 200, np.uint8)
    wide[:, 62:] = 90
    for name, one in (("small", picture), ("wide", wide)):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.fromarray(one).save(tmp_path / "data" / name / "1.png")
    summary = mix(tmp_path / "data", tmp_path / "out", fill="inpaint", max_coverage=1.0)
    assert [(one.key, "no background is left to paint" in one.reason) for one in summary.skipped] == [
        ("small/1.png", True)
    ]
    assert summary.mixed == 1


def test_metadata_says_everything(photographs: Path, tmp_path: Path) -> None:
    mix(photographs, tmp_path, seed=7, candidates=5, max_coverage=0.9)
    (row, *others) = metadata(tmp_path)
    assert row["file_name"] == "class 0/000.png"
    asked = asked_in(tmp_path)
    assert (asked["seed"], asked["candidates"], asked["max_coverage"], asked["p"]) == (7, 5, 0.9, 1.0)
    assert (row["saliency"], row["mask"], row["fill"]) == ("brightness", "bright", "source")
    assert (row["source_threshold"], row["target_threshold"], row["refused_over_coverage"]) == (0.5, 0.5, 0)
    assert row["versions"]["torch"] == torch.__version__
    assert 0 < row["distance"] < 1
    assert all(other.keys() == row.keys() for other in others)


def test_any_number_of_jobs_gives_the_same_bytes(photographs: Path, tmp_path: Path) -> None:
    for jobs in (1, 4):
        mix(photographs, tmp_path / str(jobs), workers=jobs, seed=3, p=0.7)
    assert contents(tmp_path / "1") == contents(tmp_path / "4")
    mix(photographs, tmp_path / "other", seed=4, p=0.7, candidates=2)
    assert contents(tmp_path / "1") != contents(tmp_path / "other")


def test_unmixed_images_are_written_as_they_are(photographs: Path, tmp_path: Path) -> None:
    summary = mix(photographs, tmp_path, p=0.5, seed=1)
    unmixed = [row for row in metadata(tmp_path) if not row["mixed"]]
    assert summary.unmixed == Counter(not_drawn=len(unmixed))
    assert 0 < len(unmixed) < 12
    for row in unmixed:
        assert np.array_equal(pixels(tmp_path / row["file_name"]), pixels(photographs / row["source"]))
        assert (row["target"], row["distance"], row["kept"]) == (None, None, 1.0)
        assert row["unmixed_because"] == "not_drawn"


def test_a_loader_takes_them_too(photographs: Path, tmp_path: Path) -> None:
    mix(photographs, tmp_path, p=0.5, seed=1, shards=True)
    pool = SyntheticPool(tmp_path)
    rows = metadata(tmp_path)
    for place, row in enumerate(rows):
        assert np.asarray(pool.image(place)).shape == pixels(photographs / row["source"]).shape
    plain = next(place for place, row in enumerate(rows) if not row["mixed"])
    assert np.array_equal(np.asarray(pool.image(plain)), pixels(photographs / rows[plain]["source"]))


def test_one_size_for_all_and_jpeg(photographs: Path, tmp_path: Path) -> None:
    mix(photographs, tmp_path, size=32, image_format="jpg")
    rows = metadata(tmp_path)
    assert {Path(row["file_name"]).suffix for row in rows} == {".jpg"}
    assert {pixels(tmp_path / row["file_name"]).shape for row in rows} == {(32, 32, 3)}


def test_a_single_image(tmp_path: Path) -> None:
    data = write_tree(tmp_path / "data", classes=1, images=1)
    summary = mix(data, tmp_path / "out")
    assert (summary.mixed, summary.unmixed) == (0, Counter(no_target=1))
    assert "unmixed  1: no further candidate; written as they are" in str(summary)


def test_torchvision_reads_the_result(photographs: Path, tmp_path: Path) -> None:
    mix(photographs, tmp_path)
    before, after = ImageFolder(photographs), ImageFolder(tmp_path)
    assert after.classes == before.classes
    assert [label for _, label in after.samples] == [label for _, label in before.samples]
    assert after[5][0].size == before[5][0].size
    assert [row["label_index"] for row in metadata(tmp_path)] == before.targets


def test_hugging_face_reads_the_result(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    mix(photographs, tmp_path / "out", p=0.5, seed=1)
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache")
    )
    rows = {row["file_name"]: row for row in metadata(tmp_path / "out")}
    assert len(loaded) == len(rows) == 12
    seen = set()
    for record in loaded:
        row = next(row for row in rows.values() if row["source"] == record["source"])
        assert np.array_equal(np.asarray(record["image"]), pixels(tmp_path / "out" / row["file_name"]))
        assert (record["label"], record["target"], record["kept"]) == (row["label"], row["target"], row["kept"])
        seen.add(row["file_name"])
    assert seen == set(rows)


def awkward_tree(root: Path) -> Path:
    """One image of each kind that a folder of photographs may hold, with good ones beside them."""
    write_tree(root, classes=2, images=3)
    kinds = root / "kinds of files"
    kinds.mkdir()
    picture = Image.fromarray(photograph(50, (40, 48)))
    exif = Image.Exif()
    exif[274] = 6
    picture.convert("L").save(kinds / "grey.png")
    picture.convert("CMYK").save(kinds / "cmyk.jpg")
    picture.convert("RGBA").save(kinds / "rgba.png")
    picture.quantize(16).save(kinds / "palette.gif")
    picture.save(kinds / "turned.jpg", exif=exif)
    Image.fromarray(photograph(51)[..., 0].astype(np.uint16) * 257).save(kinds / "deep.png")
    Image.fromarray(photograph(52, (1500, 2000))).save(kinds / "large.jpg")
    picture.save(kinds / "same.png")
    picture.save(kinds / "same.bmp")
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    (kinds / "truncated.jpg").write_bytes(buffer.getvalue()[:-200])
    (kinds / "empty.jpg").touch()
    (kinds / "text.png").write_text("<html>404</html>")
    (kinds / "broken link.png").symlink_to(root / "nowhere.png")
    (root / "loose.png").write_bytes((kinds / "rgba.png").read_bytes())
    (root / "class without images").mkdir()
    return root


def test_awkward_files_are_mixed_or_listed_and_nothing_is_lost(tmp_path: Path) -> None:
    data = awkward_tree(tmp_path / "data")
    before = contents(data)
    summary = mix(data, tmp_path / "out")
    assert sorted(one.key for one in summary.skipped) == [
        "kinds of files/broken link.png",
        "kinds of files/empty.jpg",
        "kinds of files/text.png",
        "kinds of files/truncated.jpg",
        "loose.png",
    ]
    rows = metadata(tmp_path / "out")
    assert len(rows) == summary.written == 6 + 9
    names = {row["file_name"] for row in rows}
    assert names | KEPT == contents(tmp_path / "out").keys()
    sizes = {Path(row["source"]).name: pixels(tmp_path / "out" / row["file_name"]).shape[:2] for row in rows}
    assert sizes["turned.jpg"] == (48, 40)
    assert sizes["large.jpg"] == (1500, 2000)
    assert {row["file_name"] for row in rows} >= {"kinds of files/same.png.png", "kinds of files/same.bmp.png"}
    assert contents(data) == before
    for word in (
        "truncated.jpg: cannot read",
        "loose.png: it is not in a class folder",
        "written  15 of 15 images from 19 sources",
    ):
        assert word in str(summary)


def test_a_file_that_vanishes_while_the_run_goes_on(photographs: Path, tmp_path: Path) -> None:
    data = shutil.copytree(photographs, tmp_path / "data")
    seen = 0

    def last_look(images: Tensor) -> Tensor:
        nonlocal seen
        seen += len(images)
        if seen == 12:
            (data / "class 1" / "002.png").unlink()
        return brightness(images)

    register_backend("last_look", last_look)
    summary = mix(data, tmp_path / "out", saliency="last_look")
    reasons = {one.key: one.reason for one in summary.skipped}
    assert "No such file" in reasons["class 1/002.png"]
    rows = metadata(tmp_path / "out")
    assert len(rows) + summary.lost == 12
    assert reasons.keys() == {"class 1/002.png"}  # which others lost as their target, too
    assert "class 1/002.png" not in {row["target"] for row in rows}


def test_other_settings_are_another_run(photographs: Path, tmp_path: Path) -> None:
    """As of an expansion: refused, unless the folder is begun anew; what means nothing changes nothing."""
    mix(photographs, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(SGDMixError, match="no such backend|unknown"):
        mix(photographs, tmp_path / "out", saliency="brightnes", overwrite=True)
    with pytest.raises(DataError, match=r"started with other settings: limit None \(now 3\)"):
        mix(photographs, tmp_path / "out", limit=3)
    assert mix(photographs, tmp_path / "out").written == 0
    assert contents(tmp_path / "out") == before
    mix(photographs, tmp_path / "out", limit=3, image_format="jpg", overwrite=True)
    made = contents(tmp_path / "out").keys() - KEPT
    assert (len(made), {Path(name).suffix for name in made}) == (3, {".jpg"})


def test_the_output_is_only_touched_when_the_input_has_been_read(photographs: Path, tmp_path: Path) -> None:
    mix(photographs, tmp_path / "out")
    before = contents(tmp_path / "out")

    def broken(images: Tensor) -> Tensor:
        raise SGDMixError("no such layer")

    register_backend("broken", broken)
    with pytest.raises(SGDMixError, match="no such layer"):
        mix(photographs, tmp_path / "out", saliency="broken", overwrite=True)
    assert contents(tmp_path / "out") == before


def test_settings_that_a_mix_has_not(photographs: Path, tmp_path: Path) -> None:
    for setting in ({"multiplier": 2}, {"keep_unmixed": False}, {"fil": "source"}):
        with pytest.raises(InvalidInputError, match=f"mix_folder has no option '{next(iter(setting))}'"):
            mix(photographs, tmp_path / "out", **setting)


def test_a_file_in_the_folders_place(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("battery")
    with pytest.raises(DataError, match="cannot write .*out is a file"):
        mix(photographs, tmp_path / "out")


def test_a_folder_of_a_mix_of_an_earlier_version(tmp_path: Path) -> None:
    for name in ("metadata.jsonl", ".sgdmix-mixed.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(DataError, match="written by sgdmix mix of an earlier version"):
        verify(tmp_path)


def test_a_folder_of_generate_is_another_runs(photographs: Path, tmp_path: Path) -> None:
    generate(photographs, tmp_path, settings=Settings("brightness", "bright", fill="source"))
    with pytest.raises(DataError, match=r"started with other settings: keep_unmixed False \(now True\), multiplier 5"):
        mix(photographs, tmp_path)


def test_a_mix_is_an_expansion_that_keeps_what_stays_unmixed(photographs: Path, tmp_path: Path) -> None:
    mix(photographs, tmp_path / "mixed", p=0.5, seed=1)
    settings = Settings("brightness", "bright", fill="source", multiplier=1, p=0.5, seed=1)
    done = generate(photographs, tmp_path / "made", settings=settings)
    assert isinstance(done, Expansion)
    assert "not selected by --p" in str(done)
    mixed, made = contents(tmp_path / "mixed"), contents(tmp_path / "made")
    wanted = {row["file_name"] for row in metadata(tmp_path / "mixed") if row["mixed"]}
    assert {name: mixed[name] for name in wanted} == {name: made[name] for name in made if name.endswith(".png")}
    assert done.left_out == Counter(not_drawn=12 - len(wanted))


def test_interrupted(photographs: Path, tmp_path: Path, small_chunks: None) -> None:
    class Interrupting(Progress):
        def over(self, items: Any, label: str, total: int, **_: Any) -> Iterator[Any]:
            for done, item in enumerate(items):
                if label == "expanding" and done == 1:
                    raise KeyboardInterrupt
                yield item

    threads, running = torch.get_num_threads(), threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        mix(photographs, tmp_path / "out", progress=Interrupting())
    assert (torch.get_num_threads(), threading.active_count()) == (threads, running)
    left = contents(tmp_path / "out")
    assert "metadata.jsonl" not in left
    assert not [name for name in left if name.endswith(".tmp")]
    assert all(pixels(tmp_path / "out" / name).size for name in left if name.endswith(".png"))
    there = sum(name.endswith(".png") for name in left)
    done = mix(photographs, tmp_path / "out")  # the same call goes on
    assert (done.written, done.there, done.mixed) == (12 - there, 12, 12)
    mix(photographs, tmp_path / "quiet")
    assert contents(tmp_path / "out") == contents(tmp_path / "quiet")


def test_disk_full(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, calls = os.fsync, iter(range(10**6))

    def filling(descriptor: int) -> None:
        if next(calls) > 5:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", filling)
    with pytest.raises(DataError, match="No space left on device"):
        mix(photographs, tmp_path)
    left = contents(tmp_path)
    assert "metadata.jsonl" not in left
    assert not [name for name in left if name.endswith(".tmp")]
    monkeypatch.undo()
    assert mix(photographs, tmp_path).there == 12


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *[("p", 2), ("candidates", 0), ("size", 0), ("limit", 0), ("seed", -1)],
        *[("feather", -1), ("feather", float("nan"))],
        *[("target_class", "x"), ("fill", "x"), ("image_format", "gif"), ("normalize", "x")],
    ],
)
def test_settings_are_checked_before_anything_is_made(
    photographs: Path, tmp_path: Path, setting: str, value: object
) -> None:
    with pytest.raises(InvalidInputError, match=setting):
        mix(photographs, tmp_path / "out", **{setting: value})
    with pytest.raises(InvalidInputError, match="workers"):
        mix(photographs, tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_a_classifier_gets_its_pixels_and_its_outputs(photographs: Path, tmp_path: Path) -> None:
    seen: list[tuple[float, list[int] | None]] = []
    targets: list[str] = []

    class Noting(SaliencyBackend):
        wants_rgb = False

        def __init__(self, *, model: nn.Module, target: str) -> None:
            super().__init__()
            targets.append(target)
            assert model.fc.out_features in (3, 4)

        def _raw(self, images: Tensor, labels: Tensor | None) -> Tensor:
            seen.append((float(images.min()), None if labels is None else sorted(set(labels.tolist()))))
            return brightness(images)

    register_backend("noting", Noting)
    weights = tmp_path / "weights.pt"
    names = ["other", "class 2", "class 1", "class 0"]

    def run(out: str, classes: int, **settings: Any) -> dict[str, Any]:
        torch.save(resnet18(num_classes=classes).state_dict(), weights)
        seen.clear()
        mix(photographs, tmp_path / out, saliency="noting", model=weights, arch="resnet18", **settings)
        return metadata(tmp_path / out)[0]

    row = run("by order", 3)
    assert {tuple(labels or ()) for _, labels in seen} == {(0, 1, 2)}
    assert min(low for low, _ in seen) < -0.5  # standardised
    assert (row["model"], row["normalize"], row["explained"]) == ("resnet18", "imagenet", "label")
    assert len(row["model_sha256"]) == 64
    (tmp_path / "names.txt").write_text("\n".join(names))
    run("by name", 4, class_names=tmp_path / "names.txt", normalize="none")
    assert {tuple(labels or ()) for _, labels in seen} == {(1, 2, 3)}
    assert min(low for low, _ in seen) >= 0
    assert run("unknown classes", 4)["explained"] == "predicted"
    assert {labels for _, labels in seen} == {None}
    assert targets == ["label"] * 4 + ["predicted"] * 2  # once to see whether it fits, once by the worker


def test_gradcam_and_a_model_that_takes_one_size(photographs: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    torch.save({"arch": "resnet18", "state_dict": resnet18(num_classes=3).state_dict()}, weights)
    summary = mix(photographs, tmp_path / "out", saliency="gradcam", mask="otsu", model=weights, size=64)
    assert summary.written == 12
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=3).state_dict(), weights)
    with pytest.raises(SGDMixError, match=r"vit_tiny_patch16_224 failed on . images of .*; --size brings"):
        mix(photographs, tmp_path / "none", saliency="gradcam", model=weights, arch="vit_tiny_patch16_224")


def test_hugging_face_reads_classes_and_files_named_after_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the lines of the manual: nothing lost, labels as the real set has them, one set after the other."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    write_tree(tmp_path / "real")
    for place, name in enumerate(("test", "train", "val")):
        (tmp_path / "real" / f"class {place}").rename(tmp_path / "real" / name)
    (tmp_path / "real/test/000.png").rename(tmp_path / "real/test/train_0000.png")
    (tmp_path / "real/val/001.png").rename(tmp_path / "real/val/test_0000.png")
    mix(tmp_path / "real", tmp_path / "out")

    def read(files: list[str]) -> Any:
        return datasets.load_dataset(
            "imagefolder", data_files={"train": files}, split="train", cache_dir=str(tmp_path / "cache")
        )

    real = read([f"{tmp_path}/real/**"])
    made = read([f"{tmp_path}/out/*/**", f"{tmp_path}/out/metadata.jsonl"])
    rows = {row["source"]: row for row in metadata(tmp_path / "out")}
    assert {record["source"] for record in made} == set(rows)
    assert len(made) == len(rows) == 12
    assert all(record["target"] == rows[record["source"]]["target"] for record in made)
    made = made.cast_column("label", real.features["label"])
    assert all(record["label"] == rows[record["source"]]["label_index"] for record in made)
    both = datasets.concatenate_datasets([real, made.select_columns(["image", "label"])])
    assert len(both) == 24
    assert sorted(both["label"]) == [0] * 8 + [1] * 8 + [2] * 8


# One at a time, and what was written can be verified


def test_two_at_once_on_a_new_folder(photographs: Path, tmp_path: Path) -> None:
    """Of many that begin together one writes, and the others are told of it; what is there is of one seed."""
    told: list[DataError] = []
    done: list[int] = []
    ready = threading.Barrier(4)

    def one(seed: int) -> None:
        ready.wait()
        try:
            mix(photographs, tmp_path / "out", seed=seed, workers=1, progress=Progress(quiet=True))
            done.append(seed)
        except DataError as error:
            told.append(error)

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = done
    assert len(told) == 3
    assert all(
        "another sgdmix process is working on" in str(error) or "started with other settings: seed" in str(error)
        for error in told
    )
    mix(photographs, tmp_path / "alone", seed=winner)
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
    assert verify(tmp_path / "out", progress=Progress(quiet=True)).good


def test_what_was_mixed_can_be_verified(photographs: Path, tmp_path: Path) -> None:
    mix(photographs, tmp_path, p=0.5, seed=1)
    quiet = Progress(quiet=True)
    for row in metadata(tmp_path):
        content = (tmp_path / row["file_name"]).read_bytes()
        assert (row["bytes"], row["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert str(verify(tmp_path, progress=quiet)) == "verified 12 of 12 images"
    victim, lines = tmp_path / "class 1" / "002.png", (tmp_path / "metadata.jsonl").read_bytes().splitlines(True)
    victim.write_bytes(victim.read_bytes()[:-1])
    (tmp_path / "class 1" / "mine.png").write_bytes(b"mine")
    found = verify(tmp_path, progress=quiet)
    assert ([one[:22] for one in found.wrong], found.strangers) == (["class 1/002.png: it wa"], ["class 1/mine.png"])
    (tmp_path / "metadata.jsonl").write_bytes(b"".join(lines[:-1]))
    assert "metadata.jsonl: it was changed: 11 rows, 12 were written" in verify(tmp_path, progress=quiet).wrong
    (tmp_path / ".sgdmix-run.json").unlink()
    with pytest.raises(DataError, match="if it is a copy, copy hidden files too"):
        verify(tmp_path, progress=quiet)
