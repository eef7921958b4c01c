"""The saliency bank: right maps, computed once, whatever happens in between."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from saliency_models import cnn
from torch import Tensor, nn

from sgdmix_albu.bank import build as building
from sgdmix_albu.errors import DataError, InvalidInputError, SGDMixError
from sgdmix_albu.saliency import SaliencyBackend, SaliencyBank, build_bank, get_backend
from sgdmix_albu.saliency.fingerprint import fingerprint
from sgdmix_albu.saliency.given import given_maps


class Counting(SaliencyBackend):
    """Brightness at 4 x 4; counts the images that it is given."""

    def __init__(self, power: float = 1.0) -> None:
        super().__init__()
        self.power = power
        self.seen = 0

    @property
    def uses_labels(self) -> bool:
        return False

    def settings(self) -> dict[str, Any]:
        return {"power": self.power}

    def _raw(self, images: Tensor, labels: Tensor | None) -> Tensor:
        self.seen += len(images)
        return nn.functional.adaptive_avg_pool2d(images.mean(1), 4) ** self.power


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images in two classes, of different sizes and kinds."""
    rng = np.random.default_rng(0)
    for i, name in enumerate(["owl/1.png", "owl/2.jpg", "owl/deep/3.png", "tit/1.png", "tit/4.webp"]):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30 + i, 40, 3), dtype=np.uint8)).save(path)
    return tmp_path / "data"


def build(folder: Path, backend: Any = "spectral_residual", **options: Any) -> SaliencyBank:
    return build_bank(folder, folder.parent / "bank", backend, progress=False, batch_size=2, **options)


class Refusing(Counting):
    """Brightness, of all but black pictures."""

    def _raw(self, images: Tensor, labels: Tensor | None) -> Tensor:
        if (images.amax((1, 2, 3)) == 0).any():
            raise SGDMixError("it is black")
        return super()._raw(images, labels)


@pytest.mark.parametrize("name", ["owl/0.png", "tit/9.png"])
def test_an_image_that_the_backend_refuses_is_left_out(folder: Path, name: str) -> None:
    """The first or the last one; again and again the same bank."""
    Image.new("RGB", (40, 30)).save(folder / name)
    for _ in range(3):
        bank = build_bank(folder, folder.parent / "bank", Refusing(), progress=False)
        assert (len(bank), bank.skipped) == (5, {name: "it is black"})
    for path in (folder / "tit").iterdir():
        Image.new("RGB", (40, 30)).save(path)
    shutil.rmtree(folder / "owl")
    with pytest.raises(SGDMixError, match="it is black"):
        build_bank(folder, folder.parent / "other", Refusing(), progress=False)


def size_of_maps(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder.parent / "bank").glob("*.maps"))


