"""Saliency as commands ask for it: a backend with options, or a bank of maps that were computed before."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from expand_helpers import expand, photograph, pixels, rows_of, write_tree
from PIL import Image, ImageOps
from tiny_segmenters import tiny_clipseg
from torch import Tensor, nn
from torchvision.models import resnet18

from sgdmix_albu import SGDMix
from sgdmix_albu.arguments import check_plain
from sgdmix_albu.audit import run_audit
from sgdmix_albu.bank.map_source import from_anywhere, open_map_source, open_saliency
from sgdmix_albu.cli import main
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.expand import SaliencySettings, Settings, make_bank, mix_folder
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.refine.finetuning.data import TrainingImages
from sgdmix_albu.refine.finetuning.latents import _served
from sgdmix_albu.saliency import SaliencyBackend, SaliencyBank, get_backend, register_backend
from sgdmix_albu.saliency.options import parse_options


class Quadrant(SaliencyBackend):
    """The brightest quarter of an image, or the darkest: the same however the image is resized, and exact in 8 bits."""

    def __init__(self, *, darkest: bool = False, microbatch: int | None = None) -> None:
        super().__init__(microbatch=microbatch)
        self.darkest = darkest

    @property
    def uses_labels(self) -> bool:
        return False

    def _raw(self, images: Tensor, labels: Tensor | None) -> Tensor:
        quarters = nn.functional.adaptive_avg_pool2d(images.mean(1), 2) * (-1 if self.darkest else 1)
        return (quarters == quarters.amax((1, 2), keepdim=True)).float()


@pytest.fixture(autouse=True)
def quadrant() -> None:
    register_backend("quadrant", Quadrant)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "photos", classes=3, images=4)


@pytest.fixture
def bank(photos: Path, tmp_path: Path) -> str:
    made = make_bank(photos, tmp_path / "maps of mine", saliency="quadrant", size=32, progress=False)
    return f"bank:{made.folder}"


def mix(photos: Path, out: Path, **settings: Any) -> Any:
    chosen = {"mask": "otsu", "fill": "source", "max_coverage": 1.0, **settings}
    return mix_folder(photos, out, progress=Progress(quiet=True), **chosen)


def images_of(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.png")}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("u2net", "u2net"),
        ("4", 4),
        ("-4", -4),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("true", True),
        ("False", False),
        ("nan", "nan"),
        ("inf", "inf"),
        ("a=b", "a=b"),
        ("1234567890" * 4, "1234567890" * 4),  # a commit
        ("1_000", "1_000"),
        ("../1", "../1"),
    ],
)
def test_values_of_options(text: str, value: Any) -> None:
    (found,) = parse_options([f"name={text}"]).values()
    assert (type(found), found) == (type(value), value)


def test_what_is_text_stays_text() -> None:
    found = parse_options(["prompt=747", "model=007", "session=true"])
    assert found == {"prompt": "747", "model": "007", "session": "true"}


@pytest.mark.parametrize("texts", [["session"], ["=u2net"], ["session="], ["a b=1"], ["a=1", "a=2"]])
def test_what_is_no_option(texts: list[str]) -> None:
    with pytest.raises(InvalidInputError, match="as NAME=VALUE, got|is given twice"):
        parse_options(texts)


@pytest.mark.parametrize("options", [[("a", 1)], {"a": None}, {"a": [1]}, {1: "a"}])
def test_options_that_cannot_be_written_down(options: Any) -> None:
    with pytest.raises(InvalidInputError, match="expected the options|expected text, a number, True or False"):
        check_plain(options)


def test_a_run_holds_a_copy_of_its_options() -> None:
    options = {"microbatch": 2}
    settings = SaliencySettings("quadrant", options=options)
    options["microbatch"] = 3
    assert settings.options == {"microbatch": 2}


def test_options_reach_the_backend_and_are_noted(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--saliency", "quadrant", "--saliency-option", "darkest=true", "--saliency-option", "microbatch=2"]
    more = ["--mask", "otsu", "--fill", "source", "--max-coverage", "1"]
    assert main(["mix", str(photos), str(tmp_path / "dark"), *words, *more]) == 0
    mix(photos, tmp_path / "same", saliency="quadrant", saliency_options={"darkest": True})
    mix(photos, tmp_path / "bright", saliency="quadrant")
    assert images_of(tmp_path / "dark") == images_of(tmp_path / "same") != images_of(tmp_path / "bright")
    assert rows_of(tmp_path / "dark")[0]["saliency_options"] == {"darkest": True, "microbatch": 2}
    assert "saliency_options" not in rows_of(tmp_path / "bright")[0]
    assert (
        main(["mix", str(photos), str(tmp_path / "no"), "--saliency", "quadrant", "--saliency-option", "dark=1"]) == 2
    )
    assert "'quadrant' has no option 'dark'; did you mean 'darkest'?" in capsys.readouterr().err


def test_mixing_by_a_bank_is_mixing_by_its_backend(photos: Path, bank: str, tmp_path: Path) -> None:
    summary = mix(photos, tmp_path / "served", saliency=bank)
    mix(photos, tmp_path / "computed", saliency="quadrant")
    assert summary.mixed == 12
    assert images_of(tmp_path / "served") == images_of(tmp_path / "computed")
    row = rows_of(tmp_path / "served")[0]
    assert row["saliency"] == "bank:maps of mine"  # and no folder
    assert row["saliency_options"] == {"sha256": SaliencyBank(tmp_path / "maps of mine").settings_sha256}
    mix(photos, tmp_path / "smaller", saliency=bank, size=24)  # a map covers its image at any size
    mix(photos, tmp_path / "computed smaller", saliency="quadrant", size=24)
    assert images_of(tmp_path / "smaller") == images_of(tmp_path / "computed smaller")


def test_images_that_a_bank_does_not_know_are_left_out_by_name(photos: Path, bank: str, tmp_path: Path) -> None:
    Image.fromarray(photograph(77)).save(photos / "class 0" / "000.png")  # changed
    Image.fromarray(photograph(78)).save(photos / "class 1" / "new.png")
    shutil.move(photos / "class 2" / "000.png", photos / "class 2" / "renamed.png")
    summary = mix(photos, tmp_path / "out", saliency=bank)
    assert {one.key for one in summary.skipped} == {"class 0/000.png", "class 1/new.png"}
    assert all("it is new or was changed; run sgdmix bank again" in one.reason for one in summary.skipped)
    assert summary.mixed == 11
    shutil.rmtree(photos / "class 1")
    other = write_tree(tmp_path / "others", classes=1, images=2)
    shutil.rmtree(other / "class 0")
    Image.fromarray(photograph(99)).save(_folder(other / "tit") / "1.png")
    with pytest.raises(DataError, match="has no image with this content"):
        mix(other, tmp_path / "none", saliency=bank)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_maps_that_explain_classes_are_served_for_those_alone(photos: Path, tmp_path: Path) -> None:
    class Labelled(Quadrant):
        uses_labels = True

        def _raw(self, images: Tensor, labels: Tensor | None) -> Tensor:
            assert labels is not None
            return torch.eye(3)[labels][:, None] + torch.zeros(len(images), 2, 1)

    register_backend("test_labelled", Labelled)
    same = photos / "class 2" / "000.png"
    shutil.copy(photos / "class 0" / "000.png", same)  # the same picture in two classes
    made = make_bank(photos, tmp_path / "bank", saliency="test_labelled", progress=False)
    digest = hashlib.sha256(same.read_bytes()).hexdigest()
    assert made.of_contents([digest, digest], [0, 2])[:, 0].tolist() == [[1, 0, 0], [0, 0, 1]]
    assert made.of_file(same, 0)[0].tolist() == [255, 0, 0]
    with pytest.raises(DataError, match="explains class 0 and 2 of the image with .* class 1 was requested"):
        made.of_contents([digest], [1])


def test_a_bank_has_no_options_and_looks_through_nothing(photos: Path, bank: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="takes no options: its maps are already computed"):
        mix(photos, tmp_path / "out", saliency=bank, saliency_options={"microbatch": 2})
    with pytest.raises(InvalidInputError, match="uses no model"):
        mix(photos, tmp_path / "out", saliency=bank, model="any.pt")
    with pytest.raises(DataError, match="no saliency bank in .*nowhere"):
        mix(photos, tmp_path / "out", saliency="bank:nowhere")
    with pytest.raises(InvalidInputError, match="a bank is made of what a backend computes"):
        make_bank(photos, tmp_path / "another", saliency=bank)
    for use in (SGDMix, get_backend):
        with pytest.raises(InvalidInputError, match="works in commands"):
            use(bank)


def test_expanding_by_a_bank(photos: Path, bank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def settings(saliency: str) -> Settings:
        return Settings(saliency=saliency, mask="otsu", fill="source", max_coverage=1.0, multiplier=2)

    monkeypatch.chdir(tmp_path)
    expand(photos, tmp_path / "served", settings("bank:maps of mine"))
    expand(photos, tmp_path / "computed", settings("quadrant"))
    served, computed = images_of(tmp_path / "served"), images_of(tmp_path / "computed")
    assert len(served) == 24
    assert served == computed
    assert str(tmp_path) not in (tmp_path / "served" / ".sgdmix-run.json").read_text()
    assert str(tmp_path) not in (tmp_path / "served" / "metadata.jsonl").read_text()
    # A bank that lies elsewhere and was made alike goes on; one that was made otherwise is refused.
    shutil.move(tmp_path / "maps of mine", _folder(tmp_path / "moved") / "maps of mine")
    assert expand(photos, tmp_path / "served", settings("bank:moved/maps of mine")).written == 0
    make_bank(
        photos, "dark/maps of mine", saliency="quadrant", saliency_options={"darkest": True}, size=32, progress=False
    )
    with pytest.raises(DataError, match="saliency_options"):
        expand(photos, tmp_path / "served", settings("bank:dark/maps of mine"))


def test_expanding_with_other_options_is_another_run(photos: Path, tmp_path: Path) -> None:
    settings = Settings(saliency="quadrant", mask="otsu", fill="source", max_coverage=1.0, multiplier=1)
    looks = [SaliencySettings("quadrant", options={"darkest": darkest}) for darkest in (True, False)]
    expand(photos, tmp_path / "out", replace(settings, saliency=looks[0]))
    with pytest.raises(DataError, match="saliency_options"):
        expand(photos, tmp_path / "out", replace(settings, saliency=looks[1]))


def test_the_audit_by_a_bank(photos: Path, bank: str, tmp_path: Path) -> None:
    common = {"mask": ["otsu"], "pairs": 6, "samples": 2, "candidates": 4, "size": 48, "agreement_with": "none"}
    served = run_audit(photos, out=tmp_path / "served", saliency=[bank], **common)
    computed = run_audit(photos, out=tmp_path / "computed", saliency=["quadrant"], **common)
    assert served.variants[0].means == computed.variants[0].means
    with pytest.raises(InvalidInputError, match="finds maps by image files, but these images are drawn"):
        run_audit(dataset="aviary", out=tmp_path / "drawn", saliency=[bank], **common)
    Image.fromarray(photograph(77)).save(photos / "class 0" / "000.png")
    with pytest.raises(DataError, match=r"has no image with the content of .*class 0/000\.png"):
        run_audit(photos, out=tmp_path / "changed", saliency=[bank], **{**common, "pairs": 12})


def test_options_go_to_those_of_several_backends_that_have_them(photos: Path, tmp_path: Path) -> None:
    common = {"mask": ["otsu"], "pairs": 4, "samples": 2, "agreement_with": "none"}
    names = ["quadrant", "spectral_residual"]
    audit = run_audit(photos, out=tmp_path / "a", saliency=names, saliency_options={"darkest": True}, **common)
    command = json.loads((tmp_path / "a" / "audit.json").read_text())["settings"]["saliency_options"]
    assert command == {"darkest": True}
    assert "--saliency-option darkest=True" in audit.report.read_text()
    with pytest.raises(InvalidInputError, match="none of quadrant, spectral_residual has an option 'session'"):
        run_audit(photos, out=tmp_path / "b", saliency=names, saliency_options={"session": "u2net"}, **common)


def test_the_prompt_is_what_all_classes_are_where_that_is_known(photos: Path, tmp_path: Path) -> None:
    clipseg = tiny_clipseg(tmp_path / "clipseg")
    options = {"model": str(clipseg)}
    mix(None, tmp_path / "birds", dataset="aviary", saliency="text", saliency_options=options, limit=4, size=48)
    noted = rows_of(tmp_path / "birds")[0]["saliency_options"]
    assert noted == get_backend("text", prompt="bird", **options).noted()
    assert noted["model"] == "clipseg"  # and no folder
    with pytest.raises(InvalidInputError, match="'text' needs prompt="):
        mix(photos, tmp_path / "out", saliency="text", saliency_options=options)


def test_a_bank_of_what_looks_through_a_classifier(photos: Path, tmp_path: Path) -> None:
    """Its outputs in another order than the folders: each map explains its own class."""
    torch.manual_seed(0)
    model = resnet18(num_classes=3)
    names = ["class 2", "class 0", "class 1"]
    facts = {"arch": "resnet18", "class_names": names, "state_dict": model.state_dict()}
    torch.save(facts, tmp_path / "net.pt")
    options = {"saliency": "gradcam", "model": tmp_path / "net.pt"}
    bank = make_bank(photos, tmp_path / "bank", size=48, progress=False, **options)
    served = open_saliency(SaliencySettings(f"bank:{bank.folder}"), ["class 0", "class 1", "class 2"]).backend
    for label in range(3):
        path = photos / f"class {label}" / "001.png"
        with Image.open(path) as image:
            small = np.asarray(image.resize((48, 48), Image.Resampling.BILINEAR))
        batch = torch.from_numpy(small.copy()).permute(2, 0, 1)[None].float() / 255
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        standard = (batch - mean[:, None, None]) / std[:, None, None]
        expected = get_backend("gradcam", model=model, target=names.index(f"class {label}")).coarse(standard)
        torch.testing.assert_close(served.of_file(path, label)[None].float() / 255, expected, atol=0.01, rtol=0)


def test_fine_tuning_by_a_bank(tmp_path: Path) -> None:
    """A map is cut out and mirrored as its image is: the backend's map here is the image's own red."""
    rng = np.random.default_rng(0)
    for label, size in enumerate([(40, 90), (70, 33)]):
        folder = _folder(tmp_path / "photos" / f"class {label}")
        noise = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        smooth = ImageOps.autocontrast(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC))
        smooth.save(folder / "1.png")
    register_backend("test_red", lambda images: images[:, 0])
    make_bank(tmp_path / "photos", tmp_path / "bank", saliency="test_red", size=96, progress=False)
    images, bank = TrainingImages(tmp_path / "photos", 32), SaliencyBank(tmp_path / "bank")
    maps = _served(bank, images, [0, 1], False)
    red = torch.stack([images[row][0] for row in (0, 1)]).float() / 255
    assert (maps - red).abs().mean() < 0.02
    assert torch.equal(_served(bank, images, [0, 1], True), maps.flip(-1))
    with pytest.raises(InvalidInputError, match="expected a folder to fine-tune on"):
        _Birds.images(16).map(0, bank)


class _Birds(list):  # a data set in memory
    classes, targets = ["owl"], [0]

    @classmethod
    def images(cls, side: int) -> TrainingImages:
        return TrainingImages(cls([(Image.new("RGB", (side, side)), 0)]), side)


def test_the_command(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (photos / "class 0" / "bad.png").write_bytes(b"")
    words = [str(photos), str(tmp_path / "bank"), "--saliency", "quadrant", "--saliency-option", "darkest=true"]
    assert main(["bank", *words, "--size", "32"]) == 1
    said = capsys.readouterr().out
    assert "skipped  class 0/bad.png: " in said
    assert "maps     12, each 2 x 2\n" in said
    assert f"use it as --saliency bank:{tmp_path / 'bank'}" in said
    served, _ = open_map_source(f"bank:{tmp_path / 'bank'}").timed(
        torch.zeros(1, 3, 8, 8), None, [photos / "class 1" / "001.png"]
    )
    computed = Quadrant(darkest=True).coarse(
        torch.from_numpy(pixels(photos / "class 1" / "001.png").copy()).permute(2, 0, 1)[None]
    )
    assert torch.equal(served, computed)
    assert main(["bank", *words[:2], "--saliency-option", "dark"]) == 2
    assert "as NAME=VALUE, got 'dark'" in capsys.readouterr().err
    assert main(["finetune", str(photos), "x", "--key", "cub", "--saliency-option", "a=1"]) == 2
    assert "--saliency-option goes with --saliency" in capsys.readouterr().err


def test_settings_mean_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of a cluster may start elsewhere."""
    monkeypatch.chdir(tmp_path)
    for name in ("own.safetensors", "net.pt", "rembg"):  # a file may be called as a backend is
        Path(name).write_bytes(b"")
    Path("clipseg").mkdir()
    own = SaliencySettings("own.safetensors", "net.pt", options={"model": "clipseg", "prompt": "net.pt"})
    found = from_anywhere(own)
    assert found.saliency == str(tmp_path / "own.safetensors")
    assert found.model == str(tmp_path / "net.pt")
    assert found.options == {"model": str(tmp_path / "clipseg"), "prompt": "net.pt"}
    assert from_anywhere(SaliencySettings("bank:maps")).saliency == f"bank:{tmp_path / 'maps'}"
    hub = SaliencySettings("text", options={"model": "CIDAS/clipseg", "revision": "0" * 40})
    assert from_anywhere(hub) == hub
    assert from_anywhere(SaliencySettings("rembg")).saliency == "rembg"