@pytest.mark.parametrize("workers", [0, 2])
def test_maps_are_the_backends(folder: Path, workers: int) -> None:
    bank = build(folder, size=(48, 64), workers=workers)
    assert bank.keys == ["owl/1.png", "owl/2.jpg", "owl/deep/3.png", "tit/1.png", "tit/4.webp"]
    assert len(bank) == 5
    assert bank.shape == (64, 64)
    for index, key in enumerate(bank.keys):
        image = Image.open(folder / key).convert("RGB").resize((64, 48), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        expected = (get_backend("spectral_residual").coarse(pixels)[0] * 255).round().to(torch.uint8)
        assert (bank[key].int() - expected.int()).abs().max() <= 1  # a batch's rounding
        assert torch.equal(bank.maps([index])[0], bank[key])
    assert given_maps(bank.maps(torch.tensor([3, 0])), (2, 3, 10, 10)).shape == (2, 64, 64)
    assert bank.maps([]).shape == (0, 64, 64)


def test_by_content(folder: Path) -> None:
    bank = build(folder)
    elsewhere = shutil.copy(folder / "tit/1.png", folder.parent / "copy.png")
    assert torch.equal(bank.of_file(elsewhere), bank["tit/1.png"])
    with pytest.raises(DataError, match="no image 'tit/9.png'"):
        bank["tit/9.png"]
    (folder.parent / "other").write_bytes(b"other")
    with pytest.raises(DataError, match="content of"):
        bank.of_file(folder.parent / "other")
    with pytest.raises(InvalidInputError, match="from 0 to 4, got 5"):
        bank.maps([5])


def test_is_cheap_to_send(folder: Path) -> None:
    bank = build(folder)
    expected = bank.maps(range(5))
    sent = pickle.dumps(bank)
    assert len(sent) < 64 * 64
    assert torch.equal(pickle.loads(sent).maps(range(5)), expected)


def test_only_what_changed_is_computed(folder: Path) -> None:
    backend = Counting()
    first = build(folder, backend)
    before = {key: first[key] for key in first.keys}
    assert backend.seen == 5
    build(folder, backend)
    assert backend.seen == 5  # nothing
    Image.new("RGB", (20, 20), "red").save(folder / "tit/1.png")
    shutil.move(folder / "owl/1.png", folder / "tit/moved.png")
    (folder / "owl/2.jpg").unlink()
    second = build(folder, backend)
    assert backend.seen == 6  # the changed one; the moved one is known by its content
    assert second.keys == ["owl/deep/3.png", "tit/1.png", "tit/4.webp", "tit/moved.png"]
    assert torch.equal(second["tit/moved.png"], before["owl/1.png"])
    assert not second["tit/1.png"].any()
    build(folder, backend, size=100, overwrite=True)
    assert backend.seen == 10
    build(folder, backend, size=100, overwrite=True)
    assert backend.seen == 10  # the same settings: nothing is replaced
    other = Counting(power=2.0)
    build(folder, other, size=100, overwrite=True)
    assert other.seen == 4


def test_a_bank_of_other_settings_is_kept(folder: Path) -> None:
    before = build(folder, Counting()).maps(range(5))
    for changed, backend, options in (
        ("size", Counting(), {"size": 100}),
        ("backend", Counting(power=2.0), {}),
        ("backend, size", Counting(power=2.0), {"size": 100}),
    ):
        with pytest.raises(
            DataError, match=f"with another {changed}: name another folder, or replace it with overwrite"
        ):
            build(folder, backend, **options)
        assert torch.equal(SaliencyBank(folder.parent / "bank").maps(range(5)), before)
    with pytest.raises(InvalidInputError, match="overwrite must be True or False"):
        build(folder, Counting(), overwrite="yes")


def test_model_and_labels_count(folder: Path) -> None:
    model = cnn()
    first = build(folder, "gradcam", model=model, layer="features.0", size=32)
    assert first.shape == (16, 16)
    rows = size_of_maps(folder)

    def size_after(**options: Any) -> int:
        build(folder, "gradcam", model=model, layer="features.0", size=32, **options)
        return size_of_maps(folder)

    assert size_after() == rows
    (folder / "tit/1.png").rename(folder / "owl/0.png")  # now another class is explained
    assert size_after() == rows * 6 // 5
    with torch.no_grad():
        model.head[3].weight.add_(1)
    for changed in ({}, {"target": "predicted"}):
        with pytest.raises(DataError, match="with another backend"):
            size_after(**changed)
        assert size_after(**changed, overwrite=True) == rows  # all anew


def test_unreadable_images_are_listed(folder: Path) -> None:
    (folder / "owl/bad.png").write_bytes(b"no image")
    (folder / "owl/cut.png").write_bytes((folder / "owl/1.png").read_bytes()[:400])
    bank = build(folder)
    assert len(bank) == 5
    assert sorted(bank.skipped) == ["owl/bad.png", "owl/cut.png"]
    assert "not an image" in bank.skipped["owl/bad.png"]
    for path in folder.rglob("*.*"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no image of .* can be read; owl/1\.png: cannot read"):
        build(folder)


KILLED = """
import sys
import time
from pathlib import Path
from sgdmix_albu.bank import parts
from sgdmix_albu.saliency import build_bank

parts.PART = 1
calls = 0
def brightness(images):
    global calls
    calls += 1
    if calls == 3:
        Path(sys.argv[3]).touch()
        time.sleep(1000)
    return images.mean(1)[:, ::8, ::8]

build_bank(sys.argv[1], sys.argv[2], brightness, size=32, batch_size=1, progress=False)
"""


def test_killed_run_is_taken_up(folder: Path) -> None:
    out, flag = folder.parent / "bank", folder.parent / "third"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), str(out), str(flag)])
    while not flag.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    with pytest.raises(DataError, match="is not finished; run build_bank again"):
        SaliencyBank(out)
    assert [path.name for path in sorted(out.glob("*.json"))] == ["bank.json", "part-000000.json", "part-000001.json"]
    assert not (out / "index.jsonl").exists()


def test_what_a_slow_backend_computed_is_written_now_and_then(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_OFTEN", 0.0)
    bank = build(folder, Counting())
    assert len(list(bank.folder.glob("part-*.maps"))) == 5
    again = Counting()
    assert torch.equal(build(folder, again).maps(range(5)), bank.maps(range(5)))
    assert again.seen == 0


@pytest.mark.parametrize("cut", range(0, 260, 20))
def test_taken_up_wherever_writing_stopped(folder: Path, cut: int) -> None:
    """Files as a machine that lost its power may leave them: each cut short, the index not yet there."""
    whole = build(folder, Counting()).maps(range(5))
    out = folder.parent / "bank"
    header = json.loads((out / "bank.json").read_text())
    header["complete"] = False
    (out / "bank.json").write_text(json.dumps(header))
    (out / "index.jsonl").unlink()
    rows = (out / "part-000000.rows").read_bytes()
    (out / "part-000000.rows").write_bytes(rows[: len(rows) - (cut > 200) * cut])
    maps = (out / "part-000000.maps").read_bytes()
    (out / "part-000000.maps").write_bytes(maps[: len(maps) - cut // 5])
    again = Counting()
    assert torch.equal(build(folder, again).maps(range(5)), whole)
    assert again.seen >= (cut > 0)
    assert again.seen <= 5


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("bank.json", lambda b: b[:40], "damaged: bank.json cannot be read"),
        (
            "bank.json",
            lambda b: b.replace(b'"format": 2', b'"format": 1'),
            "format 1, this version reads 2; remove the folder",
        ),
        ("bank.json", lambda b: None, "no saliency bank in"),
        ("index.jsonl", lambda b: b[:-5], "damaged: index.jsonl is missing or its checksum does not match"),
        ("index.jsonl", lambda b: None, "damaged: index.jsonl"),
        ("part-000000.json", lambda b: b[:-5], "part-000000.json is damaged: not JSON"),
        ("part-000000.json", lambda b: None, "part-000000.json is damaged: it is missing; run"),
        ("part-000000.json", lambda b: b.replace(b"[64, 64]", b"[32, 128]"), "part-000000.rows is damaged"),
        ("part-000000.rows", lambda b: b[:-1], "part-000000.rows is damaged: its checksum does not match"),
        ("part-000000.rows", lambda b: None, "part-000000.rows is damaged: it is missing; run"),
        ("part-000000.rows", lambda b: b[:4] + bytes([b[4] ^ 1]) + b[5:], "part-000000.rows is damaged"),
        ("part-000000.maps", lambda b: b[:-1], None),
        ("part-000000.maps", lambda b: b[:4095], "part-000000.maps is damaged: its checksum does not match; run"),
        ("part-000000.maps", lambda b: None, "part-000000.maps is damaged: it is missing; run"),
        ("part-000000.maps", lambda b: bytes([b[0] ^ 1]) + b[1:], "part-000000.maps is damaged"),
    ],
)
def test_damage_is_noticed(folder: Path, name: str, change: Any, message: str) -> None:
    build(folder)
    path = folder.parent / "bank" / name
    content = change(path.read_bytes())
    path.unlink() if content is None else path.write_bytes(content)
    if message is None:  # of another map
        SaliencyBank(path.parent)["owl/1.png"]
        message = "part-000000.maps is damaged: its checksum does not match; run build_bank again"
        with pytest.raises(DataError, match=message):
            SaliencyBank(path.parent)["tit/4.webp"]
        return
    with pytest.raises(DataError, match=message):
        SaliencyBank(path.parent)["owl/1.png"]


def test_large_maps_are_written_before_the_memory_is_full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_MOST", 2 * 4 * 4)
    bank = build(folder, Counting())
    assert [path.stat().st_size for path in sorted(bank.folder.glob("*.maps"))] == [32, 32, 16]
    assert len(bank.maps(range(5)).unique(dim=0)) == 5


def test_what_cannot_be_read_is_not_what_is_damaged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails for a moment costs no map."""
    bank = build(folder, Counting())
    whole = bank.maps(range(5))
    with monkeypatch.context() as patch:
        patch.setattr("sgdmix_albu.io.storage.read_part", refuse)
        for call in (lambda: bank.maps([0]), lambda: build(folder, Counting())):
            with pytest.raises(DataError, match=r"cannot read .*part-000000\..*: Input/output error$"):
                call()
    again = Counting()
    assert torch.equal(build(folder, again).maps(range(5)), whole)
    assert again.seen == 0


def refuse(*_: Any) -> bytes:
    raise OSError(5, "Input/output error")


def test_damaged_map_is_computed_again(folder: Path) -> None:
    expected = build(folder, Counting()).maps(range(5))
    path = folder.parent / "bank" / "part-000000.maps"
    path.write_bytes(path.read_bytes()[:16] + bytes(16) + path.read_bytes()[32:])
    again = Counting()
    assert torch.equal(build(folder, again).maps(range(5)), expected)
    assert again.seen == 1


def test_does_not_write_into_something_else(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"no saliency bank in .*: there is no bank.json"):
        build_bank(folder, tmp_path / "other", "spectral_residual", progress=False)
    with pytest.raises(DataError, match="must lie apart"):
        build_bank(folder, folder, "spectral_residual", progress=False)
    with pytest.raises(InvalidInputError, match="must be positive"):
        build(folder, size=0)


# ---- fingerprints


def test_fingerprint_of_models() -> None:
    assert fingerprint(cnn()) == fingerprint(cnn())
    assert fingerprint(cnn().eval()) == fingerprint(cnn())  # the mode does not matter
    for change in ("weight", "buffer", "architecture", "dtype"):
        model = cnn()
        if change == "weight":
            model.head[3].bias.data[0] += 1e-6
        elif change == "buffer":
            model.features[1].running_mean[0] += 1e-6
        elif change == "architecture":
            model.features[0].stride = (1, 1)
        else:
            model.to(torch.bfloat16)
        assert fingerprint(model) != fingerprint(cnn()), change


def test_fingerprint_of_functions() -> None:
    def power(exponent: int) -> Any:
        return lambda images: images.mean(1) ** exponent

    assert fingerprint(power(2)) == fingerprint(power(2))
    assert fingerprint(power(2)) != fingerprint(power(3))
    assert fingerprint(lambda images: images.mean(1)) != fingerprint(lambda images: images.amax(1))


def test_fingerprint_repeats_in_another_process() -> None:
    made = "get_backend('gradcam', model=torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()))"
    code = (
        "import torch; from sgdmix_albu.saliency import get_backend\n"
        "from sgdmix_albu.saliency.fingerprint import fingerprint\n"
        f"torch.manual_seed(0); backend = {made}\nprint(fingerprint([type(backend), backend.settings()]))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": s},
        ).stdout
        for s in ("1", "2")
    ]
    assert len(runs[0].strip()) == 64
    assert runs[0] == runs[1]
